"""The way of a packet from one interface to the next: veth pairs, bridges, tunnels, the lab network; pure."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from hoplab.core.ip import IPAddress
from hoplab.netfilter.packet import Packet
from hoplab.observe.facts.fdb import FDB
from hoplab.observe.facts.links import Link
from hoplab.observe.facts.wireguard import WIREGUARD, Peer
from hoplab.trace.landing import Carried, Ended, Landing
from hoplab.trace.model import OUTSIDE, Header, Hop, Place
from hoplab.trace.routes import Decided, decide
from hoplab.trace.topology import Space

if TYPE_CHECKING:
    from hoplab.trace.walk import Walk

UNKNOWN = "unknown"  # the kind of an end beyond which facts show nothing
FOLLOWED = frozenset({"", "veth", "bridge", "vxlan", "wireguard", "ipip", "vlan", "bond"})  # kinds of interfaces
STATIC = "PERMANENT"  # the state of a neighbour entry that nobody has learned
IPIP_PROTOCOL = "ipencap"


def out_of_pod(walk: Walk, space: Space, packet: Packet, decided: Decided) -> Landing:
    """Follow a packet from a pod's interface to its node, or by a bridge to another pod."""
    node, end = walk.topology.node_of(space), walk.topology.host_end(space)
    to = decided.via or packet.dst
    require_up(walk, space, space.links.get(decided.dev), decided.dev, str(node.place))
    if end is None:
        why = f"{decided.dev} of {space.place} has no other end on {node.place}"
        raise _ended(walk, space.place, "link", decided.dev, why, str(node.place))
    require_up(walk, node, end, end.name, str(node.place), last=space.place)
    static = _static(space, to, decided.dev)
    if decided.via:
        near = (own.network for own in space.own if own.dev == decided.dev and packet.dst in own.network)
        walk.bends += [f"{packet.dst} is in {net} of {space.place}, and goes by `{walk.route_text()}`" for net in near]
    if not end.master and decided.via is None and not node.has(to, end.name):
        why = f"{end.name} of {node.place} is a port of no bridge: {space.place} gets no answer to its {_question(to)}"
        raise _ended(walk, node.place, "link", str(end), why, str(node.place), last=space.place)
    if not end.master:
        if not node.has(to, end.name) and static != end.mac:
            _require_proxy(walk, space, node, end, to)
        return walk.arrive(node, packet, end.name)
    if node.has(to, end.master):
        bridge = node.links.get(end.master)
        _require_mac(walk, space, to, decided.dev, bridge.mac if bridge else "", str(node.place))
        return walk.arrive(node, packet, end.master, end.name)
    for other in walk.topology.attached(node, end.master):
        if to in other.addresses:
            _require_mac(walk, space, to, decided.dev, _mac(other), str(other.place))
            return walk.arrive(node, packet, end.master, end.name, to=walk.topology.host_end(other))
    why = f"no interface on {end.master} of {node.place} has {to}: {space.place} gets no answer to its {_question(to)}"
    if decided.via:
        raise _ended(walk, space.place, "neighbour", walk.route_text(), why, str(node.place))
    raise _ended(walk, node.place, "neighbour", walk.route_text(), why, walk.missing(packet), last=space.place)


