"""flannel: one bridge cni0 per node; between nodes VXLAN (flannel.1), WireGuard, or, with host-gw, plain routes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from hoplab.cni import FdbPromise, NeighbourPromise, NodePromises, PeerPromise, RoutePromise, Tunnel
from hoplab.errors import LabError
from hoplab.snapshot import Node, Snapshot

CONFIG_FILE = "10-flannel.conflist"
PLUGINS = ("flannel", "portmap")
BACKENDS = ("vxlan", "host-gw", "wireguard")

BRIDGE = "cni0"
VTEP = "flannel.1"  # named after the VNI
VNI = 1
PORT = 8472  # Linux's own default; the port IANA gave VXLAN is 4789
OVERHEAD = 50  # outer Ethernet 14 + IPv4 20 + UDP 8 + VXLAN 8
VTEP6 = "flannel-v6.1"
OVERHEAD6 = 70  # an IPv6 header has 40 bytes
WIREGUARD, WIREGUARD6 = "flannel-wg", "flannel-wg-v6"
WIREGUARD_PORT, WIREGUARD_PORT6 = 51820, 51821
WIREGUARD_OVERHEAD = 80  # IPv4 20 (IPv6 40, for which flannel leaves room) + UDP 8 + WireGuard 32

# flannel writes here, on its Kubernetes node, which MAC its VXLAN interface has; the other nodes read it.
BACKEND_DATA = "flannel.alpha.coreos.com/backend-data"
BACKEND_DATA6 = "flannel.alpha.coreos.com/backend-v6-data"


def vtep_mac(node: Node, annotation: str = BACKEND_DATA) -> str:
    """The MAC of a node's flannel.1 (or flannel-v6.1), as the node announces it through the API.

    From there, not from the interface: what the other nodes wrote down has to agree with what was announced, and a
    lesson of its own compares the announcement with the interface.
    """
    announced = dict(node.api.annotations).get(annotation, "")
    try:
        return str(json.loads(announced)["VtepMAC"])
    except (ValueError, TypeError, KeyError):
        raise LabError(
            f"flannel on {node.name} announces no VXLAN interface ({annotation}={announced!r})",
            remedy=f"look at the flannel pod of {node.name}: ./lab kubectl -n kube-flannel get pods -o wide",
        ) from None


def gateway(node: Node) -> IPv4Address:
    """The first address of the node's range: cni0's own."""
    return node.pod_cidr[1]


def promises(lab: Snapshot) -> Mapping[str, NodePromises]:
    make = {"vxlan": _vxlan, "host-gw": _host_gw, "wireguard": _wireguard}[lab.setting.backend]
    return {node.name: make(lab, node, [each for each in lab.nodes if each is not node]) for node in lab.nodes}


def promises6(lab: Snapshot) -> Mapping[str, NodePromises]:
    """The same for IPv6: the ranges lie on the same bridges, and VXLAN has an interface of its own for them."""
    make = {"vxlan": _vxlan6, "host-gw": _host_gw6, "wireguard": _wireguard6}[lab.setting.backend]
    return {node.name: make(lab, node, [each for each in lab.nodes if each is not node]) for node in lab.nodes}


def gateway6(node: Node) -> IPv6Address:
    """The first address of the node's range of IPv6: cni0's own too."""
    return node.pod_cidr6[1]


def _vxlan(_lab: Snapshot, node: Node, others: list[Node]) -> NodePromises:
    """Each remote range lies behind the first address of that range, which is the remote flannel.1's own."""
    return NodePromises(
        interfaces=("lo", "eth0", BRIDGE, VTEP, *((VTEP6,) if node.api.pod_cidr6 else ())),
        bridge=BRIDGE,
        ranges=(node.pod_cidr,),
        pod_gateway=gateway(node),
        own_routes=(RoutePromise(node.pod_cidr, BRIDGE),),
        routes=tuple(RoutePromise(other.pod_cidr, VTEP, other.pod_cidr[0], onlink=True) for other in others),
        neighbours=tuple(NeighbourPromise(other.pod_cidr[0], VTEP, vtep_mac(other)) for other in others),
        fdb=tuple(FdbPromise(vtep_mac(other), VTEP, other.address) for other in others),
        tunnel=Tunnel(VTEP, OVERHEAD, f"udp port {PORT}", vtep_mac(node), VNI),
    )


