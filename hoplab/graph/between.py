"""What is between nodes: routes to the pods of others, tunnels, and BGP sessions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any

from hoplab.core.ip import IPAddress, IPNetwork
from hoplab.graph.look import Look
from hoplab.graph.model import DOWN, MISSING, OK, Edge, State, Vertex, names
from hoplab.graph.of_node import Part, device_id, routing_id
from hoplab.observe import routing
from hoplab.observe.facts.addresses import ADDRESSES, ADDRESSES6
from hoplab.observe.facts.api_pods import API_PODS
from hoplab.observe.facts.bgp import BGP
from hoplab.observe.facts.cilium_ipcache import CILIUM_IPCACHE
from hoplab.observe.facts.fdb import FDB
from hoplab.observe.facts.links import LINKS, Link
from hoplab.observe.facts.routes import NO_HOP, ROUTES, ROUTES6, RouteOf
from hoplab.observe.facts.wireguard import WIREGUARD, Peer
from hoplab.observe.snapshot import Node, Snapshot

AnyRoute = RouteOf[Any, Any]
TUNNELS = ("vxlan", "wireguard", "ipip", "geneve")


def words(nodes: Iterable[Node]) -> dict[str, str]:
    """Return what tunnels are called: "VXLAN tunnel", by the kind of edge."""
    kinds = {link.kind for node in nodes for link in node[LINKS] if link.kind in TUNNELS and link.up}
    names = {"vxlan": "VXLAN", "wireguard": "WireGuard", "ipip": "IPIP", "geneve": "Geneve"}
    return {"tunnel": f"{' and '.join(names[kind] for kind in sorted(kinds))} tunnel"} if kinds else {}


def routes(lab: Snapshot, nodes: Sequence[Node], look: Look) -> Part:
    """Return the routes of each node that lead out of it, or refuse packets, and those to its own ranges.

    Routes to single pods are not among them: they are edges between a pod's interface and the routing of its node.
    """
    vertices: list[Vertex] = []
    edges: list[Edge] = []
    for node in nodes:
        known: list[AnyRoute] = [*look.at(node.facts, ROUTES), *look.at(node.facts, ROUTES6, quiet=True)]
        pairs = {link.name for link in node[LINKS] if link.leads_elsewhere}
        others = [other for other in nodes if other is not node]
        found = [route for route in known if _drawn(lab, route, pairs)]
        own = [_vertex(node, route, _leads_to(lab, route, others, look)) for route in found]
        own += _gaps(lab, node, others, look)
        if not any(route.dst.version == 4 and route.dst.prefixlen == 0 and route.hops for route in found):
            own.append(_gap(node, "default", names("default route"), "the default route is missing"))
        vertices += sorted(own, key=lambda route: (not route.to, route.label.startswith("default")))
        edges += [
            Edge("leads", route_id(node, route), device_id(node, hop.dev), state=OK)
            for route in found
            for hop in route.hops
            if hop.dev
        ]
    return vertices, edges


def _drawn(lab: Snapshot, route: AnyRoute, pairs: Iterable[str]) -> bool:
    if route.table == "local" or route.kind in ("local", "broadcast", "anycast", "multicast"):
        return False
    if route.dst.network_address.is_link_local or route.dst.is_multicast or route.dst.is_loopback:
        return False
    if route.dev in pairs or (not route.hops and route.kind not in NO_HOP):
        return False
    if route.kind in NO_HOP:
        return _overlaps(lab, route.dst)
    return route.dst.version == 4 or route.dev != "lo"


def _overlaps(lab: Snapshot, network: IPNetwork) -> bool:
    has = lab.setting
    ranges: list[Any] = [has.pod_cidr, *([has.ipv6.pod_cidr] if has.ipv6 else [])]
    return any(network.version == cidr.version and network.overlaps(cidr) for cidr in ranges)


def route_id(node: Node, route: AnyRoute) -> str:
    return f"{node.name}/route {_printed(route)}"


def _printed(route: AnyRoute) -> str:
    table = f" table {route.table}" if route.table != "main" else ""
    metric = f" metric {route.metric}" if route.dst.version == 6 and route.dst.prefixlen == 0 and route.metric else ""
    return f"{route}{metric}{table}"


def _vertex(node: Node, route: AnyRoute, to: str) -> Vertex:
    dst = "default" if route.dst.prefixlen == 0 else str(route.dst)
    kind = f"{route.kind} " if route.kind != "unicast" else ""
    via = " ".join(f"via {hop.via}" for hop in route.hops if hop.via)
    dead = {flag for hop in route.hops for flag in hop.flags} & {"dead", "linkdown"}
    return Vertex(
        id=route_id(node, route),
        kind="route",
        label=f"{kind}{dst}",
        details=(via,) if via else (),
        parent=node.name,
        state=DOWN if dead else OK,
        names=names(str(route), dst if dst != "default" else "default route"),
        tip=_printed(route),
        to=to,
    )


def _leads_to(lab: Snapshot, route: AnyRoute, others: Sequence[Node], look: Look) -> str:
    """Return the node whose pods a route leads to; "other nodes" where there are several, "" for none."""
    if route.dst.prefixlen == 0 or not _overlaps(lab, route.dst) or route.kind in NO_HOP:
        return ""
    found = [other.name for other in others if any(address in route.dst for address in _of_pods(lab, other, look))]
    gateways = {hop.via for hop in route.hops if hop.via}
    found = found or [other.name for other in others if gateways & _own(other)]
    return found[0] if len(found) == 1 else "other nodes" if found else ""


def _of_pods(lab: Snapshot, node: Node, look: Look) -> list[IPAddress]:
    """Return addresses of the node's pods, as the API has them; without pods one of its range."""
    pods = [pod for pod in look.at(lab.api, API_PODS) if pod.node == node.name and not pod.host_network and pod.running]
    both = [address for pod in pods for address in (pod.address, pod.address6)]
    found: list[IPAddress] = [address for address in both if address is not None]
    cidrs = (node.known.pod_cidr, node.known.pod_cidr6) if node.known and not found else ()
    return found or [cidr[2] for cidr in cidrs if cidr and cidr.num_addresses > 2]


