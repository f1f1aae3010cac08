"""Routes from a hosted control plane to the pods, in a network namespace with an end like that of a lab."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from jinja2 import Environment

from hoplab.cluster import pod_routes
from hoplab.core.errors import ClusterError
from hoplab.core.paths import PROJECT
from hoplab.host import netns

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")
TWO = (
    "route replace 10.244.0.0/16 proto 120 nexthop via 192.168.77.20 nexthop via 192.168.77.21\n"
    "route replace fd44::/56 proto 120 nexthop via fd77::20 nexthop via fd77::21\n"
)


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
def test_the_routes_are_those_of_the_file(namespace: str, tmp_path: Path) -> None:
    file = tmp_path / "routes"
    file.write_text(TWO)
    both = ["10.244.0.0/16 via 192.168.77.20", "10.244.0.0/16 via 192.168.77.21"]
    both += ["fd44::/56 via fd77::20", "fd44::/56 via fd77::21"]
    for _ in range(2):
        pod_routes.apply(file, namespace)
        assert routes(namespace) == both
    file.write_text("route replace 10.245.0.0/16 proto 120 nexthop via 192.168.77.22\n")  # a spec with other ranges
    pod_routes.apply(file, namespace)
    assert routes(namespace) == ["10.245.0.0/16 via 192.168.77.22"]
    pod_routes.remove(namespace)
    assert routes(namespace) == []
    file.unlink()
    pod_routes.apply(file, namespace)
    assert routes(namespace) == []


@needs_root
def test_a_route_that_cannot_be_set_is_named(namespace: str, tmp_path: Path) -> None:
    file = tmp_path / "routes"
    file.write_text("route replace 10.244.0.0/16 proto 120 nexthop via 172.31.0.1\n")
    with pytest.raises(ClusterError, match=r"has no way to the pods: .*invalid gateway") as caught:
        pod_routes.apply(file, namespace)
    assert caught.value.remedy == "the lab's network has to be up: ./lab status, ./lab up"
    assert caught.value.log == str(file)


def written(subnet: str, routers: list[str]) -> str:
    """Return what the role writes, with Ansible's own test for addresses."""
    environment = Environment(trim_blocks=True, autoescape=False)
    environment.tests["search"] = lambda text, part: part in text
    template = (PROJECT / "roles/kubeadm_control_plane/templates/routes.j2").read_text()
    return environment.from_string(template).render(
        kubeadm_control_plane_pod_subnet=subnet, kubeadm_control_plane_routers=routers
    )


def test_each_range_leads_to_the_machines_of_its_family() -> None:
    routers = ["192.168.77.20", "fd77::20", "192.168.77.21", "fd77::21"]
    assert written("10.244.0.0/16,fd44::/56", routers) == TWO
    assert written("10.244.0.0/16", []) == ""


@pytest.mark.parametrize(
    ("lab", "hosted", "routers"),
    [
        ({"netns": "hoplab-dev", "addresses": ["192.168.77.20"], "ipv6": {}, "node_ips": {}}, True, ["192.168.77.20"]),
        (
            {
                "netns": "hoplab-dev",
                "addresses": ["192.168.77.20"],
                "ipv6": {"pod_cidr": "fd44::/56"},
                "node_ips": {"worker1": ["192.168.77.20", "fd77::20"]},
            },
            True,
            ["192.168.77.20", "fd77::20"],
        ),
        ({"netns": "", "addresses": ["192.168.77.20"], "ipv6": {}, "node_ips": {}}, True, []),
        ({"netns": "hoplab-dev", "addresses": ["192.168.77.20"], "ipv6": {}, "node_ips": {}}, False, []),
    ],
    ids=["one family", "two families", "the workstation's own network", "a control plane in a machine"],
)
def test_only_a_hosted_control_plane_in_a_namespace_gets_routes(
    lab: dict[str, object], hosted: bool, routers: list[str]
) -> None:
    given = yaml.safe_load((PROJECT / "inventory/group_vars/all.yml").read_text())["kubeadm_control_plane_routers"]
    environment = Environment(autoescape=False)
    environment.filters["flatten"] = lambda lists: [item for inner in lists for item in inner]
    found = environment.compile_expression(given.strip().removeprefix("{{").removesuffix("}}"))(lab=lab, hosted=hosted)
    assert found == routers
