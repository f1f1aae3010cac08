"""Lessons on labs of which a part could not be looked at: none fails for it, and none passes without what it needs."""

from __future__ import annotations

import pytest

from tests.support.hurt import NO_API, outcomes, refused, with_output, without_api, without_nodes
from tests.support.recordings import recording

BETWEEN_NODES = "a_node_routes_every_other_range_to_its_node"
OF_ONE_NODE = "a_node_routes_its_own_range_to_its_pods"


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("flannel-vxlan", "worker2"),
        ("flannel-vxlan-dual", "worker1"),
        ("flannel-wireguard", "worker1"),
        ("calico-bgp", "worker2"),
        ("calico-vxlan", "worker1"),
    ],
)
def test_a_node_that_does_not_answer_fails_no_lesson(name: str, lost: str) -> None:
    found = outcomes(without_nodes(recording(name), lost))
    assert found.failed == {}
    assert OF_ONE_NODE in found.passed and lost not in found.passed[OF_ONE_NODE]
    assert set(found.unchecked.values()) == {refused(lost)}
    assert BETWEEN_NODES in found.unchecked
    assert len(found.passed) > len(found.unchecked)


def test_an_api_that_does_not_answer_fails_no_lesson() -> None:
    found = outcomes(without_api(recording("flannel-vxlan")))
    assert found.failed == {}
    assert set(found.unchecked.values()) == {NO_API}
    alone = {"the_tables_are_asked_in_order", "no_route_means_unreachable", "kinds_of_routes"}
    assert alone - {"kinds_of_routes"} <= set(found.passed) and OF_ONE_NODE in found.unchecked


def test_without_any_node_no_lesson_about_nodes_passes() -> None:
    lab = recording("flannel-vxlan")
    found = outcomes(without_nodes(lab, *lab.setting.nodes))
    assert found.failed == {}
    assert {"nodes_forward", OF_ONE_NODE, BETWEEN_NODES} <= set(found.unchecked)
    assert set(found.unchecked.values()) <= {refused(node) for node in lab.setting.nodes}


def test_more_facts_of_a_node_do_not_disturb() -> None:
    lab = with_output(recording("flannel-vxlan"), "worker1", units="unit kubelet failed\n", disks="")
    assert outcomes(lab).failed == {}
