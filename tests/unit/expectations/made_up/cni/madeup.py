"""A CNI that only a test has: a bridge on every node, plain routes between the nodes."""

from __future__ import annotations

from collections.abc import Mapping

from hoplab.expectations.cni import NodeExpectations, RouteExpectation
from hoplab.observe.snapshot import Snapshot
from hoplab.spec.parts import CniPart, ResetScope

PART = CniPart(
    name="madeup",
    order=90,
    backends=("x", "y"),
    unwrapped_backends=("x",),
    node_annotations=("madeup.example/",),
    nft_tables=("ip madeup",),
    chain_prefixes=("MADEUP-",),
    reset=ResetScope(directories=("/run/madeup",), files=("/opt/cni/bin/madeup",), route_protocols=("madeup",)),
)
CONFIG_FILE = "10-madeup.conflist"
PLUGINS = ("madeup",)
BRIDGE = "mad0"


def expectations(lab: Snapshot) -> Mapping[str, NodeExpectations]:
    """Return a route to each other node's range by that node's own address."""
    return {
        node.name: NodeExpectations(
            interfaces=("lo", "eth0", BRIDGE),
            bridge=BRIDGE,
            ranges=(node.pod_cidr,),
            pod_gateway=node.pod_cidr[1],
            own_routes=(RouteExpectation(node.pod_cidr, BRIDGE),),
            routes=tuple(
                RouteExpectation(other.pod_cidr, "eth0", other.address) for other in lab.nodes if other is not node
            ),
        )
        for node in lab.nodes
    }


def expectations6(lab: Snapshot) -> Mapping[str, NodeExpectations]:
    """Return the same for IPv6, of which this CNI has nothing of its own."""
    return expectations(lab)
