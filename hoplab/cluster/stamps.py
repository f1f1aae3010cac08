"""The stamps of a lab's machines: the inputs that were applied to each, as playbooks/site.yml leaves them there.

Ansible takes several seconds to find every stamp in place. The guest agents of the machines read them in one, so a
converge that has nothing to do does not start Ansible. Where an agent does not answer, Ansible looks itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from hoplab.cluster.inventory import inputs_digest
from hoplab.core import fs
from hoplab.core.paths import LabPaths
from hoplab.host import agent, machines

STAMP_FILE = "/etc/hoplab/applied"  # stamp_file of inventory/group_vars/all.yml, on a machine with a guest agent
READ_S = 10.0  # for one machine, scaled by the measured speed


def match(paths: LabPaths, uri: str, nodes: Iterable[str]) -> bool:
    """Return whether these nodes, and no others, have the stamps of the last converge, which had the inputs of now."""
    names = sorted(nodes)
    try:
        recorded = json.loads(paths.stamps.read_text())
        if recorded["inputs"] != _inputs(paths) or sorted(recorded["stamps"]) != names:
            return False
        return bool(recorded["stamps"] == _read(paths, uri, names))
    except (OSError, ValueError, LookupError, TypeError, agent.AgentError):
        return False


@contextmanager
def recorded(paths: LabPaths, uri: str, nodes: Iterable[str]) -> Iterator[None]:
    """Read the stamps that a converge has just left while the body runs, and record them for ``match``."""
    names = sorted(nodes)
    paths.stamps.unlink(missing_ok=True)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(_read, paths, uri, names)
        yield
        try:
            stamps = reading.result()
        except agent.AgentError:
            return  # the next converge is Ansible's
    if all(stamps.values()):
        fs.write(paths.stamps, json.dumps({"inputs": _inputs(paths), "stamps": stamps}))


def _inputs(paths: LabPaths) -> list[str]:
    return [inputs_digest(paths), inputs_digest(paths, nodes=False)]


def _read(paths: LabPaths, uri: str, names: list[str]) -> dict[str, str]:
    """Return the stamp of each node, "" where it has none; raise AgentError."""

    def read(node: str) -> str:
        with agent.opened(uri, machines.domain_name(paths.id, node)) as opened:
            return opened.run(f"cat {STAMP_FILE}", limit_s=READ_S).out.strip()

    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(read, names), strict=True))
