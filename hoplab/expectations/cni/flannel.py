"""flannel: one bridge cni0 per node; between nodes VXLAN (flannel.1), WireGuard, or, with host-gw, plain routes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Network

from hoplab.core.errors import LabError
from hoplab.core.ip import IPAddress, IPNetwork, with_port
from hoplab.expectations.cni import (
    FdbExpectation,
    NeighbourExpectation,
    NodeExpectations,
    PeerExpectation,
    RouteExpectation,
    Tunnel,
)
from hoplab.observe.snapshot import Node, Snapshot
from hoplab.spec.parts import CniPart, ResetScope

PART = CniPart(
    name="flannel",
    order=10,
    backends=("vxlan", "host-gw", "wireguard"),
    backend_notes={"wireguard": "encrypted"},
    unwrapped_backends=("host-gw",),
    writes_nftables=True,
    node_annotations=("flannel.alpha.coreos.com/",),
    nft_tables=("ip flannel-ipv4",),
    nft_tables6=("ip6 flannel-ipv6",),
    chain_prefixes=("FLANNEL-",),
    daemons=("kube-flannel-ds",),
    reset=ResetScope(directories=("/run/flannel",)),
)
CONFIG_FILE = "10-flannel.conflist"
PLUGINS = ("flannel", "portmap")
BACKENDS = PART.backends

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

# The annotation in which flannel publishes the MAC of its VXLAN interface for the other nodes.
BACKEND_DATA = "flannel.alpha.coreos.com/backend-data"
BACKEND_DATA6 = "flannel.alpha.coreos.com/backend-v6-data"


def vtep_mac(node: Node, annotation: str = BACKEND_DATA) -> str:
    """Return the MAC of a node's flannel.1 (or flannel-v6.1), as the node announces it through the API.

    The entries of the other nodes have to agree with the annotation. Another lesson compares the annotation with the
    interface.
    """
    announced = dict(node.api.annotations).get(annotation, "")
    try:
        return str(json.loads(announced)["VtepMAC"])
    except (ValueError, TypeError, KeyError):
        raise LabError(
            f"flannel on {node.name} announces no VXLAN interface ({annotation}={announced!r})",
            remedy=f"look at the flannel pod of {node.name}: ./lab kubectl -n kube-flannel get pods -o wide",
        ) from None


@dataclass(frozen=True)
class _Family:
    """What differs between the families of addresses."""

    vtep: str
    overhead: int
    backend_data: str
    wireguard: str
    wireguard_port: int
    pods: Callable[[Snapshot], IPNetwork]  # of the whole cluster
    pod_range: Callable[[Node], IPNetwork]  # of one node
    address: Callable[[Node], IPAddress]


def _pods6(lab: Snapshot) -> IPv6Network:
    assert lab.setting.ipv6
    return lab.setting.ipv6.pod_cidr


_V4 = _Family(
    VTEP,
    OVERHEAD,
    BACKEND_DATA,
    WIREGUARD,
    WIREGUARD_PORT,
    pods=lambda lab: lab.setting.pod_cidr,
    pod_range=lambda node: node.pod_cidr,
    address=lambda node: node.address,
)
_V6 = _Family(
    VTEP6,
    OVERHEAD6,
    BACKEND_DATA6,
    WIREGUARD6,
    WIREGUARD_PORT6,
    pods=_pods6,
    pod_range=lambda node: node.pod_cidr6,
    address=lambda node: node.address6,
)


def expectations(lab: Snapshot) -> Mapping[str, NodeExpectations]:
    return _expectations(lab, _V4)


def expectations6(lab: Snapshot) -> Mapping[str, NodeExpectations]:
    """Return the same for IPv6: the ranges are on the same bridges, a tunnel has an interface of its own for them."""
    return _expectations(lab, _V6)


def _expectations(lab: Snapshot, family: _Family) -> Mapping[str, NodeExpectations]:
    make = {"vxlan": _vxlan, "host-gw": _host_gw, "wireguard": _wireguard}[lab.setting.backend]
    return {
        node.name: make(lab, node, [other for other in lab.cluster_nodes if other is not node], family)
        for node in lab.nodes
    }


def _bridged(lab: Snapshot, node: Node, family: _Family, *tunnels: str) -> NodeExpectations:
    """Return the part of all backends: the node's range on its bridge; ``tunnels`` are one for IPv4
    and one for IPv6.

    The plugin `bridge` makes the bridge for a node's first pod; after the last one it stays, its route without a link.
    """
    own = family.pod_range(node)
    bridges = (BRIDGE,) if lab.has_pods_on(node) else ()
    return NodeExpectations(
        interfaces=("lo", node.uplink, *bridges, *(tunnels if node.api.pod_cidr6 else tunnels[:1])),
        bridge="".join(bridges),
        ranges=(own,),
        pod_gateway=own[1],
        own_routes=tuple(RouteExpectation(own, bridge) for bridge in bridges),
        routes=(),
    )


def _vxlan(lab: Snapshot, node: Node, others: list[Node], family: _Family) -> NodeExpectations:
    """Return a route to each remote range by the range's first address, which is that of the remote flannel.1."""
    ranges = {other: family.pod_range(other) for other in others}
    macs = {other: vtep_mac(other, family.backend_data) for other in others}
    return replace(
        _bridged(lab, node, family, VTEP, VTEP6),
        routes=tuple(RouteExpectation(pods, family.vtep, pods[0], onlink=True) for pods in ranges.values()),
        neighbours=tuple(NeighbourExpectation(ranges[other][0], family.vtep, mac) for other, mac in macs.items()),
        fdb=tuple(FdbExpectation(mac, family.vtep, family.address(other)) for other, mac in macs.items()),
        tunnel=Tunnel(family.vtep, family.overhead, f"udp port {PORT}", vtep_mac(node, family.backend_data), VNI),
    )


def _host_gw(lab: Snapshot, node: Node, others: list[Node], family: _Family) -> NodeExpectations:
    """Return a route to each remote range by the remote node itself, without encapsulation."""
    return replace(
        _bridged(lab, node, family),
        routes=tuple(RouteExpectation(family.pod_range(other), node.uplink, family.address(other)) for other in others),
    )


def _wireguard(lab: Snapshot, node: Node, others: list[Node], family: _Family) -> NodeExpectations:
    """Return routes to one interface, which selects the peer by its allowed ranges."""
    dev, port = family.wireguard, family.wireguard_port
    return replace(
        _bridged(lab, node, family, WIREGUARD, WIREGUARD6),
        routes=(RouteExpectation(family.pods(lab), dev),),
        tunnel=Tunnel(dev, WIREGUARD_OVERHEAD, f"udp port {port}", encrypted=True),
        peers=tuple(
            PeerExpectation(dev, with_port(family.address(other), port), (family.pod_range(other),)) for other in others
        ),
    )