def out_of_node(
    walk: Walk, space: Space, packet: Packet, decided: Decided, carried: Carried | None, came_by: str = ""
) -> Landing:
    """Follow a packet from an interface of a node; ``came_by`` is its port where the bridge itself passes it on."""
    dev, target = space.links.get(decided.dev), decided.via or packet.dst
    require_up(walk, space, dev, decided.dev, walk.missing(packet))
    assert dev
    if dev.kind not in FOLLOWED or (dev.vxlan and dev.vxlan.external):
        why = f"what {dev.name} of {space.place} does with a packet is not in the facts: a program may decide"
        raise _ended(walk, space.place, UNKNOWN, str(dev), why, walk.missing(packet))
    if dev.vxlan:
        return _by_vxlan(walk, space, packet, dev, target)
    if dev.kind == "wireguard":
        return _by_wireguard(walk, space, packet, dev)
    if dev.kind == "ipip":
        outer = Packet(packet.src, target, IPIP_PROTOCOL, 0, mark=packet.mark)
        return wrapped(walk, space, packet, outer, "IPIP", "ipip")
    for pod in walk.topology.attached(space, dev.name):
        if packet.dst in pod.addresses or (decided.via and decided.via in pod.addresses):
            return into_pod(walk, space, packet, dev, pod, came_by)
    if dev.kind in ("bridge", "veth") and dev.name != space.node.uplink:
        missing = walk.missing(packet)
        owner = "no port" if dev.kind == "bridge" else "no pod"
        why = f"{owner} of {dev.name} on {space.place} has {target}: no answer to its {_question(target)}"
        raise _ended(walk, space.place, "neighbour", walk.route_text(), why, missing)
    return _by_lab_network(walk, space, packet, dev, target, carried)


def into_pod(walk: Walk, node: Space, packet: Packet, dev: Link, pod: Space, came_by: str = "") -> Landing:
    end, eth0 = walk.topology.host_end(pod), pod.pod.eth0 if pod.pod else None
    assert end and eth0
    if end.master:
        walk.hops[-1] = replace(walk.hops[-1], port=end.name)
    require_up(walk, node, end, end.name, str(pod.place))
    require_up(walk, pod, eth0, eth0.name, str(pod.place), last=node.place)
    if came_by == end.name and end.port and not end.port.hairpin:
        why = f"{end.name} on {node.place} has no hairpin mode: {dev.name} sends nothing out of the port it came in by"
        raise _ended(walk, node.place, "port", f"{end.name} hairpin off", why, str(pod.place))
    _require_mac(walk, node, packet.dst, dev.name, eth0.mac, str(pod.place))
    walk.hop(Hop(pod.place, eth0.name, "in", Header.of(packet)))
    decided = decide(pod, packet, eth0.name)
    walk.event("route", decided.event.text)
    if not decided.local:
        why = f"{packet.dst} is no address of {pod.place}"
        raise _ended(walk, pod.place, "address", f"no {packet.dst}", why, walk.missing(packet))
    return Landing(pod.place, packet, pod)


def _by_vxlan(walk: Walk, space: Space, packet: Packet, dev: Link, target: IPAddress) -> Landing:
    assert dev.vxlan
    known = space.neighbour(target, dev.name)
    if known is None:
        command = "ip -6 neigh" if target.version == 6 else "ip neigh"
        why = f"{space.place} has no MAC for {target} on {dev.name}: `{command} show dev {dev.name}`"
        raise _ended(walk, space.place, "neighbour", f"no neighbour {target} dev {dev.name}", why, walk.missing(packet))
    walk.event("neighbour", str(known))
    entry = next((e for e in space.facts[FDB] if (e.dev, e.mac) == (dev.name, known.mac) and e.dst), None)
    if entry is None:
        why = f"{space.place} has no host for {known.mac}: `bridge fdb show dev {dev.name}`"
        raise _ended(walk, space.place, "fdb", f"no FDB entry {known.mac} dev {dev.name}", why, walk.missing(packet))
    walk.event("fdb", str(entry))
    outer = Packet(packet.src, ip_address(entry.dst), "udp", entry.port or dev.vxlan.port, mark=packet.mark)
    if dev.vxlan.local:
        outer = replace(outer, src=ip_address(dev.vxlan.local))
    vni = entry.vni or dev.vxlan.id
    return wrapped(walk, space, packet, outer, f"VXLAN, VNI {vni}", "vxlan", vni, known.mac, chosen=not dev.vxlan.local)


def _by_wireguard(walk: Walk, space: Space, packet: Packet, dev: Link) -> Landing:
    peer = _peer(space, dev.name, packet.dst)
    if peer is None or not peer.endpoint:
        why = f"no peer of {dev.name} on {space.place} has {packet.dst} in its allowed ips"
        cause = f"no peer with allowed ips for {packet.dst}"
        raise _ended(walk, space.place, "peer", cause, why, walk.missing(packet))
    walk.event("peer", str(peer))
    address, _, port = peer.endpoint.rpartition(":")
    outer = Packet(packet.src, ip_address(address.strip("[]")), "udp", int(port), sport=int(port))
    return wrapped(walk, space, packet, outer, "WireGuard", "wireguard")


