"""The way to each range of pods, from what the Kubernetes API answers."""

from __future__ import annotations

import json
from typing import Any

from hoplab.cluster.api import Requests
from hoplab.lab.pod_ways import ways_to_pods
from hoplab.observe.facts.api_ipam_blocks import API_IPAM_BLOCKS
from hoplab.observe.facts.api_nodes import API_NODES


def node(name: str, *addresses: str, pods: tuple[str, ...] = ()) -> dict[str, Any]:
    known = [{"type": "Hostname", "address": name}, *({"type": "InternalIP", "address": one} for one in addresses)]
    return {"metadata": {"name": name}, "spec": {"podCIDRs": list(pods)}, "status": {"addresses": known}}


def block(affinity: str | None, cidr: str) -> dict[str, Any]:
    return {"spec": {"affinity": affinity, "cidr": cidr, "allocations": [None] * 4, "attributes": []}}


class Cluster(Requests):
    """An API with nodes and, where Calico is, its blocks."""

    def __init__(self, nodes: list[dict[str, Any]], blocks: list[dict[str, Any]] | None = None) -> None:
        self.nodes, self.blocks = nodes, blocks

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        assert (method, body) == ("GET", None)
        if path == API_NODES.command:
            return 200, json.dumps({"items": self.nodes})
        assert path == API_IPAM_BLOCKS.command
        return (404, "404 page not found") if self.blocks is None else (200, json.dumps({"items": self.blocks}))

    def ways(self) -> set[str]:
        return {f"{pods} by {address}" for pods, address in ways_to_pods(self)}


FIRST = node("worker1", "192.168.77.20", "fd77::20", pods=("10.244.1.0/24", "fd44:0:0:1::/64"))
SECOND = node("worker2", "192.168.77.21", "fd77::21", pods=("10.244.0.0/24", "fd44::/64"))
THEIRS = {
    "10.244.1.0/24 by 192.168.77.20",
    "fd44:0:0:1::/64 by fd77::20",
    "10.244.0.0/24 by 192.168.77.21",
    "fd44::/64 by fd77::21",
}


def test_a_nodes_ranges_are_reached_by_the_node() -> None:
    assert Cluster([FIRST, SECOND]).ways() == THEIRS


def test_calicos_blocks_are_reached_by_their_nodes() -> None:
    blocks = [
        block("host:worker1", "10.244.235.128/26"),
        block("host:worker2", "fd44:0:0:9::40/122"),
        block("host:worker3", "10.244.9.128/26"),  # its node is gone
        block(None, "10.244.9.192/26"),  # released by its node, while addresses of it are taken
    ]
    found = Cluster([FIRST, SECOND], blocks).ways()
    assert found == THEIRS | {"10.244.235.128/26 by 192.168.77.20", "fd44:0:0:9::40/122 by fd77::21"}


def test_a_range_of_a_family_that_the_node_lacks_has_no_way() -> None:
    alone = node("worker1", "192.168.77.20", pods=("10.244.1.0/24", "fd44::/64"))
    assert Cluster([alone]).ways() == {"10.244.1.0/24 by 192.168.77.20"}
    assert Cluster([node("worker2", "192.168.77.21")]).ways() == set()  # it has just joined
