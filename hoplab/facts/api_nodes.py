"""Nodes as the Kubernetes API knows them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from hoplab.facts import Fact
from hoplab.facts._json import Item, address, kubernetes_list


@dataclass(frozen=True)
class ApiNode:
    """One node."""

    name: str
    address: IPv4Address | None  # its InternalIP
    pod_cidr: IPv4Network | None
    ready: bool
    why_not_ready: str
    kubelet: str
    runtime: str
    kernel: str
    labels: tuple[tuple[str, str], ...]
    annotations: tuple[tuple[str, str], ...]


def parse(text: str) -> tuple[ApiNode, ...]:
    return tuple(_node(item) for item in kubernetes_list(text, "nodes"))


def _node(item: Item) -> ApiNode:
    meta, spec, status = item.item("metadata"), item.item("spec"), item.item("status")
    internal = [each.text("address") for each in status.items("addresses") if each.text("type") == "InternalIP"]
    ready = [each for each in status.items("conditions") if each.text("type") == "Ready"]
    info = status.item("nodeInfo")
    return ApiNode(
        name=meta.text("name"),
        address=address(internal[0], "nodes") if internal else None,
        pod_cidr=spec.network("podCIDR"),
        ready=bool(ready) and ready[0].text("status") == "True",
        why_not_ready=ready[0].text("message") if ready else "it never reported",
        kubelet=info.text("kubeletVersion"),
        runtime=info.text("containerRuntimeVersion"),
        kernel=info.text("kernelVersion"),
        labels=meta.pairs("labels"),
        annotations=meta.pairs("annotations"),
    )


API_NODES = Fact("nodes", "/api/v1/nodes", parse, frozenset({"api"}))
