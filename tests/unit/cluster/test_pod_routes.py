"""Routes from a hosted control plane to the pods, in a network namespace with an end like that of a lab."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from hoplab.cluster import pod_routes
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


def way(pods: str, address: str) -> pod_routes.Way:
    return ip_network(pods), ip_address(address)


FIRST = [way("10.244.1.0/24", "192.168.77.20"), way("fd44:0:0:1::/64", "fd77::20")]
SECOND = [way("10.244.0.0/24", "192.168.77.21"), way("fd44::/64", "fd77::21")]


@needs_root
def test_each_nodes_pods_are_reached_by_the_node(namespace: str, tmp_path: Path) -> None:
    file = tmp_path / pod_routes.FILE
    for _ in range(2):
        pod_routes.set_to(FIRST + SECOND, file, namespace)
        assert sorted(routes(namespace)) == [f"{pods} via {node}" for pods, node in sorted(FIRST + SECOND, key=str)]
    alone = [f"{pods} via {node}" for pods, node in SECOND]
    pod_routes.set_to(SECOND, file, namespace)  # a worker less
    assert routes(namespace) == alone
    pod_routes.remove(namespace)
    assert routes(namespace) == []
    pod_routes.apply(file, namespace)  # a start without Ansible
    assert routes(namespace) == alone
