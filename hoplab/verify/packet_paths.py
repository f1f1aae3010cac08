"""The hosts that a packet crosses, and what the rules of each do with it; pure.

Paths follow the facts alone (routes, interfaces, pods), not what a CNI should have made, so they are right for any
cluster. A part of a path that facts do not show, as where a route lacks, is left out: other lessons name it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Address
from typing import Any

from hoplab.core.ip import IPAddress, with_port
from hoplab.netfilter.hooks import Firewall, Stop, Translation, Traversal, reply_to
from hoplab.netfilter.packet import Packet
from hoplab.observe import routing
from hoplab.observe.facts.iptables_legacy import IPTABLES_LEGACY
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.facts.wireguard import WIREGUARD
from hoplab.observe.snapshot import Node, Pod, Snapshot

FACTS = (NFT_RULESET.name, IPTABLES_LEGACY.name)  # without them a host may drop packets unseen
KUBELET_PORT = 10250
_TUNNELS = {"ipip": "ipencap"}  # kinds of interfaces that wrap packets without ports: the outer protocol


@dataclass(frozen=True)
class Leg:
    """One packet on one host of its path."""

    node: Node
    packet: Packet
    what: str = ""  # "a reply,", "VXLAN,"; "" for the packet itself
    pods: Mapping[IPAddress, Pod] | None = field(default=None, hash=False)  # where its destination may change to one
    arrives: Packet | None = None  # a reply before its translation is undone at this host
    leaves: Packet | None = None  # ... and after that

    def __str__(self) -> str:
        packet = self.packet
        to = with_port(packet.dst, packet.dport) if packet.dport and packet.protocol != "ipencap" else str(packet.dst)
        return " ".join(word for word in (self.what, packet.protocol, f"{packet.src} to {to}") if word)


Path = Generator[Leg, Traversal, None]  # yields a leg, and receives what its host does with it


@dataclass(frozen=True)
class Checked:
    """What the rules do with the packets of many paths."""

    legs: int
    drops: tuple[tuple[Leg, Stop], ...]
    unknown: tuple[tuple[Leg, Stop], ...]  # each rule on which a packet depends and that leaves open what it does, once

    @property
    def why(self) -> str:
        """Return which rule drops which packet; "" where none does."""
        return f"{_at(*self.drops[0])} drops {self.drops[0][0]}" if self.drops else ""

    @property
    def evidence(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f"{_at(leg, stop)}, hook {stop.hook}" for leg, stop in self.drops))

    def __str__(self) -> str:
        passed = f"{self.legs} packets pass all hooks of their nodes"
        queued, unread = (
            "; ".join(dict.fromkeys(_at(leg, stop) for leg, stop in self.unknown if stop.queued is program))
            for program in (True, False)
        )
        if queued:
            passed += f", where the program lets them to which a rule leaves them: {queued}"
        return f"{passed}, unless a rule drops them that could not be evaluated: {unread}" if unread else passed


def _at(leg: Leg, stop: Stop) -> str:
    return f"`{stop.rule}` in {stop.where}, of {leg.node.name}"


def checked(paths: Iterable[Path]) -> Checked:
    """Return what the rules of the hosts do with the packets; raise FactError where a node lacks a fact."""
    firewalls: dict[str, Firewall] = {}
    seen: dict[Leg, Traversal] = {}
    for path in paths:
        found = None
        while leg := _next(path, found):
            if leg not in seen:
                firewall = firewalls.setdefault(leg.node.name, Firewall(leg.node.facts))
                seen[leg] = firewall.traverse(leg.packet, _translation(leg))
            found = seen[leg]
    unknown: dict[tuple[str, Stop], Leg] = {}
    for leg, found in seen.items():
        for stop in found.unknown:
            unknown.setdefault((leg.node.name, stop), leg)
    drops = tuple((leg, stop) for leg, found in seen.items() for stop in found.drops)
    return Checked(len(seen), drops, tuple((leg, stop) for (_, stop), leg in unknown.items()))


def _next(path: Path, found: Traversal | None) -> Leg | None:
    try:
        return next(path) if found is None else path.send(found)
    except StopIteration:
        return None


def _translation(leg: Leg) -> Translation:
    route = partial(_routed, leg.node, leg.pods or {})
    return Translation(route, leg.arrives, leg.leaves)


def between_pods(pod: Pod, other: Pod, port: int) -> Path:
    """Follow a connection from one pod to another, and what wraps its packets between their nodes."""
    packet = Packet(pod.address, other.address, dport=port)
    if pod.node is other.node:
        yield from _there_and_back(pod.node, _leaving(_from_pod(packet, pod), other))
        return
    way, back = _out(pod.node, other.address), _out(other.node, pod.address)
    if not way or not back:
        return
    yield from _there_and_back(pod.node, replace(_from_pod(packet, pod), out_dev=way))
    yield from _there_and_back(other.node, _leaving(replace(packet, in_dev=back), other))
    yield from _wrapped(pod.node, other.node, way)


def to_own_node(pod: Pod, port: int = KUBELET_PORT) -> Path:
    """Follow a connection from a pod to the address of its node."""
    if pod.node.api.address:
        packet = Packet(pod.address, pod.node.api.address, dport=port, dst_is_local=True)
        yield from _there_and_back(pod.node, _from_pod(packet, pod))


def to_outside(pod: Pod, address: IPv4Address, port: int = 80) -> Path:
    """Follow a connection from a pod to an address outside of the cluster, which may see it come from the node."""
    out = _out(pod.node, address)
    if not out:
        return
    packet = replace(_from_pod(Packet(pod.address, address, dport=port), pod), out_dev=out)
    found = yield Leg(pod.node, _with_reverse_path(pod.node, packet))
    for sent in found.packets:
        reply = _with_reverse_path(pod.node, reply_to(packet))
        yield Leg(pod.node, reply, "a reply,", arrives=replace(reply, dst=sent.src))


def from_node(lab: Snapshot, node: Node, address: IPv4Address, port: int) -> Path:
    """Follow a connection that a node itself opens to a service's address, to every endpoint it may get."""
    packet = Packet(node.address, address, dport=port, out_dev=_out(node, address), src_is_local=True)
    yield from _through_service(_by_address(lab), node, packet)


