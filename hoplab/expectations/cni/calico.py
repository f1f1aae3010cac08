"""Calico: no bridge; every pod has a /32 route, every node a route to its blocks, wrapped in IP, in VXLAN or not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hoplab.core.errors import LabError
from hoplab.core.ip import IPAddress
from hoplab.expectations.cni import FdbExpectation, NeighbourExpectation, NodeExpectations, RouteExpectation, Tunnel
from hoplab.observe.facts.api_ipam_blocks import API_IPAM_BLOCKS, API_IPAM_BLOCKS6, Block, Block6
from hoplab.observe.facts.api_pods import ApiPod
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.snapshot import Node, Snapshot
from hoplab.spec.parts import CniPart, ResetScope

PART = CniPart(
    name="calico",
    order=20,
    backends=("bgp", "ipip", "vxlan"),
    backend_notes={"bgp": "no encapsulation"},
    unwrapped_backends=("bgp",),
    block_sizes=(20, 30),  # Calico accepts /32 too, but then no pod would be beside another one
    node_annotations=("projectcalico.org/",),
    chain_prefixes=("cali-",),
    daemons=("calico-node", "calico-kube-controllers"),
    enforces_policies=True,
    reset=ResetScope(
        directories=("/run/calico", "/var/lib/calico"),
        files=("/opt/cni/bin/calico", "/opt/cni/bin/calico-ipam"),
        kernel_modules=("ipip",),
        route_protocols=("bird",),
    ),
)
CONFIG_FILE = "10-calico.conflist"
PLUGINS = ("calico", "portmap")
BACKENDS = PART.backends

GATEWAY = IPv4Address("169.254.1.1")  # the gateway's address, which no host has
HOST_END = "cali"  # prefix of the names of host ends
HOST_MAC = "ee:ee:ee:ee:ee:ee"  # of every host end, which answers for the gateway by proxy ARP
FELIX = PART.chain_prefixes[0]  # prefix of its chains, which come first at each hook
DROPS = "End of tier default. Drop if no policies passed packet"  # Felix's comment on the rule that denies

GATEWAY6 = IPv6Address("fe80::ecee:eeff:feee:eeee")  # of every host end: what its MAC makes of a link-local address

IPIP, VXLAN, VXLAN6 = "tunl0", "vxlan.calico", "vxlan-v6.calico"
# Protocols of routes: BIRD's; Felix's own on the VXLAN interface are the kernel's "boot" (route_mgr.go).
BGP_PROTOCOL, VXLAN_PROTOCOL, FELIX_PROTOCOL = "bird", "boot", "80"
VNI = 4096
PORT = 4789  # the port that IANA assigned to VXLAN
OVERHEADS = {IPIP: 20, VXLAN: 50, VXLAN6: 70}  # an IPv4 header; outer Ethernet 14 + IPv4 20 (IPv6 40) + UDP 8 + VXLAN 8

# Annotations of its Kubernetes node in which calico-node publishes data for the other nodes.
ANNOTATION = PART.node_annotations[0]


def host_end(pod: ApiPod) -> str:
    """Return the name of a pod's interface on its node, which follows from the pod's namespace and name."""
    return f"{HOST_END}{hashlib.sha1(f'{pod.namespace}.{pod.name}'.encode(), usedforsecurity=False).hexdigest()[:11]}"


def chain(direction: str, interface: str) -> str:
    """Return Felix's chain for packets "to" or "from" a pod, by the pod's interface on its node."""
    return f"{FELIX}{direction[0]}w-{interface}"


def checks_sources(node: Node) -> bool:
    """Return whether Felix drops wrong sources by a rule of its own, which no sysctl switches off.

    Felix before v3.13 relies on rp_filter instead, and ends where ``all`` is 2 (felix 2082). Where its rules are not of
    iptables, it is younger.
    """
    rules = node[IPTABLES].rules("raw", f"{FELIX}PREROUTING")
    return not rules or any(option.module == "rpfilter" for rule in rules for option in rule.matches)


def announced(node: Node, name: str) -> str:
    """Return an annotation that calico-node wrote on its node."""
    text = dict(node.api.annotations).get(ANNOTATION + name, "")
    if not text:
        raise LabError(
            f"calico-node on {node.name} announces no {name}",
            remedy=f"look at its log: ./lab kubectl -n kube-system logs ds/calico-node, and at the pod on {node.name}",
        )
    return text


def vxlan_mac(node: Node, suffix: str = "") -> str:
    """Return the MAC of its VXLAN interface: an "f" and the SHA-1 of the node's name, which no node has to announce.

    Source: Felix's VXLANResolver (felix/calc/vxlan_resolver.go, v3.32.1), unless somebody chose another one.
    """
    sha1 = hashlib.sha1(f"{node.name}{suffix}".encode(), usedforsecurity=False).digest()
    return (b"f" + sha1[:5]).hex(":")


def blocks(lab: Snapshot, node: Node) -> tuple[Block, ...]:
    """Return the blocks of the pod range that belong to a node."""
    return tuple(
        sorted((block for block in lab.api[API_IPAM_BLOCKS] if block.node == node.name), key=lambda it: it.cidr)
    )


def blocks6(lab: Snapshot, node: Node) -> tuple[Block6, ...]:
    """Return the blocks of the pod range of IPv6 that belong to a node."""
    return tuple(
        sorted((block for block in lab.api[API_IPAM_BLOCKS6] if block.node == node.name), key=lambda it: it.cidr)
    )


@dataclass(frozen=True)
class _Family:
    """What differs between the families of addresses."""

    vxlan: str
    vxlan_address: str  # calico-node's name of it in annotations
    vxlan_suffix: str  # appended to the node's name before its MAC is computed
    gateway: IPAddress
    nowhere: str  # the interface of a blackhole route
    ipip: bool  # whether IPIP can wrap it: otherwise its routes are as they are with BGP alone
    bgp: bool  # whether what is looked at has its sessions
    blocks: Callable[[Snapshot, Node], Sequence[Block | Block6]]
    address: Callable[[Node], IPAddress]
    pod_address: Callable[[ApiPod], IPAddress | None]


_V4 = _Family(
    VXLAN,
    "IPv4VXLANTunnelAddr",
    "",
    GATEWAY,
    nowhere="",
    ipip=True,
    bgp=True,
    blocks=blocks,
    address=lambda node: node.address,
    pod_address=lambda pod: pod.address,
)
_V6 = _Family(
    VXLAN6,
    "IPv6VXLANTunnelAddr",
    "-v6",
    GATEWAY6,
    nowhere="lo",
    ipip=False,
    bgp=False,
    blocks=blocks6,
    address=lambda node: node.address6,
    pod_address=lambda pod: pod.address6,
)


def expectations(lab: Snapshot) -> Mapping[str, NodeExpectations]:
    return {node.name: _node(lab, node, _V4) for node in lab.nodes}


def expectations6(lab: Snapshot) -> Mapping[str, NodeExpectations]:
    """Return the same for IPv6."""
    return {node.name: _node(lab, node, _V6) for node in lab.nodes}


def _node(lab: Snapshot, node: Node, family: _Family) -> NodeExpectations:
    others = [other for other in lab.cluster_nodes if other is not node]
    own = tuple(block.cidr for block in family.blocks(lab, node))
    tunnel = _tunnel(lab, node, family)
    protocol, nowhere = (VXLAN_PROTOCOL, FELIX_PROTOCOL) if _is_vxlan(lab) else (BGP_PROTOCOL, BGP_PROTOCOL)
    macs = {other: vxlan_mac(other, family.vxlan_suffix) for other in others if _is_vxlan(lab)}

    def via(other: Node) -> IPAddress:
        """Return the next hop of its blocks: its VXLAN interface, or the node itself."""
        return ip_address(announced(other, family.vxlan_address)) if _is_vxlan(lab) else family.address(other)

    return NodeExpectations(
        interfaces=("lo", node.uplink, *_tunnels(lab)),
        bridge="",
        ranges=own,
        pod_gateway=family.gateway,
        own_routes=tuple(
            RouteExpectation(ip_network(address), host_end(pod))
            for pod in lab.own_address_pods
            if pod.node == node.name and (address := family.pod_address(pod))
        ),
        routes=tuple(
            RouteExpectation(
                block.cidr, tunnel.dev if tunnel else node.uplink, via(other), onlink=bool(tunnel), protocol=protocol
            )
            for other in others
            for block in family.blocks(lab, other)
        ),
        blackholes=tuple(RouteExpectation(block, family.nowhere, kind="blackhole", protocol=nowhere) for block in own),
        tunnel=tunnel,
        neighbours=tuple(NeighbourExpectation(via(other), family.vxlan, mac) for other, mac in macs.items()),
        fdb=tuple(FdbExpectation(mac, family.vxlan, family.address(other)) for other, mac in macs.items()),
        bgp=tuple(other.address for other in others) if family.bgp and not _is_vxlan(lab) else (),
    )


def _is_vxlan(lab: Snapshot) -> bool:
    """Return whether Felix writes the routes, from the API; otherwise BIRD does, from its BGP sessions."""
    return lab.setting.backend == "vxlan"


def _tunnels(lab: Snapshot) -> tuple[str, ...]:
    """Return the tunnel interfaces of every node, of both families."""
    return {"bgp": (), "ipip": (IPIP,), "vxlan": (VXLAN, VXLAN6) if lab.setting.ipv6 else (VXLAN,)}[lab.setting.backend]


def _tunnel(lab: Snapshot, node: Node, family: _Family) -> Tunnel | None:
    if _is_vxlan(lab):
        mac = vxlan_mac(node, family.vxlan_suffix)
        return Tunnel(family.vxlan, OVERHEADS[family.vxlan], f"udp port {PORT}", mac, VNI)
    if lab.setting.backend == "ipip" and family.ipip:
        return Tunnel(IPIP, OVERHEADS[IPIP], "ip proto 4")
    return None
