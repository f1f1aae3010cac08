"""The hosts that a packet crosses, and what the rules of each do with it; pure.

Paths follow the facts alone (routes, interfaces, pods), not what a CNI should have made, so they are right for any
cluster. A part of a path that facts do not show, as where a route lacks, is left out: other lessons name it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from hoplab.core.ip import with_port
from hoplab.netfilter.hooks import Firewall, Stop, reply_to
from hoplab.netfilter.packet import Packet
from hoplab.observe.facts.iptables_legacy import IPTABLES_LEGACY
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.facts.routes import ROUTES, lookup
from hoplab.observe.facts.wireguard import WIREGUARD
from hoplab.observe.snapshot import Node, Pod

FACTS = (NFT_RULESET.name, IPTABLES_LEGACY.name)  # without them a host may drop packets unseen
KUBELET_PORT = 10250
_TUNNELS = {"ipip": "ipencap"}  # kinds of interfaces that wrap packets without ports: the outer protocol


@dataclass(frozen=True)
class Leg:
    """One packet on one host of its path."""

    node: Node
    packet: Packet
    what: str  # "a reply", "VXLAN"; "" for the packet itself

    def __str__(self) -> str:
        packet = self.packet
        to = with_port(packet.dst, packet.dport) if packet.dport and packet.protocol != "ipencap" else str(packet.dst)
        return " ".join(word for word in (self.what, packet.protocol, f"{packet.src} to {to}") if word)


@dataclass(frozen=True)
class Checked:
    """What the rules do with the packets of many paths."""

    legs: int
    drops: tuple[tuple[Leg, Stop], ...]
    unknown: tuple[tuple[Leg, Stop], ...]  # each rule on which a packet depends and that could not be evaluated, once

    @property
    def why(self) -> str:
        """Return which rule drops which packet; "" where none does."""
        return f"{_at(*self.drops[0])} drops {self.drops[0][0]}" if self.drops else ""

    @property
    def evidence(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f"{_at(leg, stop)}, hook {stop.hook}" for leg, stop in self.drops))

    def __str__(self) -> str:
        passed = f"{self.legs} packets pass all hooks of their nodes"
        if not self.unknown:
            return passed
        rules = "; ".join(dict.fromkeys(_at(leg, stop) for leg, stop in self.unknown))
        return f"{passed}, unless a rule drops them that could not be evaluated: {rules}"


def _at(leg: Leg, stop: Stop) -> str:
    return f"`{stop.rule}` in {stop.where}, of {leg.node.name}"


def checked(legs: Iterable[Leg]) -> Checked:
    """Return what the rules of the hosts do with the packets; raise FactError where a node lacks a fact."""
    firewalls: dict[str, Firewall] = {}
    count, drops = 0, list[tuple[Leg, Stop]]()
    unknown: dict[tuple[str, Stop], Leg] = {}
    for leg in dict.fromkeys(legs):
        firewall = firewalls.setdefault(leg.node.name, Firewall(leg.node.facts))
        found = firewall.traverse(leg.packet)
        count += 1
        drops += [(leg, stop) for stop in found.drops]
        for stop in found.unknown:
            unknown.setdefault((leg.node.name, stop), leg)
    return Checked(count, tuple(drops), tuple((leg, stop) for (_, stop), leg in unknown.items()))


def between_pods(pod: Pod, other: Pod, port: int) -> Iterator[Leg]:
    """Yield the packets of a connection from one pod to another, and those that wrap them between their nodes."""
    packet = Packet(pod.address, other.address, dport=port)
    if pod.node is other.node:
        yield from _there_and_back(pod.node, _leaving(_from_pod(packet, pod), other))
        return
    way, back = lookup(pod.node[ROUTES], other.address), lookup(other.node[ROUTES], pod.address)
    if not way or not back:
        return
    yield from _there_and_back(pod.node, replace(_from_pod(packet, pod), out_dev=way.dev))
    yield from _there_and_back(other.node, _leaving(replace(packet, in_dev=back.dev), other))
    yield from _wrapped(pod.node, other.node, way.dev)


def to_own_node(pod: Pod, port: int = KUBELET_PORT) -> Iterator[Leg]:
    """Yield the packets of a connection from a pod to the address of its node."""
    if pod.node.api.address:
        packet = Packet(pod.address, pod.node.api.address, dport=port, dst_is_local=True)
        yield from _there_and_back(pod.node, _from_pod(packet, pod))


def _from_pod(packet: Packet, pod: Pod) -> Packet:
    """Return the packet as it arrives on the pod's node: by a port of a bridge, or by the pod's own interface."""
    end = pod.host_end
    if end is None:
        return packet
    return replace(packet, in_dev=end.master or end.name, port_in=end.name if end.master else "")


def _leaving(packet: Packet, pod: Pod) -> Packet:
    """Return the packet as it leaves the node for the pod."""
    end = pod.host_end
    if end is None:
        return packet
    return replace(packet, out_dev=end.master or end.name, port_out=end.name if end.master else "")


def _there_and_back(node: Node, packet: Packet) -> Iterator[Leg]:
    yield Leg(node, _with_reverse_path(node, packet), "")
    yield Leg(node, _with_reverse_path(node, reply_to(packet)), "a reply,")


def _with_reverse_path(node: Node, packet: Packet) -> Packet:
    """Return the packet with whether the route to its source leads by the interface on which it arrives."""
    if not packet.in_dev or not isinstance(packet.src, IPv4Address):
        return packet
    back = lookup(node[ROUTES], packet.src)
    return replace(packet, reverse_path=back is not None and back.dev == packet.in_dev)


def _wrapped(node: Node, other: Node, dev: str) -> Iterator[Leg]:
    """Yield the packet that wraps another one between two nodes, where it leaves and where it arrives."""
    source, to, link = node.api.address, other.api.address, node.link(dev)
    if not source or not to or not link:
        return
    if link.vxlan:
        what, outer = "VXLAN,", Packet(source, to, "udp", link.vxlan.port)
    elif link.kind == "wireguard":
        ports = [peer.endpoint.rpartition(":")[2] for peer in node[WIREGUARD] if peer.endpoint.startswith(f"{to}:")]
        if not ports:
            return
        what, outer = "WireGuard,", Packet(source, to, "udp", int(ports[0]), sport=int(ports[0]))
    elif link.kind in _TUNNELS:
        what, outer = "IPIP,", Packet(source, to, _TUNNELS[link.kind], 0)
    else:
        return
    out, back = lookup(node[ROUTES], to), lookup(other[ROUTES], source)
    if out and back:
        yield Leg(node, replace(outer, out_dev=out.dev, src_is_local=True), what)
        yield Leg(other, _with_reverse_path(other, replace(outer, in_dev=back.dev, dst_is_local=True)), what)
