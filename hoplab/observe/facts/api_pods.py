"""Pods as the Kubernetes API returns them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from hoplab.core.ip import V4, V6, Address, Family, Network
from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Entries, Item, gather_kubernetes


@dataclass(frozen=True)
class ApiPod:
    """One pod."""

    namespace: str
    name: str
    node: str
    address: IPv4Address | None
    host_network: bool  # it is in the node's network namespace and has no address of its own
    running: bool
    ready: bool
    going: bool  # being deleted
    labels: tuple[tuple[str, str], ...]
    address6: IPv6Address | None = None  # only in a lab that has IPv6

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    def label(self, name: str) -> str:
        return dict(self.labels).get(name, "")


def parse(text: str) -> Entries[ApiPod]:
    return gather_kubernetes(text, "pods", lambda item: (_pod(item),))


def _pod(item: Item) -> ApiPod:
    meta, spec, status = item.item("metadata"), item.item("spec"), item.item("status")
    conditions = {condition.text("type"): condition.text("status") for condition in status.items("conditions")}
    return ApiPod(
        namespace=meta.text("namespace"),
        name=meta.text("name"),
        node=spec.text("nodeName"),
        address=status.of_family("podIP", V4) or _address(status, V4),
        host_network=spec.truth("hostNetwork"),
        running=status.text("phase") == "Running",
        ready=conditions.get("Ready") == "True",
        going=bool(meta.text("deletionTimestamp")),
        labels=meta.pairs("labels"),
        address6=_address(status, V6),
    )


def _address(status: Item, family: Family[Address, Network]) -> Address | None:
    return next((found for entry in status.items("podIPs") if (found := entry.of_family("ip", family))), None)


API_PODS = Fact("pods", "/api/v1/pods", parse, frozenset({"api"}))