def _peer(space: Space, dev: str, address: IPAddress) -> Peer | None:
    """Return the peer that an interface sends an address to: the longest of the allowed ranges."""
    found = [
        (network.prefixlen, number, peer)
        for number, peer in enumerate(space.facts[WIREGUARD])
        for network in peer.allowed
        if peer.dev == dev and address.version == network.version and address in network
    ]
    return max(found)[2] if found else None


def wrapped(
    walk: Walk,
    space: Space,
    packet: Packet,
    outer: Packet,
    how: str,
    kind: str,
    vni: int = 0,
    mac: str = "",
    *,
    chosen: bool = True,
) -> Landing:
    """Follow the packet that wraps another one; ``chosen``: the route gives its source address."""
    if chosen:
        own = space.node.api.address6 if outer.ipv6 else space.node.address
        outer = replace(outer, src=own or outer.dst)
        outer = replace(outer, src=space.source_to(outer.dst, decide(space, outer).dev) or outer.src)
    walk.event("wrapped", f"{how}: {Header.of(outer)}")
    return walk.send(space, outer, Carried(packet, how, kind, space, vni, mac))


def unwrapped(walk: Walk, space: Space, packet: Packet, carried: Carried) -> Landing:
    """Follow on the packet in another one, where that was delivered."""

    def fits(link: Link) -> bool:
        if link.vxlan and link.vxlan.local and ip_address(link.vxlan.local).version != packet.dst.version:
            return False  # the kernel gives a packet to an interface of its family
        return link.kind == carried.kind and (link.vxlan is None or (link.vxlan.id or carried.vni) == carried.vni)

    fitting = [link for link in space.links.values() if fits(link)]
    if carried.kind == "wireguard":  # one for each family may be there
        fitting.sort(key=lambda link: _peer(space, link.name, carried.packet.src) is None)
    dev = next(iter(fitting), None)
    missing = walk.missing(carried.packet)
    if dev is None:
        why = f"{space.place} has no interface that unwraps {carried.how}"
        raise _ended(walk, space.place, "link", f"no interface of kind {carried.kind}", why, missing)
    require_up(walk, space, dev, dev.name, missing)
    if carried.mac and carried.mac != dev.mac:
        why = f"{dev.name} of {space.place} has the MAC {dev.mac}; the frame is for {carried.mac}"
        raise _ended(walk, space.place, "address", f"{dev.name} {dev.mac}", why, missing)
    if carried.kind == "wireguard":
        _require_sender(walk, space, dev, carried)
    walk.event("unwrapped", f"{carried.how}, by {dev.name}")
    return walk.arrive(space, carried.packet, dev.name, vni=carried.vni)


def _require_sender(walk: Walk, space: Space, dev: Link, carried: Carried) -> None:
    """Raise Ended where WireGuard does not allow the sender this source address."""
    peer = _peer(space, dev.name, carried.packet.src)
    if peer is None:
        why = f"no peer of {dev.name} on {space.place} may send as {carried.packet.src}: it is in no allowed ips"
        cause = f"no peer with allowed ips for {carried.packet.src}"
        raise _ended(walk, space.place, "peer", cause, why, walk.missing(carried.packet))


def _by_lab_network(
    walk: Walk, space: Space, packet: Packet, dev: Link, target: IPAddress, carried: Carried | None
) -> Landing:
    owners = walk.topology.on_lab_network(target, space)
    if owners:
        owner = owners[0]
        uplink = owner.links.get(owner.node.uplink)
        _require_mac(walk, space, target, dev.name, uplink.mac if uplink else "", str(owner.place))
        return walk.arrive(owner, packet, owner.node.uplink, carried=carried)
    setting = walk.topology.lab.setting
    if target in (setting.gateway, setting.gateway6) or not walk.topology.on_link(target):
        walk.hop(Hop(OUTSIDE, "", "in", Header.of(packet)))
        return Landing(OUTSIDE, packet)
    why = f"nobody on the lab network has {target}: {space.place} gets no answer to its {_question(target)}"
    raise _ended(walk, space.place, "neighbour", walk.route_text(), why, walk.missing(packet))


