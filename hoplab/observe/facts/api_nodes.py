"""Nodes as the Kubernetes API returns them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hoplab.core.ip import V4, V6
from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Entries, Item, gather_kubernetes


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
    address6: IPv6Address | None = None  # both only in a lab that has IPv6
    pod_cidr6: IPv6Network | None = None
    machine_id: str = ""  # of the kubelet's host, /etc/machine-id; "" in older recordings
    system_uuid: str = ""  # ... and its product_uuid


def parse(text: str) -> Entries[ApiNode]:
    return gather_kubernetes(text, "nodes", lambda item: (_node(item),))


def _node(item: Item) -> ApiNode:
    meta, spec, status = item.item("metadata"), item.item("spec"), item.item("status")
    internal = [entry.text("address") for entry in status.items("addresses") if entry.text("type") == "InternalIP"]
    ready = [condition for condition in status.items("conditions") if condition.text("type") == "Ready"]
    info = status.item("nodeInfo")
    ranges = (spec.text("podCIDR"), *spec.texts("podCIDRs"))
    return ApiNode(
        name=meta.text("name"),
        address=next((V4.address(text, "nodes") for text in internal if V4.has(text)), None),
        pod_cidr=next((V4.network(text, "nodes") for text in ranges if text and V4.has(text)), None),
        ready=bool(ready) and ready[0].text("status") == "True",
        why_not_ready=ready[0].text("message") if ready else "it never reported",
        kubelet=info.text("kubeletVersion"),
        runtime=info.text("containerRuntimeVersion"),
        kernel=info.text("kernelVersion"),
        labels=meta.pairs("labels"),
        annotations=meta.pairs("annotations"),
        address6=next((V6.address(text, "nodes") for text in internal if V6.has(text)), None),
        pod_cidr6=next((V6.network(text, "nodes") for text in ranges if V6.has(text)), None),
        machine_id=info.text("machineID"),
        system_uuid=info.text("systemUUID"),
    )


API_NODES = Fact("nodes", "/api/v1/nodes", parse, frozenset({"api"}))
