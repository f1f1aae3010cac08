"""The path of a packet by routes, on every network; names, near ones, and ends that are none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hoplab.core.errors import FactError, LabError
from hoplab.graph import views
from hoplab.graph.build import build
from hoplab.graph.path import path
from hoplab.graph.views import UnknownPlace
from hoplab.observe.facts import Facts
from hoplab.observe.facts.api_services import PROXY_LABEL
from hoplab.observe.snapshot import Snapshot
from tests.support.edited.cilium_services import without_kube_proxy
from tests.support.edits import FIRST, api_item, in_api
from tests.support.hurt import refused, without_nodes
from tests.support.recordings import RECORDED_LABS, recording

VXLAN = "flannel-vxlan"
SINGLE = "hoplab-verify/single-659bfc6785-8hptb"


def steps(lab: Snapshot, one: str, other: str) -> tuple[str, ...]:
    return path(lab, build(lab), one, other).steps


@pytest.mark.parametrize("name", RECORDED_LABS)
def test_a_packet_arrives_at_a_pod_of_another_node_and_of_its_own(name: str) -> None:
    lab = recording(name)
    first, second = lab.nodes[:2]
    one, own = lab.pods_on(first)[:2]
    other = lab.pods_on(second)[0]
    away = path(lab, build(lab), str(one), str(other))
    assert away.steps[-1].endswith(f"other end of eth0 of {other}: there it has arrived.")
    assert {vertex.label for vertex in away.of_kind("node")} == {first.name, second.name}
    assert [pod.id for pod in away.of_kind("pod")] == [f"pod/{one}", f"pod/{other}"]
    assert {veth.label for veth in away.of_kind("veth")} == {pod.host_end.name for pod in (one, other) if pod.host_end}
    wrapped = lab.setting.backend in ("vxlan", "wireguard", "ipip")
    assert bool(away.edges_of("tunnel")) == wrapped == any("wraps it" in step for step in away.steps)
    at_home = path(lab, build(lab), str(one), str(own))
    assert at_home.steps[-1].endswith("there it has arrived.")
    assert [node.label for node in at_home.of_kind("node")] == [first.name]
    assert at_home.of_kind("network") == ()


def test_a_path_has_a_sentence_for_each_hop() -> None:
    assert steps(recording(VXLAN), "echo-w8kjg", SINGLE) == (
        "hoplab-verify/echo-w8kjg sends it to 10.244.0.6 by `10.244.0.0/16 via 10.244.1.1 dev eth0`.",
        "veth6f34d771 is its other end, a port of the bridge cni0 of worker1.",
        "worker1 routes it by `10.244.0.0/24 via 10.244.0.0 dev flannel.1 onlink`.",
        "flannel.1 wraps it for 192.168.77.21 (VXLAN 1, udp 8472), and eth0 sends that to the network.",
        "worker2 unwraps it and routes it by `10.244.0.0/24 dev cni0`.",
        f"cni0 hands it to veth6af232f0, the other end of eth0 of {SINGLE}: there it has arrived.",
    )


def test_a_path_to_a_service_goes_to_each_endpoint() -> None:
    lab = recording(VXLAN)
    found = path(lab, build(lab), "single-659bfc6785-8hptb", "hoplab-verify/echo")
    change = "worker2 changes the destination 10.102.196.103, by kube-proxy's rules, to "
    assert f"{change}hoplab-verify/echo-w8kjg or hoplab-verify/echo-lm2p5." in found.steps
    assert "hoplab-verify/single-659bfc6785-8hptb sends it to 10.102.196.103 by " in found.steps[0]
    assert len([step for step in found.steps if step.endswith("there it has arrived.")]) == 2
    assert [service.label for service in found.of_kind("service")] == ["echo"]


def test_a_path_goes_by_the_programs_that_take_the_packet() -> None:
    lab = recording("cilium-vxlan")
    single, far = "hoplab-verify/single-659bfc6785-shbqt", "hoplab-verify/echo-fsxx8"
    found = path(lab, build(lab), single, far)
    assert found.steps == (
        f"{single} sends it to 10.244.0.46 by `default via 10.244.1.181 dev eth0 mtu 1450`.",
        "lxcb62f9ffb1a89 is its other end, on worker1.",
        "`cil_from_container` takes it at lxcb62f9ffb1a89 of worker1: its map has "
        "`10.244.0.46/32 identity 36854 behind 192.168.77.21`.",
        "cilium_vxlan wraps it for 192.168.77.21 (VXLAN), and eth0 sends that to the network.",
        "`cil_from_overlay` takes it at cilium_vxlan of worker2: its map has 10.244.0.46 there.",
        f"lxc9e447dca1496 is the other end of eth0 of {far}: there it has arrived.",
    )
    assert found.of_kind("route") == () and "programs of eBPF" in found.notes[0]


@pytest.mark.parametrize(
    ("sender", "by", "program"),
    [
        ("hoplab-verify/single-659bfc6785-shbqt", "Cilium's map of services", "cil_from_container"),
        ("worker1", "kube-proxy's rules", "cil_from_host"),
    ],
)
def test_a_program_translates_for_pods_and_kube_proxy_for_nodes(sender: str, by: str, program: str) -> None:
    found = steps(recording("cilium-vxlan"), sender, "hoplab-verify/echo")
    change = f"worker1 changes the destination 10.108.105.156, by {by}, to "
    assert f"{change}hoplab-verify/echo-kcc9t or hoplab-verify/echo-fsxx8." in found
    assert any(step.startswith(f"`{program}` takes it at ") for step in found)


def test_without_kube_proxy_a_map_translates_for_nodes_too() -> None:
    found = steps(without_kube_proxy(), "worker1", "hoplab-verify/echo")
    assert found[0].startswith("worker1 changes the destination 10.108.105.156, by Cilium's map of services, to ")


def test_what_no_program_takes_is_routed() -> None:
    lab = recording("cilium-vxlan")
    found = path(lab, build(lab), "hoplab-verify/single-659bfc6785-shbqt", "192.168.77.1")
    assert found.steps[-2:] == ("worker1 routes it by `192.168.77.0/24 dev eth0`.", "eth0 sends it to 192.168.77.1.")
    assert "programs" not in found.notes[0]


def test_a_path_from_a_node_and_to_the_outside() -> None:
    lab = recording(VXLAN)
    assert steps(lab, "worker1", "worker2") == (
        "worker1 routes it by `192.168.77.0/24 dev eth0`.",
        "eth0 sends it to 192.168.77.21 as it is.",
        "There it has arrived: it is worker2's own address.",
    )
    out = path(lab, build(lab), "echo-w8kjg", "192.168.77.1")
    assert out.steps[-1] == "eth0 sends it to 192.168.77.1."
    assert "host/192.168.77.1" in out.by_id
    assert steps(lab, "echo-w8kjg", "worker1")[-1] == "192.168.77.20 is worker1's own address: there it has arrived."


def test_a_packet_without_a_route_ends_where_the_default_route_leads() -> None:
    lab = recording("broken/the-route-to-the-other-nodes-pods-is-gone")
    found = steps(lab, SINGLE, "echo-w8kjg")
    assert found[-2:] == (
        "worker2 routes it by `default via 192.168.77.1 dev eth0`.",
        "eth0 sends it to 192.168.77.1, not to worker1: there it ends.",
    )
    lab = recording("broken/the-default-route-is-gone")
    assert steps(lab, SINGLE, "192.168.77.1")[-1] == "eth0 sends it to 192.168.77.1."


def test_what_is_not_on_the_path_is_not_drawn() -> None:
    lab = recording(VXLAN)
    found = path(lab, build(lab), "echo-w8kjg", SINGLE)
    assert [route.label for route in found.of_kind("route")] == ["10.244.0.0/24", "10.244.0.0/24"]
    assert found.of_kind("service", "host_pod") == ()
    assert found.notes[0].startswith("The path follows the routes of pods and nodes")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("worker1", "worker1"),
        (SINGLE, f"pod/{SINGLE}"),
        ("echo-w8kjg", "pod/hoplab-verify/echo-w8kjg"),
        ("10.244.1.6", "pod/hoplab-verify/echo-w8kjg"),
        ("192.168.77.20", "worker1"),
        ("kube-dns", "service/kube-system/kube-dns"),
        ("hoplab-verify/single", "service/hoplab-verify/single"),
        ("metallb-controller", "pod/metallb-system/metallb-controller-c87c4db59-42s77"),
    ],
)
def test_a_name_may_be_short(name: str, wanted: str) -> None:
    assert views.place(build(recording(VXLAN)), name).id == wanted


def test_an_unknown_name_is_answered_with_names_near_to_it() -> None:
    graph = build(recording(VXLAN))
    with pytest.raises(UnknownPlace) as caught:
        views.place(graph, "worker3")
    assert caught.value.message == "lab dev has no pod, node or service 'worker3'"
    assert caught.value.remedy.startswith("near to it: worker")
    with pytest.raises(UnknownPlace) as caught:
        views.place(graph, "echo-w8kjx")
    assert "hoplab-verify/echo-w8kjg" in caught.value.remedy
    with pytest.raises(UnknownPlace) as caught:
        views.place(graph, "!!!")
    assert caught.value.remedy == "its nodes: worker1, worker2"


def test_a_name_of_several_things_is_answered_with_all_of_them() -> None:
    with pytest.raises(UnknownPlace) as caught:
        views.place(build(recording(VXLAN)), "coredns")
    assert caught.value.message == (
        "'coredns' is the name of several things: kube-system/coredns-795c65fdfd-5p6q4, "
        "kube-system/coredns-795c65fdfd-lwdnj"
    )
    assert caught.value.remedy == "name one of them in full"


def test_a_pod_comes_before_a_service_of_its_name() -> None:
    graph = build(recording(VXLAN))
    pod = replace(graph.by_id["pod/hoplab-verify/echo-w8kjg"], id="pod/hoplab-verify/echo", label="echo")
    assert views.place(replace(graph, vertices=(*graph.vertices, pod)), "hoplab-verify/echo") is pod


def test_places_without_a_path_are_errors() -> None:
    lab = recording(VXLAN)
    graph = build(lab)
    for ends, message, remedy in (
        (("worker1", "worker1"), "worker1 and worker1 are the same place", "name two places"),
        (("kube-dns", "worker1"), "a path begins at a pod or at a node, not at kube-dns", "name a pod or a node"),
        (("worker1", "nobody"), "the service hoplab-verify/nobody has no endpoints", "name a pod, or another service"),
    ):
        with pytest.raises(LabError) as caught:
            path(lab, graph, *ends)
        assert (caught.value.message, caught.value.remedy) == (message, remedy)


def test_a_service_of_another_proxy_has_no_path() -> None:
    label = {PROXY_LABEL: "its-own"}
    lab = in_api("services", api_item("echo", lambda item: item["metadata"].setdefault("labels", {}).update(label)))
    with pytest.raises(LabError) as caught:
        path(lab, build(lab), FIRST.name, "hoplab-verify/echo")
    assert caught.value.message == (
        "'its-own' implements the service hoplab-verify/echo (label service.kubernetes.io/service-proxy-name), "
        "and no rule of kube-proxy"
    )
    assert caught.value.remedy == "name a pod, or another service"


def test_a_pod_without_a_namespace_and_a_node_that_was_not_seen_are_errors() -> None:
    lab = recording("broken/a-pod-has-another-address-than-kubernetes-knows")
    with pytest.raises(LabError) as caught:
        path(lab, build(lab), "echo-lm2p5", "worker1")
    assert caught.value.message == "the network namespace of hoplab-verify/echo-lm2p5 was not found"
    assert caught.value.remedy == "choose a pod that runs"
    hurt = without_nodes(recording(VXLAN), "worker2")
    with pytest.raises(LabError) as caught:
        path(hurt, build(hurt), "worker1", "worker2")
    assert (caught.value.message, caught.value.remedy) == ("worker2 could not be looked at", "choose a node that could")
    assert refused("worker2") in build(hurt).notes


def test_a_recording_without_routes_is_an_error() -> None:
    lab = recording(VXLAN)
    outputs = {name: output for name, output in lab.node_facts["worker1"].outputs.items() if name != "routes"}
    bare = replace(lab, node_facts={**lab.node_facts, "worker1": Facts("worker1", outputs)})
    with pytest.raises(FactError, match="routes was not looked at on worker1") as caught:
        path(bare, build(bare), "worker1", "worker2")
    assert caught.value.remedy == "record the lab again"


def test_a_part_has_what_its_name_says() -> None:
    graph = build(recording(VXLAN))
    assert {vertex.kind for vertex in views.nodes(graph).vertices} == views.NODES
    parts = views.pods(graph)
    assert {vertex.kind for vertex in parts.vertices} == (views.PODS | {"host"}) - {"ingress"}
    assert {edge.kind for edge in parts.edges} == {"endpoint"}
    assert len(parts.edges) == len(graph.edges_of("endpoint"))