def _host_gw(_lab: Snapshot, node: Node, others: list[Node]) -> NodePromises:
    """Each remote range lies behind the remote node itself; nothing is wrapped."""
    return NodePromises(
        interfaces=("lo", "eth0", BRIDGE),
        bridge=BRIDGE,
        ranges=(node.pod_cidr,),
        pod_gateway=gateway(node),
        own_routes=(RoutePromise(node.pod_cidr, BRIDGE),),
        routes=tuple(RoutePromise(other.pod_cidr, "eth0", other.address) for other in others),
    )


def _vxlan6(_lab: Snapshot, node: Node, others: list[Node]) -> NodePromises:
    def mac(of: Node) -> str:
        return vtep_mac(of, BACKEND_DATA6)

    return NodePromises(
        interfaces=("lo", "eth0", BRIDGE, VTEP, VTEP6),
        bridge=BRIDGE,
        ranges=(node.pod_cidr6,),
        pod_gateway=gateway6(node),
        own_routes=(RoutePromise(node.pod_cidr6, BRIDGE),),
        routes=tuple(RoutePromise(other.pod_cidr6, VTEP6, other.pod_cidr6[0], onlink=True) for other in others),
        neighbours=tuple(NeighbourPromise(other.pod_cidr6[0], VTEP6, mac(other)) for other in others),
        fdb=tuple(FdbPromise(mac(other), VTEP6, other.address6) for other in others),
        tunnel=Tunnel(VTEP6, OVERHEAD6, f"udp port {PORT}", mac(node), VNI),
    )


def _host_gw6(_lab: Snapshot, node: Node, others: list[Node]) -> NodePromises:
    return NodePromises(
        interfaces=("lo", "eth0", BRIDGE),
        bridge=BRIDGE,
        ranges=(node.pod_cidr6,),
        pod_gateway=gateway6(node),
        own_routes=(RoutePromise(node.pod_cidr6, BRIDGE),),
        routes=tuple(RoutePromise(other.pod_cidr6, "eth0", other.address6) for other in others),
    )


def _wireguard(lab: Snapshot, node: Node, others: list[Node]) -> NodePromises:
    """What is for any other node goes to one interface, which knows by its peers' ranges whose it is."""
    return NodePromises(
        interfaces=("lo", "eth0", BRIDGE, WIREGUARD, *((WIREGUARD6,) if node.api.pod_cidr6 else ())),
        bridge=BRIDGE,
        ranges=(node.pod_cidr,),
        pod_gateway=gateway(node),
        own_routes=(RoutePromise(node.pod_cidr, BRIDGE),),
        routes=(RoutePromise(lab.setting.pod_cidr, WIREGUARD),),
        tunnel=Tunnel(WIREGUARD, WIREGUARD_OVERHEAD, f"udp port {WIREGUARD_PORT}", encrypted=True),
        peers=tuple(PeerPromise(WIREGUARD, f"{other.address}:{WIREGUARD_PORT}", (other.pod_cidr,)) for other in others),
    )


def _wireguard6(lab: Snapshot, node: Node, others: list[Node]) -> NodePromises:
    assert lab.setting.ipv6
    return NodePromises(
        interfaces=("lo", "eth0", BRIDGE, WIREGUARD, WIREGUARD6),
        bridge=BRIDGE,
        ranges=(node.pod_cidr6,),
        pod_gateway=gateway6(node),
        own_routes=(RoutePromise(node.pod_cidr6, BRIDGE),),
        routes=(RoutePromise(lab.setting.ipv6.pod_cidr, WIREGUARD6),),
        tunnel=Tunnel(WIREGUARD6, WIREGUARD_OVERHEAD, f"udp port {WIREGUARD_PORT6}", encrypted=True),
        peers=tuple(
            PeerPromise(WIREGUARD6, f"[{other.address6}]:{WIREGUARD_PORT6}", (other.pod_cidr6,)) for other in others
        ),
    )
