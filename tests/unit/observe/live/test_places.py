"""What to capture, where: names that are typed, interfaces on the way, and filters."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from hoplab.core.errors import LabError
from hoplab.observe.facts.api_pods import ApiPod
from hoplab.observe.live import places
from hoplab.observe.live.places import Found, Place, Target, Wanted

NODES = ("worker1", "worker2")


def pod(name: str, address: str | None = "10.244.1.5", **more: object) -> ApiPod:
    namespace, _, short = name.rpartition("/")
    own = IPv4Address(address) if address else None
    made = ApiPod(namespace or "default", short, "worker2", own, False, True, True, False, ())
    return replace(made, **more)  # type: ignore[arg-type]


PODS = (
    pod("web-7d4-x1"),
    pod("web-7d4-x2"),
    pod("shop/api-0"),
    pod("shop/api"),
    pod("web", node="worker1"),
    pod("proxy", host_network=True),
    pod("pending", None, running=False),
    pod("going", going=True),
    pod("six", None, address6=IPv6Address("fd00::5")),
)


def resolved(text: str) -> Wanted:
    (found,) = places.resolve([Target.parse(text)], NODES, PODS)
    return found


def refused(text: str) -> str:
    with pytest.raises(LabError) as caught:
        resolved(text)
    return f"{caught.value.message}; {caught.value.remedy}"


@pytest.mark.parametrize(
    ("text", "node", "dev", "name"),
    [
        ("worker1", "worker1", "eth0", None),
        ("worker1:flannel.1", "worker1", "flannel.1", None),
        ("web", "worker1", "eth0", "default/web"),  # a whole name, though others begin so
        ("web-7d4-x1", "worker2", "eth0", "default/web-7d4-x1"),
        ("shop/api-", "worker2", "eth0", "shop/api-0"),
        ("default/web:net1", "worker1", "net1", "default/web"),
        ("si", "worker2", "eth0", "default/six"),
    ],
)
def test_a_target_is_a_node_a_pod_or_the_beginning_of_one(text: str, node: str, dev: str, name: str | None) -> None:
    found = resolved(text)
    assert (found.node, found.dev, str(found.pod) if found.pod else None) == (node, dev, name)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("web-", "web- is the beginning of several pods' names; one of: default/web-7d4-x1, default/web-7d4-x2"),
        ("worker3", "there is no pod or node worker3; did you mean worker2?"),
        ("shop/apy", "there is no pod or node shop/apy; did you mean shop/api?"),
        ("qqqq", "there is no pod or node qqqq; there are worker1, worker2, default/web-7d4-x1, default/web-7d4-x2,"),
        ("going", "there is no pod or node going; did you mean"),
        (
            "proxy",
            "default/proxy has no interfaces of its own: it uses those of its node; capture the node: ./lab capt",
        ),
        ("pending", "default/pending does not run yet, or not any more; see ./lab kubectl -n default get pod pending"),
        ("Web 1", "'Web 1' can't be captured; name a pod as [NAMESPACE/]POD or a node, with [:INTERFACE] after it: "),
        ("a/b/c", "'a/b/c' can't be captured"),
        ("web:", "'web:' can't be captured"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(text: str, why: str) -> None:
    assert refused(text).startswith(why)


def test_a_target_that_is_given_twice_is_one_and_nodes_need_no_api() -> None:
    both = [Target("worker1"), Target("worker1", "eth0")]
    assert places.resolve(both, NODES, ()) == (Wanted("worker1", "eth0"),)
    assert not places.needs_pods(both, NODES) and places.needs_pods([Target("web")], NODES)


def link(index: int, name: str, kind: str = "", **more: object) -> dict[str, object]:
    found: dict[str, object] = {"ifindex": index, "ifname": name, "flags": ["UP"], "mtu": 1500, "address": "", **more}
    return {**found, "linkinfo": {"info_kind": kind}} if kind else found


HOST = json.dumps(
    [
        link(1, "lo"),
        link(2, "eth0"),
        link(3, "flannel.1", "vxlan"),
        link(4, "cni0", "bridge"),
        link(5, "docker0", "bridge"),
        link(6, "tunl0", "ipip", flags=[]),
        link(7, "veth7", "veth", link_index=2, link_netnsid=0, master="cni0"),
    ]
)
POD = json.dumps([link(1, "lo"), link(2, "eth0", "veth", link_index=7, link_netnsid=0)])
FOUND = {
    "worker1": Found("192.168.77.1 40112 192.168.77.20 22", devices={"": ("lo", "eth0", "cni0")}, links={"": HOST}),
    "worker2": Found(
        "192.168.77.1 40113 192.168.77.21 22",
        namespaces={"10.244.1.5": "cni-1", "fd000000000000000000000000000005": "cni-6"},
        devices={"": ("lo", "eth0"), "cni-1": ("lo", "eth0"), "cni-6": ("lo", "eth0")},
        links={"": HOST, "cni-1": POD, "cni-6": "[]"},
    ),
}
WIRE = Place("", "hoplab-dev", "hl1", "wire hl1", "wire hl1")


def labels(*texts: str, with_node: bool = True) -> list[str]:
    wanted = [resolved(text) for text in texts]
    return [place.label for place in places.spread(wanted, FOUND, with_node=with_node, wire=WIRE)]


def test_a_pods_packets_cross_its_veth_bridge_tunnel_and_nic() -> None:
    assert labels("web-7d4-x1") == [
        "pod default/web-7d4-x1 eth0 on worker2",
        "node worker2 veth7 of pod default/web-7d4-x1",
        "node worker2 cni0",
        "node worker2 eth0",
        "node worker2 flannel.1",
        "wire hl1",
    ]
    assert labels("web-7d4-x1", "worker2", with_node=False) == [
        "pod default/web-7d4-x1 eth0 on worker2",
        "node worker2 eth0",
        "wire hl1",
    ]


def test_a_node_has_all_its_bridges_and_an_unknown_far_end_none() -> None:
    every = ["node worker1 eth0", "node worker1 cni0", "node worker1 docker0", "node worker1 flannel.1"]
    assert labels("worker1") == [*every, "wire hl1"]
    assert labels("six")[1:3] == ["node worker2 eth0", "node worker2 flannel.1"]


def test_any_is_the_device_of_all_interfaces() -> None:
    (place,) = places.spread([resolved("worker1:any")], FOUND)
    assert place == Place("worker1", "", "any", "node worker1 any", "worker1 any")


def test_a_namespace_that_could_not_be_looked_at_is_the_remedy() -> None:
    lost = {"worker2": Found(trouble="/run/netns/cni-1: Operation not permitted")}
    with pytest.raises(
        LabError, match="no network namespace on worker2 has the address of default/web-7d4-x1"
    ) as caught:
        places.spread([resolved("web-7d4-x1")], lost)
    assert caught.value.remedy == "/run/netns/cni-1: Operation not permitted"


def test_the_connections_that_carry_the_capture_are_not_captured() -> None:
    spread = places.spread([resolved("web-7d4-x1"), resolved("worker1")], FOUND, wire=WIRE)
    own = places.commands(spread, FOUND, "tcp port 80", 256)
    assert [command[-1] for command in own] == [
        "tcp port 80",
        "(tcp port 80) and not ((tcp and host 192.168.77.1 and port 40112 and host 192.168.77.20 and port 22))",
        "(tcp port 80) and not ((tcp and host 192.168.77.1 and port 40112 and host 192.168.77.20 and port 22) or "
        "(tcp and host 192.168.77.1 and port 40113 and host 192.168.77.21 and port 22))",
    ]
    assert [command[-1] for command in places.commands(spread, FOUND, "", 256)][:2] == [
        "",
        "not ((tcp and host 192.168.77.1 and port 40112 and host 192.168.77.20 and port 22))",
    ]
    assert own[0][:3] == ["tcpdump", "-i", "eth0"] and own[0][-5:-1] == ["256", "-w", "-", "--"]
