"""Pods as the Kubernetes API returns them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from hoplab.core.ip import V6
from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Item, kubernetes_list


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


def parse(text: str) -> tuple[ApiPod, ...]:
    return tuple(_pod(item) for item in kubernetes_list(text, "pods"))


def _pod(item: Item) -> ApiPod:
    meta, spec, status = item.item("metadata"), item.item("spec"), item.item("status")
    conditions = {condition.text("type"): condition.text("status") for condition in status.items("conditions")}
    return ApiPod(
        namespace=meta.text("namespace"),
        name=meta.text("name"),
        node=spec.text("nodeName"),
        address=status.address("podIP"),
        host_network=spec.truth("hostNetwork"),
        running=status.text("phase") == "Running",
        ready=conditions.get("Ready") == "True",
        going=bool(meta.text("deletionTimestamp")),
        labels=meta.pairs("labels"),
        address6=next((found for entry in status.items("podIPs") if (found := _address6(entry))), None),
    )


def _address6(item: Item) -> IPv6Address | None:
    return item.read("ip", V6.address) if V6.has(item.text("ip")) else None


API_PODS = Fact("pods", "/api/v1/pods", parse, frozenset({"api"}))
