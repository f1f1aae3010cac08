"""Calico: no bridge; every pod has a /32 route, every node a route to its blocks, wrapped in IP, in VXLAN or not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hoplab.cni import FdbPromise, NeighbourPromise, NodePromises, RoutePromise, Tunnel
from hoplab.errors import LabError
from hoplab.facts.api_ipam_blocks import API_IPAM_BLOCKS, API_IPAM_BLOCKS6, Block, Block6
from hoplab.facts.api_pods import ApiPod
from hoplab.snapshot import Node, Snapshot

CONFIG_FILE = "10-calico.conflist"
PLUGINS = ("calico", "portmap")
BACKENDS = ("bgp", "ipip", "vxlan")

GATEWAY = IPv4Address("169.254.1.1")  # nobody owns it
HOST_MAC = "ee:ee:ee:ee:ee:ee"  # of every host end, which answers for the gateway by proxy ARP
FELIX = "cali-"  # how its chains begin, which come before all others at each hook
DROPS = "End of tier default. Drop if no policies passed packet"  # what Felix writes beside the rule that denies

GATEWAY6 = IPv6Address("fe80::ecee:eeff:feee:eeee")  # of every host end: what its MAC makes of a link-local address

IPIP, VXLAN, VXLAN6 = "tunl0", "vxlan.calico", "vxlan-v6.calico"
VNI = 4096
PORT = 4789  # the one IANA gave VXLAN
OVERHEADS = {IPIP: 20, VXLAN: 50, VXLAN6: 70}  # an IPv4 header; outer Ethernet 14 + IPv4 20 (IPv6 40) + UDP 8 + VXLAN 8

# calico-node writes here, on its Kubernetes node, what the other nodes need to know.
ANNOTATION = "projectcalico.org/"


def host_end(pod: ApiPod) -> str:
    """The name of a pod's interface on its node: the same for a pod of the same name, wherever and whenever it runs."""
    return f"cali{hashlib.sha1(f'{pod.namespace}.{pod.name}'.encode(), usedforsecurity=False).hexdigest()[:11]}"


def chain(direction: str, interface: str) -> str:
    """Felix's chain for what goes "to" or comes "from" a pod, by the interface of the pod on its node."""
    return f"{FELIX}{direction[0]}w-{interface}"


def announced(node: Node, name: str) -> str:
    """What calico-node says of its node through the API."""
    text = dict(node.api.annotations).get(ANNOTATION + name, "")
    if not text:
        raise LabError(
            f"calico-node on {node.name} announces no {name}",
            remedy=f"look at its log: ./lab kubectl -n kube-system logs ds/calico-node, and at the pod on {node.name}",
        )
    return text


def blocks(lab: Snapshot, node: Node) -> tuple[Block, ...]:
    """The blocks of the pod range that belong to a node."""
    return tuple(sorted((each for each in lab.api[API_IPAM_BLOCKS] if each.node == node.name), key=lambda it: it.cidr))


def blocks6(lab: Snapshot, node: Node) -> tuple[Block6, ...]:
    """... of the pod range of IPv6."""
    return tuple(sorted((each for each in lab.api[API_IPAM_BLOCKS6] if each.node == node.name), key=lambda it: it.cidr))


def promises(lab: Snapshot) -> Mapping[str, NodePromises]:
    way = {"bgp": _Bgp, "ipip": _Ipip, "vxlan": _Vxlan}[lab.setting.backend]
    return {node.name: _node(lab, node, way()) for node in lab.nodes}


@dataclass(frozen=True)
class _Bgp:
    """Each remote block lies behind the remote node itself, as its BIRD told ours; nothing is wrapped."""

    protocol = "bird"
    dev = "eth0"
    onlink = False

    def via(self, node: Node) -> IPv4Address:
        return node.address

    def tunnel(self, node: Node) -> Tunnel | None:
        return None


class _Ipip(_Bgp):
    """... wrapped in IP, for which the remote node need not be a neighbour."""

    dev = IPIP
    onlink = True

    def tunnel(self, node: Node) -> Tunnel | None:
        return Tunnel(IPIP, OVERHEADS[IPIP], "ip proto 4")


