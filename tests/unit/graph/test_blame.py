"""A failed claim is red at what its sentence is about. The sentences are those of broken recordings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoplab.graph.blame import blame
from hoplab.graph.build import build
from hoplab.graph.model import Edge, Failure, Vertex
from tests.support.recordings import recording

ECHO = "hoplab-verify/echo-lm2p5"
TUNNEL = "tunnel worker1/flannel.1 worker2/flannel.1"
CASES = [
    (
        "broken/a-host-end-left-the-bridge",
        f"veth545521a3, the end of {ECHO} on worker2, is a port of no bridge, not of cni0",
        ["worker2/veth545521a3", f"pair pod/{ECHO} worker2/veth545521a3"],
    ),
    (
        "broken/a-longer-prefix-leads-astray",
        "worker2 sends 10.244.1.5 (hoplab-verify/app1-service-85d6cbff99-pfflh) by `10.244.1.0/25 via 192.168.77.1 dev "
        "eth0`, not by `10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink`",
        [
            "worker2/route 10.244.1.0/25 via 192.168.77.1 dev eth0",
            "worker2/route 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink",
        ],
    ),
    ("broken/a-neighbour-entry-is-gone", "worker2 has no neighbour 10.244.1.0 dev flannel.1 lladdr x", [TUNNEL]),
    (
        "broken/an-fdb-entry-is-gone",
        "worker2 has no FDB entry de:16:64:34:95:3f dev flannel.1 dst 192.168.77.20",
        [TUNNEL],
    ),
    ("broken/a-node-does-not-know-a-clusterip", "the rules of worker2 lack 10.96.0.1", ["service/default/kubernetes"]),
    ("broken/a-node-is-not-ready", "worker2 is not Ready: broken by hand", ["worker2"]),
    ("broken/a-pod-has-a-public-address", f"eth0 of {ECHO} has the public address 8.8.8.8", [f"pod/{ECHO}"]),
    (
        "broken/a-pods-gateway-is-not-the-bridge",
        f"{ECHO} has the default routes default via 10.244.0.99 dev eth0, not one via 10.244.0.1 dev eth0",
        [f"pod/{ECHO}"],
    ),
    (
        "broken/an-endpoint-gets-nearly-all-connections",
        "on worker2 the shares of hoplab-verify/announced (10.99.38.59:80/tcp) are 0.99 for 10.244.0.3:8080",
        ["service/hoplab-verify/announced"],
    ),
    (
        "broken/calico-bgp/a-bgp-session-is-closed-by-hand",
        "a session of worker1 is not established: Mesh_192_168_77_21 start Passive",
        ["bgp worker1/routing worker2/routing"],
    ),
    (
        "broken/flannel-1-has-another-mac-than-announced",
        "the others expect 9e:4f:69:61:eb:31 of worker2, but flannel.1 has 02:00:00:00:00:01",
        ["worker2/flannel.1"],
    ),
    (
        "broken/flannel-host-gw/the-route-to-a-host-gw-neighbours-pods-is-gone",
        "worker1 has no route 10.244.1.0/24 via 192.168.77.21 dev eth0",
        ["worker1/route missing 10.244.1.0/24"],
    ),
    (
        "broken/the-default-route-is-gone",
        "worker2 has the default route None, not via 192.168.77.1 dev eth0",
        ["worker2/route missing default"],
    ),
    ("broken/forwarding-is-off", "net.ipv4.ip_forward is 0 on worker2", ["worker2"]),
    ("broken/the-mtu-of-cni0-is-wrong", "cni0 on worker2 has the MTU 1400, not 1450", ["worker2/cni0"]),
    ("broken/forwarding-is-off", "nothing that a graph has", []),
]


@pytest.mark.parametrize(("name", "why", "wanted"), CASES, ids=[f"{name}: {why[:20]}" for name, why, _ in CASES])
def test_a_sentence_is_about_what_it_names_first(name: str, why: str, wanted: list[str]) -> None:
    graph = blame(build(recording(name)), [Failure("unrelated"), Failure(why)])
    things: list[Vertex | Edge] = [*graph.vertices, *graph.edges]
    red = {thing.id for thing in things if thing.failures}
    assert set(wanted) & red == set(wanted) if len(wanted) < 2 else set(wanted) & red
    assert not [vertex.id for vertex in graph.vertices if vertex.failures and vertex.id not in wanted]
    assert all(thing.failures in ((), (2,)) for thing in things)
    assert [failure.why for failure in graph.failures] == ["unrelated", why]


def test_what_hangs_on_a_red_interface_or_route_is_red_too() -> None:
    graph = blame(build(recording("flannel-vxlan")), [Failure("veth25cba742 of worker1 is down")])
    red = [edge.kind for edge in graph.edges if edge.failures]
    assert sorted(red) == ["pair", "port"]
    graph = blame(graph, [Failure("worker1 has `default via 192.168.77.1 dev eth0`")])
    assert [edge.kind for edge in graph.edges if edge.failures] == ["leads"]


def test_a_name_that_every_node_has_is_of_none() -> None:
    graph = blame(build(recording("flannel-vxlan")), [Failure("eth0 is down")])
    assert not [vertex for vertex in graph.vertices if vertex.failures]
    assert len(graph.failures) == 1


@settings(max_examples=40)
@given(st.text(max_size=60))
def test_any_sentence_is_listed(why: str) -> None:
    assert blame(build(recording("flannel-host-gw")), [Failure(why)]).failures == (Failure(why),)
