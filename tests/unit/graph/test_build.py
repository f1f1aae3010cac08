"""The graph of a snapshot has everything that the snapshot has, on every network, and copes with what is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hoplab.core.errors import FactError, LabError
from hoplab.graph.build import build
from hoplab.graph.model import DOWN, MISSING, OK, Graph
from hoplab.observe.facts import Facts
from hoplab.observe.facts.api_ingresses import API_INGRESSES
from hoplab.observe.facts.api_pods import API_PODS
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.facts.links import LINKS
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from tests.support.edits import on_node
from tests.support.files import RECORDINGS
from tests.support.hurt import NO_API, refused, without_api, without_nodes
from tests.support.recordings import RECORDED_LABS, recording

BROKEN = sorted(str(file.relative_to(RECORDINGS).with_suffix("")) for file in RECORDINGS.glob("broken/**/*.json"))
VXLAN, CILIUM = "flannel-vxlan", "cilium-vxlan"


def without(lab: Snapshot, *names: str, node: str = "") -> Snapshot:
    """Return a lab whose API, or one node of it, lacks these facts."""
    if not node:
        return replace(lab, api=Facts("api", {k: v for k, v in lab.api.outputs.items() if k not in names}))
    facts = Facts(node, {k: v for k, v in lab.node_facts[node].outputs.items() if k not in names})
    return replace(lab, node_facts={**lab.node_facts, node: facts})


def labels(graph: Graph, kind: str, parent: str | None = None) -> list[str]:
    return [v.label for v in graph.vertices if v.kind == kind and parent in (None, v.parent)]


@pytest.mark.parametrize("name", [*RECORDED_LABS, *BROKEN])
def test_everything_of_a_snapshot_is_there_once_and_edges_end_somewhere(name: str) -> None:
    lab = recording(name)
    graph = build(lab)
    ids = [vertex.id for vertex in graph.vertices]
    assert len(ids) == len(set(ids))
    assert {end for edge in graph.edges for end in (edge.source, edge.target)} <= set(ids)
    assert len({edge.id for edge in graph.edges}) == len(graph.edges)
    assert {f"pod/{pod}" for pod in lab.api[API_PODS]} <= set(ids)
    assert {f"service/{service}" for service in lab.api[API_SERVICES]} <= set(ids)
    for node in lab.nodes:
        known = {f"{node.name}/{link.name}" for link in node[LINKS] if link.name != "lo" and link.up}
        assert known <= set(ids)
    assert {vertex.parent for vertex in graph.vertices if vertex.parent} <= {node.name for node in lab.cluster_nodes}


@pytest.mark.parametrize("name", RECORDED_LABS)
def test_a_healthy_lab_hangs_together(name: str) -> None:
    lab = recording(name)
    graph = build(lab)
    assert {vertex.state for vertex in graph.vertices} == {OK}
    assert {edge.state for edge in graph.edges} == {OK}
    pairs = {edge.source: edge.target for edge in graph.edges_of("pair")}
    assert set(pairs) == {f"pod/{pod}" for pod in lab.pods}
    ways = graph.edges_of("port") if lab.setting.cni == "flannel" else graph.edges_of("routed")
    assert set(pairs.values()) <= {edge.source for edge in ways}
    tunnels = {"vxlan": 1, "wireguard": 1, "ipip": 1, "host-gw": 0, "bgp": 0, "native": 0}[lab.setting.backend]
    twice = 2 if lab.setting.ipv6 and lab.setting.backend == "vxlan" else 1
    assert len(graph.edges_of("tunnel")) == tunnels * twice
    assert bool(graph.edges_of("bgp")) == (lab.setting.cni == "calico" and lab.setting.backend != "vxlan")


@pytest.mark.parametrize("name", RECORDED_LABS)
def test_a_healthy_node_has_a_route_to_the_pods_of_every_other_node(name: str) -> None:
    graph = build(recording(name))
    for node in graph.of_kind("node"):
        to = {route.to for route in graph.of_kind("route", parent=node.id)}
        assert to - {""} == {other.label for other in graph.of_kind("node") if other is not node}


def test_a_vertex_says_what_it_is() -> None:
    graph = build(recording(VXLAN))
    assert graph.title == "lab dev"
    assert graph.about[:2] == ("flannel vxlan", "kube-proxy iptables")
    assert graph.by_id["worker1/flannel.1"].details == ("VXLAN 1, udp 8472, mtu 1450", "10.244.1.0/32")
    single = graph.by_id["service/hoplab-verify/single"]
    assert single.details == ("hoplab-verify", "NodePort", "10.101.69.124:80", "node port 30080")
    assert graph.by_id["service/hoplab-verify/nobody"].details[-1] == "no endpoints"
    assert graph.by_id["host/192.168.77.1"].details == ("gateway", "API server")
    assert labels(graph, "bridge") == ["cni0", "cni0"]


def test_a_tunnel_that_one_node_does_not_know_is_missing() -> None:
    graph = build(recording("broken/an-fdb-entry-is-gone"))
    assert [edge.state for edge in graph.edges_of("tunnel")] == [MISSING]


def test_programs_of_ebpf_take_the_place_of_routes_to_pods() -> None:
    lab = recording(CILIUM)
    graph = build(lab)
    ends = {pod.host_end.name for pod in lab.pods_on(lab.nodes[0]) if pod.host_end}
    taken = {edge.source for edge in graph.edges_of("routed") if edge.label == "cil_from_container"}
    assert {f"worker1/{end}" for end in ends} == {source for source in taken if source.startswith("worker1/")}
    assert set(labels(graph, "veth", "worker1")) == ends
    assert graph.by_id["worker1/cilium_host"].details == ("veth, mtu 1500", "10.244.1.181/32")
    assert graph.by_id["worker1/cilium_vxlan"].details == ("VXLAN, mtu 1500",)
    assert {route.to for route in graph.of_kind("route", parent="worker1")} == {"", "worker2"}


def test_a_tunnel_whose_other_end_no_map_knows_is_missing() -> None:
    lab = on_node(
        "cilium_ipcache", lambda text: text.replace("192.168.77.21", "192.168.77.99"), recording(CILIUM), "worker1"
    )
    assert [edge.state for edge in build(lab).edges_of("tunnel")] == [MISSING]


def test_a_missing_route_is_a_gap_that_names_the_range_and_the_node() -> None:
    graph = build(recording("broken/the-route-to-the-other-nodes-pods-is-gone"))
    gaps = [route for route in graph.of_kind("route") if route.state == MISSING]
    assert [(gap.parent, gap.label, gap.details, gap.to) for gap in gaps] == [
        ("worker2", "10.244.1.0/24", ("no route",), "worker1")
    ]
    graph = build(recording("broken/the-default-route-is-gone"))
    assert [gap.label for gap in graph.of_kind("route", parent="worker2") if gap.state == MISSING] == ["default"]


def test_a_pod_that_is_unplugged_has_no_port() -> None:
    graph = build(recording("broken/a-host-end-left-the-bridge"))
    assert "worker2/veth545521a3" not in {edge.source for edge in graph.edges_of("port")}
    assert "worker2/veth545521a3" in {edge.target for edge in graph.edges_of("pair")}
    graph = build(recording("broken/a-pod-has-another-address-than-kubernetes-knows"))
    assert graph.by_id["pod/hoplab-verify/echo-lm2p5"].state == MISSING


def test_a_closed_bgp_session_is_down() -> None:
    graph = build(recording("broken/calico-bgp/a-bgp-session-is-closed-by-hand"))
    assert [edge.state for edge in graph.edges_of("bgp")] == [DOWN]


def test_a_node_that_is_not_ready_says_why() -> None:
    node = build(recording("broken/a-node-is-not-ready")).by_id["worker2"]
    assert (node.state, node.tip) == (DOWN, "not Ready: broken by hand")


def test_facts_that_a_recording_lacks_are_notes() -> None:
    lab = recording(VXLAN)
    assert build(lab).notes == ("Ingresses are not in this recording",)
    graph = build(without(lab, "endpoints", "services", "ingresses"))
    assert graph.of_kind("service") == ()
    assert graph.notes == (
        "services was not looked at on api",
        "endpoints was not looked at on api",
        "Ingresses are not in this recording",
    )
    graph = build(without(lab, "fdb", node="worker1"))
    assert "fdb was not looked at on worker1" in graph.notes
    assert [edge.state for edge in graph.edges_of("tunnel")] == [MISSING]


def test_a_recording_without_interfaces_is_an_error() -> None:
    with pytest.raises(FactError, match="links was not looked at on worker1") as caught:
        build(without(recording(VXLAN), "links", node="worker1"))
    assert caught.value.remedy == "record the lab again"


def test_a_node_that_could_not_be_looked_at_has_its_pods_and_the_reason() -> None:
    graph = build(without_nodes(recording(VXLAN), "worker2"))
    assert (graph.by_id["worker2"].state, graph.by_id["worker2"].tip) == (DOWN, refused("worker2"))
    assert refused("worker2") in graph.notes
    first = build(without_nodes(recording(VXLAN), "worker1"))
    assert [node.label for node in first.of_kind("node")] == ["worker1", "worker2"]
    assert "single-659bfc6785-8hptb" in labels(graph, "pod", "worker2")
    assert labels(graph, "veth", "worker2") == []


def test_a_lab_without_an_api_still_has_interfaces_and_routes() -> None:
    graph = build(without_api(recording(VXLAN)))
    assert labels(graph, "pod") == [] and len(labels(graph, "veth")) == 11
    assert NO_API in graph.notes


def test_a_lab_of_which_nothing_was_seen_is_an_error() -> None:
    with pytest.raises(LabError) as caught:
        build(without_nodes(recording(VXLAN), "worker1", "worker2"))
    assert caught.value.message == f"there is nothing to draw: {refused('worker1')}; {refused('worker2')}"
    assert caught.value.remedy == "./lab status shows the machines of a lab"


def test_an_ingress_leads_to_its_services() -> None:
    text = """{"items": [{"metadata": {"namespace": "hoplab-verify", "name": "apps"}, "spec": {
        "tls": [{"hosts": ["app1.yash.com"], "secretName": "tls"}],
        "defaultBackend": {"service": {"name": "echo"}},
        "rules": [{"host": "app1.yash.com", "http": {"paths": [
            {"path": "/", "backend": {"service": {"name": "app1-service"}}},
            {"path": "/x", "backend": {"resource": {"name": "bucket"}}}]}}]}}]}"""
    assert API_INGRESSES.parse(text)[0].backends == (("echo", ""), ("app1-service", "/"))
    lab = recording(VXLAN)
    graph = build(replace(lab, api=Facts("api", {**lab.api.outputs, "ingresses": Output(0, text)})))
    ingress = graph.by_id["ingress/hoplab-verify/apps"]
    assert ingress.details == ("hoplab-verify", "https://app1.yash.com")
    assert [edge.target for edge in graph.edges_of("backend")] == [
        "service/hoplab-verify/echo",
        "service/hoplab-verify/app1-service",
    ]
    assert graph.notes == ()
