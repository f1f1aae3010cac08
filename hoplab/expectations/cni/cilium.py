"""Cilium: no bridge and no tables to read; programs of eBPF at every interface deliver, translate and filter.

A node has a pair of interfaces, cilium_host and cilium_net. The kernel's routes lead to cilium_host what the node
itself sends to pods, and the program there hands it on. What a pod sends is taken by the program at its own interface.
With vxlan one interface, cilium_vxlan, wraps packets for all nodes: the program chooses the node for each packet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network

from hoplab.core.errors import LabError
from hoplab.core.ip import IPAddress, IPNetwork
from hoplab.expectations.cni import NodeExpectations, ProgramExpectation, RouteExpectation, Tunnel
from hoplab.observe.snapshot import Node, Snapshot
from hoplab.spec.parts import CniPart, ResetScope

PART = CniPart(
    name="cilium",
    order=30,
    backends=("vxlan", "native"),
    backend_notes={"native": "no encapsulation"},
    unwrapped_backends=("native",),
    node_annotations=("network.cilium.io/",),
    chain_prefixes=("CILIUM_", "OLD_CILIUM_"),
    daemons=("cilium", "cilium-operator"),
    enforces_policies=True,
    programs=True,
    # Maps and programs are there as long as a file is pinned to them: without these no program is at an interface.
    reset=ResetScope(directories=("/run/cilium", "/sys/fs/bpf/cilium", "/sys/fs/bpf/tc")),
)
CONFIG_FILE = "05-cilium.conflist"
PLUGINS = ("cilium-cni", "portmap")
BACKENDS = PART.backends

HOST, NET, VXLAN = "cilium_host", "cilium_net", "cilium_vxlan"
HOST_END = "lxc"  # prefix of the names of host ends
PORT = 8472  # Linux's own default; the port IANA gave VXLAN is 4789
OVERHEAD = 50  # outer Ethernet 14 + IPv4 20 + UDP 8 + VXLAN 8
LOOPBACK = {4: "169.254.42.1", 6: "fe80::1"}  # source of what a pod sends to itself by a service, by the family
ROUTE_PROTOCOL = "kernel"  # what cilium-agent gives as the origin of its routes

# Programs at each interface: what comes out of it into the node (ingress), and what goes into it (egress)
FROM_POD = {"ingress": "cil_from_container"}
_PROGRAMS = {HOST: {"ingress": "cil_to_host", "egress": "cil_from_host"}, NET: {"ingress": "cil_to_host"}}
_OF_UPLINK = {"ingress": "cil_from_netdev"}
_OF_SERVICES = {"egress": "cil_to_netdev"}  # at the uplink, in the place of kube-proxy: for what is to a NodePort
_OF_VXLAN = {VXLAN: {"ingress": "cil_from_overlay", "egress": "cil_to_overlay"}}

ALL_PROGRAMS = frozenset(
    name
    for programs in (FROM_POD, *_PROGRAMS.values(), _OF_UPLINK, _OF_SERVICES, *_OF_VXLAN.values())
    for name in programs.values()
)

# Annotation of its Kubernetes node with the address of cilium_host
ADDRESS, ADDRESS6 = "ipv4-cilium-host", "ipv6-cilium-host"


def of_pod(host_end: str) -> tuple[ProgramExpectation, ...]:
    """Return the programs at a pod's interface on its node."""
    return tuple(ProgramExpectation(host_end, direction, name) for direction, name in FROM_POD.items())


def announced(node: Node, name: str) -> IPAddress:
    """Return an address that cilium-agent wrote into the annotations of its node."""
    text = dict(node.api.annotations).get(PART.node_annotations[0] + name, "")
    if not text:
        raise LabError(
            f"cilium-agent on {node.name} announces no {name}",
            remedy=f"look at its log: ./lab kubectl -n kube-system logs ds/cilium, and at the pod on {node.name}",
        )
    return ip_address(text)


@dataclass(frozen=True)
class _Family:
    """What differs between the families of addresses."""

    host_address: str  # the annotation with the address of cilium_host
    gateway: bool  # whether routes name that address as gateway: IPv6 refuses one that is the node's own
    pod_range: Callable[[Node], IPNetwork]
    address: Callable[[Node], IPAddress]


_V4 = _Family(ADDRESS, gateway=True, pod_range=lambda node: node.pod_cidr, address=lambda node: node.address)
_V6 = _Family(ADDRESS6, gateway=False, pod_range=lambda node: node.pod_cidr6, address=lambda node: node.address6)


def expectations(lab: Snapshot) -> Mapping[str, NodeExpectations]:
    return {node.name: _node(lab, node, _V4) for node in lab.nodes}


def expectations6(lab: Snapshot) -> Mapping[str, NodeExpectations]:
    """Return the same for IPv6."""
    return {node.name: _node(lab, node, _V6) for node in lab.nodes}


def _node(lab: Snapshot, node: Node, family: _Family) -> NodeExpectations:
    others = [other for other in lab.cluster_nodes if other is not node]
    wrapped = lab.setting.backend == "vxlan"
    router = announced(node, family.host_address)
    via = router if family.gateway else None

    def to_host(pods: IPNetwork) -> RouteExpectation:
        """Return the route that leads to cilium_host, where a program takes the packet."""
        return RouteExpectation(pods, HOST, via, protocol=ROUTE_PROTOCOL)

    def to_node(other: Node) -> RouteExpectation:
        pods = family.pod_range(other)
        if wrapped:
            return to_host(pods)
        return RouteExpectation(pods, node.uplink, family.address(other), protocol=ROUTE_PROTOCOL)

    own = family.pod_range(node)
    single = RouteExpectation(ip_network(router), HOST) if isinstance(router, IPv4Address) else None
    return NodeExpectations(
        interfaces=("lo", node.uplink, NET, HOST, *([VXLAN] if wrapped else [])),
        bridge="",
        ranges=(own,),
        pod_gateway=router,
        own_routes=(to_host(own), *([single] if single else [])),
        routes=tuple(to_node(other) for other in others),
        tunnel=Tunnel(VXLAN, OVERHEAD, f"udp port {PORT}", vni_per_packet=True) if wrapped else None,
        programs=tuple(
            ProgramExpectation(dev, direction, program)
            for dev, programs in (
                _PROGRAMS
                | {node.uplink: _OF_UPLINK | ({} if lab.setting.has_kube_proxy else _OF_SERVICES)}
                | (_OF_VXLAN if wrapped else {})
            ).items()
            for direction, program in programs.items()
        ),
        mtu_by_route=wrapped,
    )
