"""The stamps of a lab's machines: the inputs that were applied to each, as playbooks/site.yml leaves them there.

Ansible takes several seconds to find every stamp in place. The guest agents of the machines read them in one, so a
converge that has nothing to do does not start Ansible. Where an agent does not answer, Ansible looks itself.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor

import yaml

from hoplab.core.paths import LabPaths
from hoplab.host import agent, machines
from hoplab.spec.plan import LabPlan

STAMP_FILE = "/etc/hoplab/applied"  # stamp_file of inventory/group_vars/all.yml, on a machine with a guest agent
READ_S = 10.0  # for one machine, scaled by the measured speed


def are_in_place(plan: LabPlan, paths: LabPaths, uri: str, inputs: tuple[str, str]) -> bool:
    """Return whether every machine has the stamp of these inputs (``inputs_digests``); False where one is not known."""
    try:
        wanted = expected(plan, paths, inputs)
        return _read(paths, uri, list(wanted)) == wanted
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError, agent.AgentError):
        return False


def expected(plan: LabPlan, paths: LabPaths, inputs: tuple[str, str]) -> dict[str, str]:
    """Return the stamp of each machine, as ``stamp`` of inventory/group_vars/all.yml: a worker's has its cluster, too.

    Raise OSError or an error of the parsers where the lab has no kubeconfig.
    """
    of_control_plane, of_worker = inputs
    cluster = yaml.safe_load(paths.kubeconfig.read_text())["clusters"][0]["cluster"]
    authority = hashlib.sha256(b64decode(cluster["certificate-authority-data"])).hexdigest()[:16]
    return {
        node.name: of_control_plane if node.role == "control-plane" else f"{of_worker}-{authority}"
        for node in plan.nodes
    }


def _read(paths: LabPaths, uri: str, names: list[str]) -> dict[str, str]:
    """Return the stamp of each node, "" where it has none; raise AgentError."""

    def read(node: str) -> str:
        with agent.opened(uri, machines.domain_name(paths.id, node)) as opened:
            return opened.run(f"cat {STAMP_FILE}", limit_s=READ_S).out.strip()

    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(read, names), strict=True))
