"""What Ansible and SSH need of a lab: writes ``inventory/<lab>.yml`` and ``inventory/<lab>.ssh_config``.

The inventory holds facts about the lab (under ``lab:``) and which machine is in which group, no role inputs: those are
made of the facts in ``inventory/group_vars/all.yml``. The ssh_config is what people, Ansible and tests all use:

    $ ssh -F inventory/dev.ssh_config worker1
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hoplab.core import fs
from hoplab.core.paths import LabPaths
from hoplab.host import rootless
from hoplab.host.remote import proxy_command
from hoplab.pki.keys import LabKeys
from hoplab.spec.libvirt_uri import RemoteHost
from hoplab.spec.parts import Parts
from hoplab.spec.plan import LabPlan

HOSTED = "control-plane"  # name of the host end of the lab network in the inventory, and of its etcd member
SOURCES = ("roles", "playbooks", "inventory/group_vars")  # what, beside the inventory, decides what a converge does


def write_inventory(
    plan: LabPlan,
    paths: LabPaths,
    *,
    netns: str,
    image_bin: Path,
    image_digest: str,
    keys: LabKeys,
    parts: Parts,
    archives: Mapping[str, Path] | None = None,
    remote: RemoteHost | None = None,
    api_url: str = "",
) -> None:
    """Write both files, and make the folder of SSH's control sockets.

    ``archives`` maps roles to the container images that nodes import for them. ``remote`` is the other host that runs
    the machines, ``api_url`` where their API server is reached from this one.
    """
    facts = lab_facts(plan, paths, netns=netns, image_bin=image_bin, image_digest=image_digest, parts=parts)
    facts["archives"] = {role: str(archive) for role, archive in (archives or {}).items()}
    if api_url:
        facts["api_url"] = api_url
    paths.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    paths.inventory.parent.mkdir(parents=True, exist_ok=True)
    fs.write(paths.inventory, inventory_text(plan, facts))
    fs.write(paths.ssh_config, ssh_config_text(plan, paths, netns=netns, keys=keys, remote=remote))


def lab_facts(
    plan: LabPlan, paths: LabPaths, *, netns: str, image_bin: Path, image_digest: str, parts: Parts
) -> dict[str, Any]:
    """Return the facts that group_vars/all.yml makes role inputs of."""
    return {
        "name": plan.lab,
        "accel": plan.accel,
        "placement": plan.placement,
        "netns": netns,
        "image": {"digest": image_digest, "bin": str(image_bin)},
        "gateway": str(plan.network.gateway),
        "nodes": [node.name for node in plan.nodes],
        "addresses": [str(node.address) for node in plan.nodes],
        "node_ips": {node.name: [str(node.address), str(node.address6)] for node in plan.nodes if node.address6},
        "api_address": str(plan.api_address),
        "pod_cidr": str(plan.pod_cidr),
        "service_cidr": str(plan.service_cidr),
        "ipv6": ipv6_facts(plan),
        "cni": {
            "name": plan.cni.name,
            "backend": plan.cni.backend,
            "nftables": plan.cni.nftables,
            "block_size": plan.cni.block_size,
        },
        "proxy_mode": plan.proxy_mode,
        "ingress_controller": plan.ingress_controller,
        "gateway_api": plan.gateway_api,
        "gateway_controller": plan.gateway_controller,
        "network_policy": plan.network_policy,
        "load_balancer": {"name": plan.load_balancer, "pool": str(plan.pool or "")},
        "kubernetes_version": plan.kubernetes_version,
        "reset": reset_facts(parts),
        "project": str(paths.project),
        "python": sys.executable,
        "control_plane": str(paths.control_plane),
        "kubeconfig": str(paths.kubeconfig),
        "ssh_config": str(paths.ssh_config),
    }


def reset_facts(parts: Parts) -> dict[str, list[str]]:
    """Return what a reset removes and unloads on a node: what each known CNI leaves, also those that were not used."""
    scopes = [part.reset for part in parts.cni.values()]
    return {
        "directories": sorted({folder for scope in scopes for folder in scope.directories}),
        "files": sorted({file for scope in scopes for file in scope.files}),
        "kernel_modules": sorted({module for scope in scopes for module in scope.kernel_modules}),
        "route_protocols": sorted({protocol for scope in scopes for protocol in scope.route_protocols}),
    }


def refresh_reset_facts(paths: LabPaths, parts: Parts) -> None:
    """Write the reset facts into the inventory of a lab, which an earlier state of the project may have written."""
    inventory = yaml.safe_load(paths.inventory.read_text())
    inventory["all"]["vars"]["lab"]["reset"] = reset_facts(parts)
    fs.write(paths.inventory, _yaml(inventory))


def ipv6_facts(plan: LabPlan) -> dict[str, Any]:
    """Return the facts of the second address family; empty in a lab without it."""
    if plan.ipv6 is None:
        return {}
    return {
        "network": str(plan.ipv6.network),
        "pod_cidr": str(plan.ipv6.pod_cidr),
        "service_cidr": str(plan.ipv6.service_cidr),
    }


OF_OTHERS = ("nodes", "addresses", "node_ips")  # facts about all nodes: of these a worker's roles use its own at most


def inputs_digests(file: Path, project: Path) -> tuple[str, str]:
    """Return digests of the inputs of a converge, an inventory and every file of roles and playbooks.

    The first one is the control plane's, the second one a worker's: that does not depend on the other nodes, so that
    adding one changes just that one. A machine with its digest in its stamp has had exactly these inputs applied.
    """
    inventory = yaml.safe_load(file.read_text())["all"]
    of_worker = {name: value for name, value in inventory["vars"]["lab"].items() if name not in OF_OTHERS}
    roles = roles_digest(project)

    def digest(facts: dict[str, Any]) -> str:
        return hashlib.sha256((json.dumps(facts, sort_keys=True) + roles).encode()).hexdigest()[:16]

    return digest(inventory), digest(of_worker)


def roles_digest(project: Path) -> str:
    """Return a digest of every file of roles and playbooks."""
    digest = hashlib.sha256()
    for source in SOURCES:
        for path in sorted((project / source).rglob("*")):
            if path.is_file() and path.suffix != ".md":
                digest.update(f"\0{path.relative_to(project)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def inventory_text(plan: LabPlan, facts: dict[str, Any]) -> str:
    """Return the inventory: groups control_plane, workers, and nodes (every machine)."""
    hosted = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    control_plane: dict[str, Any] = {node.name: {} for node in plan.nodes if node.role == "control-plane"}
    inventory = {
        "all": {
            "vars": {"lab": facts, "ansible_ssh_args": f"-F {shlex.quote(facts['ssh_config'])}"},
            "children": {
                "control_plane": {"hosts": control_plane or {HOSTED: hosted}},
                "workers": {"hosts": {node.name: {} for node in plan.workers}},
                "nodes": {"hosts": {node.name: {} for node in plan.nodes}},
            },
        }
    }
    return _yaml(inventory)


def _yaml(inventory: dict[str, Any]) -> str:
    return f"# written by `lab up`\n{yaml.safe_dump(inventory, sort_keys=False, width=120)}"


def ssh_include_text(ssh_config: str, prefix: str) -> str:
    """Return an ssh_config for ~/.ssh/config to include: names get a prefix, and no option is for other hosts.

    >>> print(ssh_include_text("Host worker1\\n  HostName 192.168.77.20\\nHost *\\n  User lab\\n", "hoplab-dev-"))
    Host hoplab-dev-worker1
      HostName 192.168.77.20
    Host hoplab-dev-worker1
      User lab
    <BLANKLINE>
    """
    names = re.findall(r"^Host ([^*\s]+)$", ssh_config, re.MULTILINE)
    every = " ".join(f"{prefix}{name}" for name in names)
    text = re.sub(r"^Host ([^*\s]+)$", rf"Host {prefix}\1", ssh_config, flags=re.MULTILINE)
    return re.sub(r"^Host \*$", f"Host {every}", text, flags=re.MULTILINE)


def ssh_config_text(
    plan: LabPlan, paths: LabPaths, *, netns: str, keys: LabKeys, remote: RemoteHost | None = None
) -> str:
    """Return one block per machine, then what all share; the proxy command enters the lab's namespace or host."""
    lines = ["# written by `lab up`"]
    for node in plan.nodes:
        lines += ["", f"Host {node.name}", f"  HostName {node.address}", f"  HostKeyAlias {node.name}"]
    lines += [
        "",
        "Host *",
        "  User lab",
        f"  IdentityFile {_path(keys.user_private)}",
        "  IdentitiesOnly yes",
        f"  UserKnownHostsFile {_path(keys.known_hosts)}",
        "  StrictHostKeyChecking yes",
        "  PasswordAuthentication no",
        "  LogLevel ERROR",
        "  ServerAliveInterval 15",
        "  ServerAliveCountMax 8",
        "  KexAlgorithms curve25519-sha256",  # OpenSSH's post-quantum default takes seconds on an emulated machine
        "  ControlMaster auto",
        "  ControlPersist 10m",
        f"  ControlPath {paths.run}/ssh-%n",
    ]
    if netns:
        lines.append(f"  ProxyCommand {rootless.in_network(netns)} socat - TCP:%h:%p")
    if remote:
        lines.append(f"  ProxyCommand {proxy_command(remote)}")
    return "\n".join(lines) + "\n"


def _path(path: Path) -> str:
    """Return a path as ssh_config has it, which takes spaces for ends and percent signs for tokens.

    >>> _path(Path("/lab/keys/id")), _path(Path("/my lab/100%/id"))
    ('/lab/keys/id', '"/my lab/100%%/id"')
    """
    text = str(path).replace("%", "%%")
    return f'"{text}"' if re.search(r"\s", text) else text