class _Vxlan(_Bgp):
    """Each remote block lies behind the remote vxlan.calico, as Felix reads it from the API; there is no BGP."""

    protocol = "80"  # Felix's own
    dev = VXLAN
    onlink = True

    def via(self, node: Node) -> IPv4Address:
        return IPv4Address(announced(node, "IPv4VXLANTunnelAddr"))

    def tunnel(self, node: Node) -> Tunnel | None:
        return Tunnel(VXLAN, OVERHEADS[VXLAN], f"udp port {PORT}", announced(node, "VXLANTunnelMACAddr"), VNI)


def _node(lab: Snapshot, node: Node, way: _Bgp) -> NodePromises:
    others = [each for each in lab.nodes if each is not node]
    tunnel, own = way.tunnel(node), _ranges(blocks(lab, node))
    vxlan = {other: met for other in others if (met := way.tunnel(other)) and met.mac}
    return NodePromises(
        interfaces=(
            "lo",
            "eth0",
            *((tunnel.dev,) if tunnel else ()),
            *((VXLAN6,) if vxlan and lab.setting.ipv6 else ()),
        ),
        bridge="",
        ranges=own,
        pod_gateway=GATEWAY,
        own_routes=tuple(
            RoutePromise(IPv4Network(pod.address), host_end(pod))
            for pod in lab.own_address_pods
            if pod.node == node.name and pod.address
        ),
        routes=tuple(
            RoutePromise(block.cidr, way.dev, way.via(other), way.onlink, protocol=way.protocol)
            for other in others
            for block in blocks(lab, other)
        ),
        blackholes=tuple(RoutePromise(block, "", kind="blackhole", protocol=way.protocol) for block in own),
        tunnel=tunnel,
        neighbours=tuple(NeighbourPromise(way.via(other), met.dev, met.mac) for other, met in vxlan.items()),
        fdb=tuple(FdbPromise(met.mac, met.dev, other.address) for other, met in vxlan.items()),
        bgp=tuple(other.address for other in others) if way.protocol == "bird" else (),
    )


def _ranges(found: Iterable[Block]) -> tuple[IPv4Network, ...]:
    return tuple(block.cidr for block in found)


def promises6(lab: Snapshot) -> Mapping[str, NodePromises]:
    """The same for IPv6, which IPIP does not wrap: there its routes are as they are with BGP alone."""
    return {node.name: _node6(lab, node, vxlan=lab.setting.backend == "vxlan") for node in lab.nodes}


def _node6(lab: Snapshot, node: Node, *, vxlan: bool) -> NodePromises:
    others = [each for each in lab.nodes if each is not node]
    own = tuple(block.cidr for block in blocks6(lab, node))
    protocol = _Vxlan.protocol if vxlan else _Bgp.protocol

    def mac(of: Node) -> str:
        return announced(of, "VXLANTunnelMACAddrV6")

    def via(other: Node) -> IPv6Address:
        return IPv6Address(announced(other, "IPv6VXLANTunnelAddr")) if vxlan else other.address6

    return NodePromises(
        interfaces=("lo", "eth0", *((VXLAN6,) if vxlan else ())),
        bridge="",
        ranges=own,
        pod_gateway=GATEWAY6,
        own_routes=tuple(
            RoutePromise(IPv6Network(pod.address6), host_end(pod))
            for pod in lab.own_address_pods
            if pod.node == node.name and pod.address6
        ),
        routes=tuple(
            RoutePromise(block.cidr, VXLAN6 if vxlan else "eth0", via(other), onlink=vxlan, protocol=protocol)
            for other in others
            for block in blocks6(lab, other)
        ),
        blackholes=tuple(RoutePromise(block, "lo", kind="blackhole", protocol=protocol) for block in own),
        tunnel=Tunnel(VXLAN6, OVERHEADS[VXLAN6], f"udp port {PORT}", mac(node), VNI) if vxlan else None,
        neighbours=tuple(NeighbourPromise(via(other), VXLAN6, mac(other)) for other in others if vxlan),
        fdb=tuple(FdbPromise(mac(other), VXLAN6, other.address6) for other in others if vxlan),
    )
