"""Interfaces: ``ip -d -j link`` with bridge ports, the far ends of veth pairs, and VXLAN details."""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Item, listed


@dataclass(frozen=True)
class Vxlan:
    """The encapsulation of a VXLAN interface."""

    id: int  # VNI
    local: str  # outer source address
    dev: str  # outgoing interface of the outer packets
    port: int  # outer UDP port
    learning: bool  # learns FDB entries from traffic (flannel's does not: flanneld writes them)


@dataclass(frozen=True)
class BridgePort:
    """The state of an interface as a port of a bridge."""

    state: str  # "forwarding", "disabled", ...
    hairpin: bool  # frames may leave by their ingress port: a pod reaches itself through a service


@dataclass(frozen=True)
class Link:
    """One interface."""

    index: int
    name: str
    mac: str
    mtu: int
    up: bool
    kind: str  # "veth", "bridge", "vxlan", ...; "" for a hardware interface and lo
    master: str  # the bridge of this port
    peer_index: int  # a veth's other end: its index in its own namespace
    peer_elsewhere: bool  # the other end is in another namespace
    vxlan: Vxlan | None
    peer: str = ""  # a veth's other end by name, as long as both are in the same namespace
    port: BridgePort | None = None

    def __str__(self) -> str:
        peer = f"@if{self.peer_index}" if self.peer_elsewhere else f"@{self.peer}" if self.peer else ""
        words = [f"{self.index}: {self.name}{peer}", self.kind, f"mtu {self.mtu}", "up" if self.up else "down"]
        return " ".join(word for word in [*words, f"master {self.master}" if self.master else "", self.mac] if word)


def parse(text: str) -> tuple[Link, ...]:
    return tuple(_link(item) for item in listed(text, "links"))


def _link(item: Item) -> Link:
    info = item.item("linkinfo")
    data = info.item("info_data")
    kind = info.text("info_kind")
    port = info.item("info_slave_data")
    return Link(
        index=item.number("ifindex"),
        name=item.text("ifname"),
        mac=item.text("address"),
        mtu=item.number("mtu"),
        up="UP" in item.texts("flags"),
        kind=kind,
        master=item.text("master"),
        peer_index=item.number("link_index"),
        peer_elsewhere="link_netnsid" in item.raw,
        vxlan=Vxlan(
            data.number("id"), data.text("local"), data.text("link"), data.number("port"), data.truth("learning")
        )
        if kind == "vxlan"
        else None,
        peer=item.text("link") if kind == "veth" else "",
        port=BridgePort(port.text("state"), port.truth("hairpin"))
        if info.text("info_slave_kind") == "bridge"
        else None,
    )


LINKS = Fact("links", "ip -d -j link show", parse, frozenset({"node", "pod"}))
