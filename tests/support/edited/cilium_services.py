"""A lab with Cilium's programs in the place of kube-proxy: those of the uplink, NodePorts in maps, no rules of KUBE-*.

As Cilium 1.20's source has it with vxlan. The recording cilium-native-cilium is of a lab without tunnels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from hoplab.observe.snapshot import Node, Snapshot
from tests.support.edits import on_node
from tests.support.recordings import recording

BALANCER = "203.0.113.80"  # an address of the service hoplab-verify/balanced
ENDPOINT = "10.244.1.52:8080"  # of single, on worker1


def without_kube_proxy(more: Mapping[str, list[str]] | None = None) -> Snapshot:
    """Return the lab; ``more`` are entries of the map of services, on every node."""
    lab = recording("cilium-vxlan")
    for node in lab.nodes:
        lab = on_node("bpf_programs", _with_uplink, lab, node.name)
        lab = on_node("cilium_services", lambda text, node=node: _served(text, node, more or {}), lab, node.name)  # type: ignore[misc]
        lab = on_node("iptables", _without_services, lab, node.name)
    return replace(lab, setting=replace(lab.setting, proxy_mode="cilium"))


def _with_uplink(text: str) -> str:
    programs = json.loads(text)
    programs[0]["tc"].append({"devname": "eth0", "kind": "tcx/egress", "name": "cil_to_netdev", "prog_id": 1})
    return json.dumps(programs)


def _served(text: str, node: Node, more: Mapping[str, list[str]]) -> str:
    found = json.loads(text)
    for address in (node.address, "0.0.0.0"):
        found[f"{address}:30080/TCP (0)"] = ["0.0.0.0:0 (20) (0) [NodePort] "]
        found[f"{address}:30080/TCP (1)"] = [f"{ENDPOINT}/TCP (20) (1)"]
        found[f"{address}:30081/TCP (0)"] = ["0.0.0.0:0 (21) (0) [NodePort, Local] "]
        if node.name == "worker1":
            found[f"{address}:30081/TCP (1)"] = [f"{ENDPOINT}/TCP (21) (1)"]
    found[f"{BALANCER}:80/TCP (0)"] = ["0.0.0.0:0 (22) (0) [LoadBalancer] "]
    found[f"{BALANCER}:80/TCP (1)"] = [f"{ENDPOINT}/TCP (22) (1)"]
    return json.dumps(found | more)


def _without_services(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if "KUBE-" not in line)
