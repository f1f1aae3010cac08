"""Interfaces: ``ip -d -j link`` with bridge ports, the far ends of veth pairs, parents, and VXLAN details."""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.observe.facts import NODES_AND_PODS, Fact
from hoplab.observe.facts._json import Entries, Item, gather_listed


@dataclass(frozen=True)
class Vxlan:
    """The encapsulation of a VXLAN interface."""

    id: int  # VNI; 0 where each packet has its own
    local: str  # outer source address, of either family; "" where the route decides
    dev: str  # outgoing interface of the outer packets
    port: int  # outer UDP port
    learning: bool  # learns FDB entries from traffic (flannel's does not: flanneld writes them)
    external: bool = False  # VNI and remote are chosen for each packet, by a route or a program (Cilium's is)
    remote: str = ""  # outer destination for what no FDB entry has: a host or a multicast group


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
    master: str  # the bridge of this port; the VRF or bond of this interface
    peer_index: int  # a veth's other end: its index in its own namespace
    peer_elsewhere: bool  # the other end is in another namespace
    vxlan: Vxlan | None
    peer: str = ""  # a veth's other end by name, as long as both are in the same namespace
    port: BridgePort | None = None
    parent: str = ""  # the interface below a macvlan, ipvlan or VLAN, by name, in the same namespace
    parent_index: int = 0  # ... by its index in another namespace
    group: str = "default"  # which policy rules can exclude
    vrf_table: str = ""  # of a VRF: its routing table

    @property
    def leads_elsewhere(self) -> bool:
        """Return whether it is an end of a pair whose other end is in another namespace, as a pod's is."""
        return self.kind in PAIRS and not self.peer

    def __str__(self) -> str:
        other = self.peer_index or self.parent_index
        name = self.peer or self.parent
        peer = f"@if{other}" if self.peer_elsewhere or self.parent_index else f"@{name}" if name else ""
        words = [f"{self.index}: {self.name}{peer}", self.kind, f"mtu {self.mtu}", "up" if self.up else "down"]
        return " ".join(word for word in [*words, f"master {self.master}" if self.master else "", self.mac] if word)


PAIRS = frozenset(["veth", "netkit", "vxcan"])  # kinds of interfaces that are two ends of one pair


def parse(text: str) -> Entries[Link]:
    return gather_listed(text, "links", lambda item: (_link(item),))


def _link(item: Item) -> Link:
    info = item.item("linkinfo")
    data = info.item("info_data")
    kind = info.text("info_kind")
    port = info.item("info_slave_data")
    paired, elsewhere = kind in PAIRS, "link_netnsid" in item.raw
    return Link(
        index=item.number("ifindex"),
        name=item.text("ifname"),
        mac=item.text("address"),
        mtu=item.number("mtu"),
        up="UP" in item.texts("flags"),
        kind=kind,
        master=item.text("master"),
        peer_index=item.number("link_index") if paired else 0,
        peer_elsewhere=paired and elsewhere,
        vxlan=_vxlan(data) if kind == "vxlan" else None,
        peer=item.text("link") if paired else "",
        port=BridgePort(port.text("state"), port.truth("hairpin"))
        if info.text("info_slave_kind") == "bridge"
        else None,
        parent="" if paired else item.text("link"),
        parent_index=item.number("link_index") if elsewhere and not paired else 0,
        group=item.text("group") or "default",
        vrf_table=data.text("table") if kind == "vrf" else "",
    )


def _vxlan(data: Item) -> Vxlan:
    def either(*keys: str) -> str:
        return next((text for key in keys if (text := data.text(key))), "")

    return Vxlan(
        id=data.number("id"),
        local=either("local", "local6"),
        dev=data.text("link"),
        port=data.number("port"),
        learning=data.truth("learning"),
        external=data.truth("external"),
        remote=either("remote", "remote6", "group", "group6"),
    )


LINKS = Fact("links", "ip -d -j link show", parse, NODES_AND_PODS)