def from_outside(walk: Walk, packet: Packet) -> Landing:
    """Follow a packet that comes from outside of the cluster."""
    near = walk.topology.on_link(packet.dst)
    walk.hop(Hop(OUTSIDE, "", "out", Header.of(packet)))
    owners = walk.topology.on_lab_network(packet.dst, None)
    if len(owners) > 1:
        names = " and ".join(str(owner.place) for owner in owners)
        walk.bends.append(f"{names} both answer {_protocol(packet.dst)} for {packet.dst}")
    if not owners and not near and walk.entry:
        walk.event("route", f"{packet.dst} via {walk.entry}, as is assumed")
        owners = (walk.topology.nodes[walk.entry],)
    if not owners and near:
        why = f"no node answers {_protocol(packet.dst)} for {packet.dst}"
        raise _ended(walk, OUTSIDE, "neighbour", f"no neighbour {packet.dst}", why, walk.missing(packet))
    if not owners:
        why = f"the outside has no route to {packet.dst}, an address that only the cluster knows"
        raise _ended(walk, OUTSIDE, "route", f"no route to {packet.dst}", why, walk.missing(packet))
    return walk.arrive(owners[0], packet, owners[0].node.uplink)


def _protocol(address: IPAddress) -> str:
    """Return the protocol that asks for the MAC of an address."""
    return "neighbour discovery" if address.version == 6 else "ARP"


def _question(address: IPAddress) -> str:
    return "neighbour solicitation" if address.version == 6 else "ARP request"


def _require_proxy(walk: Walk, space: Space, node: Space, end: Link, address: IPAddress) -> None:
    """Raise Ended where the host end of a pod does not answer for an address that its node does not have.

    Of IPv6 it needs an entry too (``ip -6 neigh show proxy``), which is not in the facts.
    """
    switch = f"net.ipv{address.version}.conf.{end.name}.proxy_{'ndp' if address.version == 6 else 'arp'}"
    value = node.sysctls.get(switch)
    if value == "1" or (value is None and address.version == 6):
        if address.version == 6:
            walk.notes.append(f"whether {end.name} of {node.place} answers for {address} is not in the facts: {switch}")
        return
    why = f"{end.name} of {node.place} answers no {_question(address)} for {address}: {switch} is 0"
    raise _ended(walk, node.place, "sysctl", f"{switch} = 0", why, str(node.place), last=space.place)


def _mac(space: Space) -> str:
    return space.pod.eth0.mac if space.pod and space.pod.eth0 else ""


def _static(space: Space, address: IPAddress, dev: str) -> str:
    """Return the MAC of an entry that nobody has learned; "" without one."""
    known = space.neighbour(address, dev)
    return known.mac if known and STATIC in known.states else ""


def _require_mac(walk: Walk, space: Space, address: IPAddress, dev: str, mac: str, missing: str) -> None:
    static = _static(space, address, dev)
    if static and mac and static != mac:
        known = str(space.neighbour(address, dev))
        why = f"{space.place} sends to {static}, which is written down for {address}; its MAC is {mac}"
        raise _ended(walk, space.place, "neighbour", known, why, missing)


def require_up(walk: Walk, space: Space, dev: Link | None, name: str, missing: str, last: Place | None = None) -> None:
    if dev is None:
        why = f"{space.place} has no interface {name}"
        raise _ended(walk, space.place, "link", name, why, missing, last=last)
    if not dev.up:
        raise _ended(walk, space.place, "link", str(dev), f"{name} of {space.place} is down", missing, last=last)


def _ended(walk: Walk, at: Place, kind: str, cause: str, why: str, missing: str, *, last: Place | None = None) -> Ended:
    return Ended(walk.end(at, kind, cause, why, missing=missing, last=last))