def from_outside(lab: Snapshot, node: Node, address: IPv4Address, port: int) -> Path:
    """Follow a connection that arrives at a node from outside of the cluster, to every endpoint it may get.

    ``address`` is the node's own, with a NodePort, or a load balancer's.
    """
    client = lab.setting.gateway
    own = address == node.api.address
    packet = Packet(client, address, dport=port, in_dev=_out(node, client), dst_is_local=own)
    yield from _through_service(_by_address(lab), node, packet)


def to_kubelet(lab: Snapshot, node: Node, server: IPv4Address, port: int = KUBELET_PORT) -> Path:
    """Follow a connection of the API server to the kubelet of another host; the server may run outside of the nodes."""
    way = _out(node, server)
    if not way or server == node.api.address:
        return
    packet = Packet(server, node.address, dport=port)
    for sender in lab.nodes:
        if sender.api.address == server:
            sent = replace(packet, out_dev=_out(sender, node.address), src_is_local=True)
            yield from _there_and_back(sender, sent)
    yield from _there_and_back(node, replace(packet, in_dev=way, dst_is_local=True))


def _by_address(lab: Snapshot) -> dict[IPAddress, Pod]:
    return {pod.address: pod for pod in lab.pods}


def _through_service(pods: Mapping[IPAddress, Pod], node: Node, packet: Packet) -> Path:
    """Follow a packet whose destination the node changes to a pod's; without a pod, other lessons name it."""
    packet = _with_reverse_path(node, packet)
    found = yield Leg(node, packet, pods=pods)
    for sent in found.packets:
        pod = pods.get(sent.dst)
        if pod and sent.dst != packet.dst and sent.out_dev:
            yield from _to_endpoint(node, packet, sent, pod)


def _to_endpoint(node: Node, packet: Packet, sent: Packet, pod: Pod) -> Path:
    """Follow a packet on, as it left the node that translated it, to the pod; and the reply back through that node."""
    if pod.node is not node:
        back = _out(pod.node, sent.src)
        if not back:
            return
        arriving = Packet(sent.src, sent.dst, sent.protocol, sent.dport, in_dev=back)
        yield from _there_and_back(pod.node, _leaving(arriving, pod))
        yield from _wrapped(node, pod.node, sent.out_dev)
        yield from _wrapped(pod.node, node, back)
    through = replace(packet, dst=sent.dst, dport=sent.dport, out_dev=sent.out_dev, port_out=sent.port_out)
    reply = _with_reverse_path(node, reply_to(through, src_is_local=False, status="dnat"))
    arrives, leaves = replace(reply, dst=sent.src), replace(reply, src=packet.dst, sport=packet.dport)
    yield Leg(node, reply, "a reply,", arrives=arrives, leaves=leaves)


def _routed(node: Node, pods: Mapping[IPAddress, Pod], packet: Packet) -> Packet:
    """Return the packet with the way out to its destination."""
    pod = pods.get(packet.dst)
    if pod and pod.node is node:
        return _leaving(packet, pod)
    return replace(packet, out_dev=_out(node, packet.dst), port_out="")


def _out(node: Node, address: IPAddress) -> str:
    """Return the interface by which the node itself reaches an address; "" where no route leads there."""
    flow: routing.Flow[Any] = routing.Flow(address)  # of either family
    hops = routing.decide_on(node.facts, flow).hops
    return hops[0].dev if hops else ""


def _from_pod(packet: Packet, pod: Pod) -> Packet:
    """Return the packet as it arrives on the pod's node: by a port of a bridge, or by the pod's own interface."""
    at = _attached(pod)
    return replace(packet, in_dev=at[0], port_in=at[1]) if at else packet


def _leaving(packet: Packet, pod: Pod) -> Packet:
    """Return the packet as it leaves the node for the pod."""
    at = _attached(pod)
    return replace(packet, out_dev=at[0], port_out=at[1]) if at else packet


def _attached(pod: Pod) -> tuple[str, str] | None:
    """Return the node's interface to a pod and its port of a bridge, "" without one; None where facts show no end."""
    end = pod.host_end
    if end is None:
        return None
    return (end.master, end.name) if end.master else (end.name, "")


def _there_and_back(node: Node, packet: Packet) -> Path:
    yield Leg(node, _with_reverse_path(node, packet))
    yield Leg(node, _with_reverse_path(node, reply_to(packet)), "a reply,")


def _with_reverse_path(node: Node, packet: Packet) -> Packet:
    """Return the packet with whether the route to its source leads by the interface on which it arrives."""
    if not packet.in_dev or not isinstance(packet.src, IPv4Address):
        return packet
    return replace(packet, reverse_path=_out(node, packet.src) == packet.in_dev)


def _wrapped(node: Node, other: Node, dev: str) -> Path:
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
    out, back = _out(node, to), _out(other, source)
    if out and back:
        yield Leg(node, replace(outer, out_dev=out, src_is_local=True), what)
        yield Leg(other, _with_reverse_path(other, replace(outer, in_dev=back, dst_is_local=True)), what)
