"""Cilium in the place of kube-proxy: sockets translate what pods and nodes send, the uplink's program what comes in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hoplab.trace import render
from hoplab.trace.model import Hop, Way
from tests.support.edited.cilium_services import BALANCER, without_kube_proxy
from tests.support.edits import on_node
from tests.support.recordings import recording
from tests.support.traced_faults import traced
from tests.support.traced_packets import PACKETS

LAB = without_kube_proxy()
SOCKET = "maps of Cilium, at the socket"
OTHER_PACKETS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "outside to LoadBalancer": ("outside", "balanced", {"via": "loadbalancer"}),
    "outside to a NodePort of the other node": ("outside", "worker2:30080", {}),
    "pod to a NodePort": ("single", "worker2:30080", {}),
}


def way_of(sender: str, receiver: str, **options: Any) -> Way:
    return traced(LAB, sender, receiver, **options).ways[0]


def kinds(hop: Hop) -> list[str]:
    return [event.kind for event in hop.events]


@pytest.mark.parametrize("name", [*PACKETS, *OTHER_PACKETS])
def test_a_packet_arrives_and_its_reply_returns(name: str) -> None:
    sender, receiver, options = {**PACKETS, **OTHER_PACKETS}[name]
    found = traced(LAB, sender, receiver, **options)
    assert found.complete and not any(way.bends for way in found.ways), found.shown.end
    assert render.text(found)


def test_a_pods_packet_leaves_with_the_endpoints_address() -> None:
    way = way_of("single", "hoplab-verify/echo")
    assert str(way.header).endswith(" > 10.108.105.156:80")
    assert [event.where for event in way.there[0].events if event.kind == "dnat"] == [SOCKET]
    assert all(hop.header.dst != way.header.dst for hop in way.there)
    assert not any("dnat" in kinds(hop) for hop in way.there[1:])
    last = way.back[-1].events[-1]
    assert (last.kind, last.where) == ("restored", SOCKET) and " becomes 10.108.105.156:80 > " in last.result


def test_a_nodes_packet_has_the_source_of_the_route_to_the_endpoint() -> None:
    way = next(way for way in traced(LAB, "worker1", "hoplab-verify/echo").ways if str(way.target).endswith("fsxx8"))
    assert str(way.header.src) == "10.244.1.181" and not any("snat" in kinds(hop) for hop in way.there)
    by_kube_proxy = traced(recording("cilium-vxlan"), "worker1", "hoplab-verify/echo").ways[0]
    assert str(by_kube_proxy.header.src) == "192.168.77.20"


def test_what_a_pod_sends_to_itself_never_leaves_it() -> None:
    way = way_of("single", "service/single")
    assert {(hop.place, hop.interface) for hop in (*way.there, *way.back)} == {(way.source, "lo")}


def test_without_endpoints_there_is_no_connection() -> None:
    end = way_of("single", "nobody").end
    assert end and (end.kind, str(end.at), end.missing) == ("program", "node worker1", "service hoplab-verify/nobody")
    refuses = "the program at the socket of pod hoplab-verify/single-659bfc6785-shbqt refuses the connection: "
    assert end.why == f"{refuses}{end.cause}" and end.cause.endswith(" ClusterIP: no backend")


def test_an_endpoint_that_is_gone_refuses_it_too() -> None:
    lab = without_kube_proxy({"10.109.3.98:80/TCP (1)": ["backend 6 not found"]})
    end = traced(lab, "single", "service/single").shown.end
    assert end and end.cause == "10.109.3.98:80/tcp: slot 1 leads nowhere"


def test_a_ping_of_a_service_is_not_translated() -> None:
    end = way_of("single", "hoplab-verify/echo", protocol="icmp").end
    assert end and end.kind == "translation"


def test_the_program_of_the_uplink_translates_for_a_pod_of_its_node() -> None:
    """The rest is the kernel's, until the reply: the program at the pod's interface sends it on past all rules."""
    way = way_of("outside", "worker1:30080")
    [dnat] = [event for event in way.there[1].events if event.kind == "dnat"]
    assert (dnat.text, dnat.where) == (
        "192.168.77.20:30080/tcp NodePort: 10.244.1.52:8080",
        "maps of Cilium, cil_from_netdev",
    )
    assert kinds(way.there[1]) == ["dnat", "route", "program"]
    assert kinds(way.back[1]) == ["restored", "route"] and "cil_from_container" in way.back[1].events[0].text
    assert str(way.back[2].header) == "192.168.77.20:30080 > 192.168.77.1:*"


def test_an_endpoint_elsewhere_answers_by_the_node_where_it_came_in() -> None:
    way = way_of("outside", "worker2:30080")
    assert kinds(way.there[1]) == ["dnat", "snat", "program"]
    assert str(way.there[2].header) == "10.244.0.191:* > 10.244.1.52:8080"
    assert way.there[3].wrapped == "VXLAN, VNI 2"  # the world's identity: it is no packet of a node
    at = next(hop for hop in way.back if hop.interface == "cilium_vxlan" and hop.direction == "in")
    assert kinds(at) == ["restored", "route"] and str(at.place) == "node worker2"


def test_a_reply_that_a_program_has_no_route_for() -> None:
    lab = on_node(
        "routes", lambda text: json.dumps([r for r in json.loads(text) if r["dev"] != "eth0"]), LAB, "worker1"
    )
    end = traced(lab, "outside", "worker1:30080").shown.end
    assert end and (end.kind, end.cause, end.reply) == ("program", "no route to 192.168.77.1", True)
    assert end.why.startswith("cil_from_container at ") and end.why.endswith(" finds no route to 192.168.77.1")


@pytest.mark.parametrize(
    ("receiver", "options", "more", "cause", "why"),
    [
        ("worker2:30081", {}, {}, "192.168.77.21:30081/tcp NodePort: no backend", "refuses it"),
        (
            "balanced",
            {"via": "loadbalancer"},
            {f"{BALANCER}:80/TCP (0)": ["0.0.0.0:0 (22) (0) [LoadBalancer, non-routable] "]},
            f"{BALANCER}:80/tcp LoadBalancer: 10.244.1.52:8080",
            "is for clients inside",
        ),
    ],
    ids=["Local without an endpoint", "for clients inside"],
)
def test_the_program_of_the_uplink_ends_it(
    receiver: str, options: dict[str, Any], more: dict[str, list[str]], cause: str, why: str
) -> None:
    end = traced(without_kube_proxy(more), "outside", receiver, **options).shown.end
    assert end and (end.kind, end.cause) == ("program", cause) and why in end.why
    assert end.why.startswith("cil_from_netdev at tcx/ingress of eth0 of node worker")
