"""flannel: one bridge cni0 per node; between nodes VXLAN (flannel.1) or, with host-gw, plain routes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Address

from hoplab.cni import FdbPromise, NeighbourPromise, NodePromises, RoutePromise, Tunnel
from hoplab.errors import LabError
from hoplab.snapshot import Node, Snapshot

CONFIG_FILE = "10-flannel.conflist"
PLUGINS = ("flannel", "portmap")
BACKENDS = ("vxlan", "host-gw")

BRIDGE = "cni0"
VTEP = "flannel.1"  # named after the VNI
VNI = 1
PORT = 8472  # Linux's own default; the port IANA gave VXLAN is 4789
OVERHEAD = 50  # outer Ethernet 14 + IPv4 20 + UDP 8 + VXLAN 8

# flannel writes here, on its Kubernetes node, which MAC its VXLAN interface has; the other nodes read it.
BACKEND_DATA = "flannel.alpha.coreos.com/backend-data"


def vtep_mac(node: Node) -> str:
    """The MAC of a node's flannel.1, as the node announces it through the API.

    From there, not from the interface: what the other nodes wrote down has to agree with what was announced, and a
    lesson of its own compares the announcement with the interface.
    """
    announced = dict(node.api.annotations).get(BACKEND_DATA, "")
    try:
        return str(json.loads(announced)["VtepMAC"])
    except (ValueError, TypeError, KeyError):
        raise LabError(
            f"flannel on {node.name} announces no VXLAN interface ({BACKEND_DATA}={announced!r})",
            remedy=f"look at the flannel pod of {node.name}: ./lab kubectl -n kube-flannel get pods -o wide",
        ) from None


def gateway(node: Node) -> IPv4Address:
    """The first address of the node's range: cni0's own."""
    return node.pod_cidr[1]


def promises(lab: Snapshot) -> Mapping[str, NodePromises]:
    make = _vxlan if lab.setting.backend == "vxlan" else _host_gw
    return {node.name: make(node, [each for each in lab.nodes if each is not node]) for node in lab.nodes}


def _vxlan(node: Node, others: list[Node]) -> NodePromises:
    """Each remote range lies behind the first address of that range, which is the remote flannel.1's own."""
    return NodePromises(
        interfaces=("lo", "eth0", BRIDGE, VTEP),
        bridge=BRIDGE,
        ranges=(node.pod_cidr,),
        pod_gateway=gateway(node),
        own_routes=(RoutePromise(node.pod_cidr, BRIDGE),),
        routes=tuple(RoutePromise(other.pod_cidr, VTEP, other.pod_cidr[0], onlink=True) for other in others),
        neighbours=tuple(NeighbourPromise(other.pod_cidr[0], VTEP, vtep_mac(other)) for other in others),
        fdb=tuple(FdbPromise(vtep_mac(other), VTEP, other.address) for other in others),
        tunnel=Tunnel(VTEP, OVERHEAD, f"udp port {PORT}", vtep_mac(node), VNI),
    )


def _host_gw(node: Node, others: list[Node]) -> NodePromises:
    """Each remote range lies behind the remote node itself; nothing is wrapped."""
    return NodePromises(
        interfaces=("lo", "eth0", BRIDGE),
        bridge=BRIDGE,
        ranges=(node.pod_cidr,),
        pod_gateway=gateway(node),
        own_routes=(RoutePromise(node.pod_cidr, BRIDGE),),
        routes=tuple(RoutePromise(other.pod_cidr, "eth0", other.address) for other in others),
    )