def _gaps(lab: Snapshot, node: Node, others: Iterable[Node], look: Look) -> Iterator[Vertex]:
    """Yield a gap for each other node to whose pods only the default route leads, or none."""
    for other in others:
        if not other.known:
            continue
        lost: dict[int, IPAddress] = {}
        for address in _of_pods(lab, other, look):
            flow: routing.Flow[Any] = routing.Flow(address)
            ways = look.call(lambda flow=flow: [routing.decide_on(node.facts, flow)], quiet=True)  # type: ignore[misc]
            if ways and (ways[0].route is None or ways[0].route.dst.prefixlen == 0):
                lost.setdefault(address.version, address)
        for version, address in lost.items():
            cidr = other.known.pod_cidr if version == 4 else other.known.pod_cidr6
            block: object = cidr if cidr and address in cidr else address
            tip = f"{node.name} has no route to {address}, a pod's address on {other.name}"
            yield _gap(node, str(block), names(block), tip, other.name)


def _gap(node: Node, label: str, called: frozenset[str], tip: str, to: str = "") -> Vertex:
    return Vertex(
        id=f"{node.name}/route missing {label}",
        kind="route",
        label=label,
        details=("no route",),
        parent=node.name,
        state=MISSING,
        names=called,
        tip=tip,
        to=to,
    )


def _own(node: Node) -> frozenset[IPAddress]:
    """Return all addresses that a node has."""
    look = Look()
    entries: list[Any] = [*look.at(node.facts, ADDRESSES), *look.at(node.facts, ADDRESSES6, quiet=True)]
    return frozenset(entry.address for entry in entries if not entry.address.is_loopback)


def tunnels(nodes: Sequence[Node], look: Look) -> Iterator[Edge]:
    """Yield a tunnel between two nodes where one of them sends packets for the other through a device.

    It is ``MISSING`` where only one of the two does.
    """
    for one, other in combinations(nodes, 2):
        for link in _tunnel_devices(one):
            peer = next((found for found in _tunnel_devices(other) if found.name == link.name), None)
            if peer is None:
                continue
            ways = [_wraps(one, link, other, look), _wraps(other, peer, one, look)]
            if any(ways):
                ends: list[Any] = [entry for node in (one, other) for entry in look.at(node.facts, ADDRESSES)]
                yield Edge(
                    "tunnel",
                    device_id(one, link.name),
                    device_id(other, peer.name),
                    state=OK if all(ways) else MISSING,
                    names=names(
                        link.mac.strip("0:.") and link.mac,
                        peer.mac.strip("0:.") and peer.mac,
                        *(entry.address for entry in ends if entry.dev == link.name),
                    ),
                )


def _tunnel_devices(node: Node) -> list[Link]:
    return [link for link in node[LINKS] if link.kind in TUNNELS and (link.up or link.vxlan)]


def _wraps(node: Node, link: Link, other: Node, look: Look) -> bool:
    """Return whether a node knows another one as the other end of a device."""
    theirs = {str(address) for address in _own(other)}
    if link.vxlan and link.vxlan.external:
        owners = look.at(node.facts, CILIUM_IPCACHE, quiet=True)  # a program chooses the other end for each packet
        return not owners or any(str(owner.tunnel) in theirs for owner in owners)
    if link.vxlan:
        macs = {found.mac for found in other[LINKS] if found.name == link.name}
        entries = [entry for entry in look.at(node.facts, FDB) if entry.dev == link.name and entry.dst in theirs]
        return any(entry.mac in macs or entry.is_group for entry in entries)
    if link.kind == "wireguard":
        peers: tuple[Peer, ...] = look.at(node.facts, WIREGUARD)
        return any(peer.dev == link.name and _host(peer.endpoint) in theirs for peer in peers)
    routes = look.at(node.facts, ROUTES)
    return any(hop.dev == link.name and str(hop.via) in theirs for route in routes for hop in route.hops)


def _host(endpoint: str) -> str:
    return endpoint.rpartition(":")[0].strip("[]")


def sessions(nodes: Sequence[Node], look: Look) -> Iterator[Edge]:
    """Yield the BGP sessions between nodes. One is ``DOWN`` where an end does not have it as established."""
    states: dict[tuple[str, str], list[State]] = {}
    owners = {address: node for node in nodes for address in _own(node)}
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        for session in look.at(node.facts, BGP, quiet=True):
            other = owners.get(session.peer) if session.peer else None
            if other and other is not node:
                ends = min(node.name, other.name), max(node.name, other.name)
                states.setdefault(ends, []).append(OK if session.established else DOWN)
    for (one, two), found in states.items():
        words = [
            f"Mesh_{str(address).replace('.', '_')}"
            for name in (one, two)
            for address in sorted(map(str, _own(by_name[name])))
        ]
        state: State = DOWN if DOWN in found else OK
        yield Edge("bgp", routing_id(by_name[one]), routing_id(by_name[two]), "BGP", state, names(*words))
