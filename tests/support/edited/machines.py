"""A recording of the usual lab whose nodes are copies of one machine, or announce no address: one fault at a time."""

from __future__ import annotations

from typing import Any

from hoplab.expectations.loadbalancer import metallb
from hoplab.observe.snapshot import Snapshot
from tests.support.edits import FIRST, HEALTHY, SECOND, Fault, api_item, changed, in_api, on_node


def labelled(*nodes: str) -> Snapshot:
    """The lab whose nodes have the label that keeps a load balancer away."""
    lab = HEALTHY
    for node in nodes:
        lab = in_api(
            "nodes", api_item(node, lambda item: item["metadata"]["labels"].update({metallb.EXCLUDED: ""})), lab
        )
    return lab


def same(**info: str) -> Snapshot:
    """The lab whose nodes are of the same value in nodeInfo."""

    def change(item: dict[str, Any]) -> None:
        item["status"]["nodeInfo"].update(info)

    return in_api("nodes", api_item(SECOND.name, change), in_api("nodes", api_item(FIRST.name, change)))


def same_mac() -> Snapshot:
    eth0 = SECOND.link("eth0")
    assert eth0
    return on_node("links", changed({"ifname": "eth0"}, address=eth0.mac.upper()))


COPIES = "no_two_nodes_are_copies_of_one_machine"
BOTH = " and ".join(node.name for node in HEALTHY.nodes)
MARK = "4c4c4544-0042"

FAULTS = (
    Fault("two nodes have the same MAC", same_mac, (COPIES,), f"{BOTH} have the same MAC"),
    Fault(
        "two nodes have the same machine-id",
        lambda: same(machineID=MARK),
        (COPIES,),
        f"{BOTH} have the same machine-id {MARK}",
    ),
    Fault(
        "two nodes have the same UUID", lambda: same(systemUUID=MARK), (COPIES,), f"{BOTH} have the same UUID {MARK}"
    ),
    Fault(
        "every node is excluded from load balancers",
        lambda: labelled(FIRST.name, SECOND.name),
        ("a_node_may_announce_each_address",),
        f"has the label {metallb.EXCLUDED}",
    ),
    Fault(
        "the node of a Local service is excluded from load balancers",
        lambda: labelled(FIRST.name),
        ("a_node_may_announce_each_address",),
        f"no node announces the address of hoplab-verify/announced-local: {FIRST.name} has the label",
    ),
)
