"""Snapshots without some nodes or without the API: what is known of the rest, and why the rest is unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hoplab.core.errors import UnavailableError
from hoplab.expectations import cni
from hoplab.expectations.parts import known_parts
from hoplab.observe.facts.api_pods import API_PODS
from hoplab.observe.facts.routes import ROUTES
from hoplab.observe.outage import API, ETCD, WORKLOAD, Outage, in_order
from hoplab.observe.recording_format import load, save
from tests.support.hurt import NO_API, refused, without_api, without_nodes
from tests.support.recordings import recording

WHOLE = recording("flannel-vxlan")
LESS = without_nodes(WHOLE, "worker2")
REFUSED = refused("worker2")


def test_a_node_that_does_not_answer_stays_a_node_of_the_cluster() -> None:
    assert [node.name for node in LESS.nodes] == ["worker1"]
    assert [node.name for node in LESS.cluster_nodes] == ["worker1", "worker2"]
    assert LESS.lost_nodes == ("worker2",)
    lost = LESS.cluster_nodes[1]
    assert lost.address == WHOLE.nodes[1].address
    with pytest.raises(UnavailableError, match=REFUSED):
        _ = lost[ROUTES]


def test_expectations_of_a_node_include_the_ones_that_do_not_answer() -> None:
    assert cni.expectations(LESS)["worker1"] == cni.expectations(WHOLE)["worker1"]


def test_pods_of_a_node_that_does_not_answer_are_not_expected() -> None:
    assert {pod.node for pod in LESS.own_address_pods} == {"worker1"}
    assert len(LESS.pods) == len(LESS.own_address_pods) < len(WHOLE.pods)
    assert LESS.api[API_PODS] == WHOLE.api[API_PODS]


def test_without_any_node_nothing_is_known_of_nodes_and_pods() -> None:
    bare = without_nodes(WHOLE, "worker1", "worker2")
    for look in (lambda: bare.nodes, lambda: bare.own_address_pods, lambda: bare.pods, lambda: bare.places):
        with pytest.raises(UnavailableError, match="worker1 can't be reached"):
            look()


def test_without_the_api_machines_are_nodes_at_their_planned_addresses() -> None:
    lab = without_api(WHOLE)
    assert [node.name for node in lab.nodes] == ["worker1", "worker2"]
    assert lab.nodes[0].address == lab.setting.nodes["worker1"] and lab.nodes[0][ROUTES]
    for look in (lambda: lab.nodes[0].pod_cidr, lambda: lab.nodes[0].api, lambda: lab.pods, lambda: lab.api[API_PODS]):
        with pytest.raises(UnavailableError, match=NO_API):
            look()


@pytest.mark.parametrize("lab", [LESS, without_api(WHOLE)], ids=["node", "api"])
def test_a_recording_says_what_is_missing(lab: object, tmp_path: Path) -> None:
    assert isinstance(lab, type(WHOLE))
    save(lab, tmp_path / "lab.json", known_parts())
    again = load(tmp_path / "lab.json")
    assert again == lab and again.outages == lab.outages
    assert again.api.unavailable == lab.api.unavailable
    assert [node.name for node in again.nodes] == [node.name for node in lab.nodes]


def test_a_whole_recording_has_no_more_keys_than_before(tmp_path: Path) -> None:
    save(WHOLE, tmp_path / "lab.json", known_parts())
    assert '"outages"' not in (tmp_path / "lab.json").read_text()
    assert WHOLE.outages == () and replace(WHOLE, outages=()).lost_nodes == ()


def test_outages_are_in_the_order_of_what_depends_on_what() -> None:
    places = (WORKLOAD, "kubelet of worker1", API, "worker2", ETCD, "worker1", "worker2")
    found = in_order([Outage(place, f"{place} {number}") for number, place in enumerate(places)], WHOLE.setting.nodes)
    assert [outage.place for outage in found] == ["worker1", "worker2", ETCD, API, "kubelet of worker1", WORKLOAD]
    assert found[1].problem == "worker2 3"
