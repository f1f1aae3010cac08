"""Routes from a hosted control plane to the pods, in a network namespace with an end like that of a lab."""

from __future__ import annotations

import doctest
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
    for setting in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
        subprocess.run(["ip", "netns", "exec", name, "sysctl", "-qw", f"net.{setting}=1"], check=True)
    yield name
    netns.delete(name)


def routes(namespace: str) -> list[str]:
    """Return what leads to pods, "10.244.0.0/16 via 192.168.77.20", one of each way."""
    found = []
    for family in ("-4", "-6"):
        which = ["table", "all", "proto", pod_routes.PROTOCOL]
        command = ["ip", "-n", namespace, "-o", family, "route", "show", *which]
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


@needs_root
@pytest.mark.parametrize(
    ("pod", "by", "node"),
    [("10.244.1.5", "192.168.77.20", "192.168.77.21"), ("fd44:0:0:1::5", "fd77::20", "fd77::21")],
    ids=["IPv4", "IPv6"],
)
def test_what_a_node_sends_there_is_not_forwarded_to_a_pod(
    namespace: str, tmp_path: Path, pod: str, by: str, node: str
) -> None:
    """A pod whose node has lost a route must not be reached by way of the control plane."""

    def route(*more: str) -> str:
        command = ["ip", "-n", namespace, "route", "get", pod, *more]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    file = tmp_path / pod_routes.FILE
    pod_routes.set_to(FIRST, file, namespace)
    assert f" via {by} " in route()
    assert by not in route("from", node, "iif", "end")
    pod_routes.remove(namespace)
    assert by not in route()


@needs_root
def test_routes_of_an_older_version_are_replaced(namespace: str, tmp_path: Path) -> None:
    """They were in the main table, for forwarded packets too."""
    subprocess.run(
        ["ip", "-n", namespace, "route", "add", "10.244.1.0/24", "proto", "120", "via", "192.168.77.20"], check=True
    )
    pod_routes.set_to(SECOND, tmp_path / pod_routes.FILE, namespace)
    found = subprocess.run(["ip", "-n", namespace, "route"], capture_output=True, text=True, check=True).stdout
    assert "10.244" not in found


def test_doctests() -> None:
    assert doctest.testmod(pod_routes).failed == 0
