"""A recording of a lab with flannel's WireGuard, with one thing of the tunnel broken at a time."""

from __future__ import annotations

from collections.abc import Callable

from hoplab.observe.snapshot import Snapshot
from tests.support import edits
from tests.support.edits import Edit, Fault, without
from tests.support.recordings import recording

RECORDED = recording("flannel-wireguard")
FIRST, SECOND = RECORDED.nodes[:2]
DECRYPTS = "who_decrypts_is_written_down"
KEY = "c3RyYW5nZXI="


def on_node(fact: str, edit: Edit) -> Snapshot:
    return edits.on_node(fact, edit, RECORDED, FIRST.name)


def replaced(old: object, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(str(old), new)


FAULTS = (
    Fault(
        "a peer is sent to another address",
        lambda: on_node("wireguard", replaced(SECOND.address, "192.168.77.99")),
        (DECRYPTS,),
        f"{FIRST.name} has no peer of flannel-wg, endpoint {SECOND.address}:51820, allowed ips {SECOND.pod_cidr}",
    ),
    Fault(
        "a peer may send from another range",
        lambda: on_node("wireguard", replaced(SECOND.pod_cidr, "203.0.113.0/24")),
        (DECRYPTS,),
        f"{FIRST.name} has no peer of flannel-wg",
    ),
    Fault(
        "a stranger is a peer",
        lambda: on_node("wireguard", lambda text: f"flannel-wg\t{KEY}\t(none)\n{text}flannel-wg\t{KEY}\t(none)\n"),
        (DECRYPTS,),
        f"{FIRST.name} has a peer that is no node",
    ),
    Fault(
        "the route into the tunnel is gone",
        lambda: on_node("routes", without(dst=str(RECORDED.setting.pod_cidr))),
        ("a_node_routes_every_other_range_to_its_node", "kinds_of_routes", "the_longest_prefix_decides"),
        f"{FIRST.name} has no route {RECORDED.setting.pod_cidr} dev flannel-wg",
        exactly=False,
    ),
)
