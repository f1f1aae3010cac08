"""Routes from a hosted control plane to the pods, in a network namespace with an end like that of a lab."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hoplab.cluster import pod_routes
from hoplab.cluster.api import Requests
from hoplab.core.errors import ClusterError
from hoplab.host import netns

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"hoplab-test-{os.getpid()}"
    netns.create(name)
    commands = (
        "link add end type veth peer name wire",
        "address add 192.168.77.1/24 dev end",
        "address add fd77::1/64 dev end nodad",
        "link set end up",
        "link set wire up",
    )
    for command in commands:
        subprocess.run(["ip", "-n", name, *command.split()], check=True)
    yield name
    netns.delete(name)


def routes(namespace: str) -> list[str]:
    """Return what leads to pods, "10.244.0.0/16 via 192.168.77.20", one of each way."""
    found = []
    for family in ("-4", "-6"):
        command = ["ip", "-n", namespace, "-o", family, "route", "show", "proto", pod_routes.PROTOCOL]
        for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
            words = line.replace("\\", " ").split()
            found += [f"{words[0]} via {words[at + 1]}" for at, word in enumerate(words) if word == "via"]
    return found


@needs_root
def test_a_route_that_cannot_be_set_is_named(namespace: str, tmp_path: Path) -> None:
    file = tmp_path / "routes"
    file.write_text("route replace 10.244.0.0/16 proto 120 via 172.31.0.1\n")
    with pytest.raises(ClusterError, match=r"has no way to the pods: .*invalid gateway") as caught:
        pod_routes.apply(file, namespace)
    assert caught.value.remedy == "the lab's network has to be up: ./lab status, ./lab up"
    assert caught.value.log == str(file)


def node(name: str, *addresses: str, pods: tuple[str, ...] = ()) -> dict[str, Any]:
    known = [{"type": "Hostname", "address": name}, *({"type": "InternalIP", "address": one} for one in addresses)]
    return {"metadata": {"name": name}, "spec": {"podCIDRs": list(pods)}, "status": {"addresses": known}}


def block(node: str, cidr: str, **spec: str) -> dict[str, Any]:
    return {"spec": {"node": node, "cidr": cidr, "state": "confirmed", "deleted": "false", **spec}}


class Cluster(Requests):
    """An API with nodes and, where Calico is, its blocks."""

    def __init__(self, nodes: list[dict[str, Any]], blocks: list[dict[str, Any]] | None = None) -> None:
        self.nodes, self.blocks = nodes, blocks

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        assert (method, body) == ("GET", None)
        if path == "/api/v1/nodes":
            return 200, json.dumps({"items": self.nodes})
        assert path == pod_routes.BLOCKS
        return (404, "404 page not found") if self.blocks is None else (200, json.dumps({"items": self.blocks}))


FIRST = node("worker1", "192.168.77.20", "fd77::20", pods=("10.244.1.0/24", "fd44:0:0:1::/64"))
SECOND = node("worker2", "192.168.77.21", "fd77::21", pods=("10.244.0.0/24", "fd44::/64"))
BOTH = ["10.244.0.0/24 via 192.168.77.21", "10.244.1.0/24 via 192.168.77.20"]
BOTH6 = ["fd44:0:0:1::/64 via fd77::20", "fd44::/64 via fd77::21"]


@needs_root
def test_each_nodes_pods_are_reached_by_the_node(namespace: str, tmp_path: Path) -> None:
    file = tmp_path / pod_routes.FILE
    for _ in range(2):
        pod_routes.learn(Cluster([FIRST, SECOND]), file, namespace)
        assert sorted(routes(namespace)) == sorted(BOTH + BOTH6)
    pod_routes.learn(Cluster([SECOND]), file, namespace)  # a worker less
    assert sorted(routes(namespace)) == [BOTH[0], BOTH6[1]]
    pod_routes.remove(namespace)
    assert routes(namespace) == []
    pod_routes.apply(file, namespace)  # a start without Ansible
    assert sorted(routes(namespace)) == [BOTH[0], BOTH6[1]]


def test_calicos_blocks_are_reached_by_their_nodes() -> None:
    blocks = [
        block("worker1", "10.244.235.128/26"),
        block("worker2", "fd44:0:0:9::40/122"),
        block("worker2", "10.244.9.0/26", state="pending"),
        block("worker2", "10.244.9.64/26", deleted="true"),
        block("worker3", "10.244.9.128/26"),  # its node is gone
    ]
    found = set(pod_routes.commands([FIRST, SECOND], blocks)) - set(pod_routes.commands([FIRST, SECOND], []))
    assert found == {
        "route replace 10.244.235.128/26 proto 120 via 192.168.77.20",
        "route replace fd44:0:0:9::40/122 proto 120 via fd77::21",
    }


def test_a_range_of_a_family_that_the_node_lacks_has_no_route() -> None:
    alone = node("worker1", "192.168.77.20", pods=("10.244.1.0/24", "fd44::/64"))
    assert list(pod_routes.commands([alone], [])) == ["route replace 10.244.1.0/24 proto 120 via 192.168.77.20"]
    assert list(pod_routes.commands([node("worker2", "192.168.77.21")], [])) == []  # it has just joined
