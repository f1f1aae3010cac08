"""Causes and consequences among failed claims: dependencies, what failures name, order."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hoplab.verify.causes import Basis, Cause, basis, find, headline, problems
from hoplab.verify.places import Places

PLACES = Places(
    nodes=frozenset({"worker1", "worker2"}),
    pods={"shop/web-1": "worker1", "shop/web-2": "worker1"},
    services={"shop/web": "shop/web", "10.96.0.7": "shop/web", "shop/cart": "shop/cart"},
)


def graph(**rests_on: tuple[str, ...]) -> Mapping[str, Basis]:
    names = dict.fromkeys((*rests_on, *(upper for found in rests_on.values() for upper in found)))
    return {name: basis([pytest.mark.rests_on(*rests_on.get(name, ())).mark]) for name in names}


WEB = graph(names=("service",), service=("route",), route=("link",))


def found(failed: Mapping[str, str], rests_on: Mapping[str, Basis] = WEB) -> list[tuple[str, tuple[str, ...]]]:
    """The causes with their consequences."""
    return [(cause.name, cause.consequences) for cause in find(failed, rests_on, PLACES)]


def test_a_claim_fails_because_of_what_it_rests_on_also_by_way_of_others() -> None:
    failed = {"test_names": "no answer", "test_service": "leads to nothing", "test_link": "eth0 is down"}
    assert found(failed) == [("test_link", ("test_service", "test_names"))]  # first those that rest on fewest others


def test_without_a_failed_claim_below_it_a_claim_is_a_cause() -> None:
    assert found({"test_names": "no answer"}) == [("test_names", ())]
    assert found({}) == []


def test_a_lesson_without_markers_is_a_cause_of_its_own_and_what_explains_most_comes_first() -> None:
    failed = {"test_mine": "the kubelet stands still", "test_route": "no route", "test_service": "leads to nothing"}
    assert found(failed) == [("test_route", ("test_service",)), ("test_mine", ())]


def test_failures_on_different_nodes_are_separate_causes() -> None:
    failed = {"test_link": "eth0 of worker1 is down", "test_route": "worker2 has no route"}
    assert found(failed) == [("test_link", ()), ("test_route", ())]
    assert found({**failed, "test_route": "worker1 has no route"}) == [("test_link", ("test_route",))]
    assert found({**failed, "test_route": "shop/web-1 has no route"}) == [("test_link", ("test_route",))]


def test_failures_of_different_pods_or_services_are_separate_causes() -> None:
    pods = {"test_link": "the link of shop/web-1 is down", "test_route": "shop/web-2 has no route"}
    assert [name for name, _ in found(pods)] == ["test_link", "test_route"]
    services = {"test_route": "worker1 lacks 10.96.0.7", "test_service": "shop/cart:http (10.96.0.9:80/tcp) is lost"}
    assert [name for name, _ in found(services)] == ["test_route", "test_service"]
    services["test_service"] = "shop/web:http (10.96.0.7:80/tcp) is lost"
    assert found(services) == [("test_route", ("test_service",))]


def test_a_parametrized_lesson_is_of_its_node() -> None:
    failed = {"test_link[worker1]": "it is down", "test_link[worker2]": "it is down", "test_route": "worker2 has none"}
    assert found(failed) == [("test_link[worker2]", ("test_route",)), ("test_link[worker1]", ())]


@pytest.mark.parametrize("marks", [{"anywhere": True}, {}])
def test_what_a_node_sees_of_another_one_counts_anywhere(marks: dict[str, bool]) -> None:
    packets = not marks  # a lesson that sends them
    below = basis([pytest.mark.rests_on("link", **marks).mark], sends_packets=packets)
    failed = {"test_link": "eth0 of worker1 is down", "test_route": "worker2 has no route"}
    assert found(failed, {"link": Basis(), "route": below}) == [("test_link", ("test_route",))]


def test_anywhere_reaches_through_claims_in_between() -> None:
    known = {
        "link": Basis(),
        "route": basis([pytest.mark.rests_on("link").mark, pytest.mark.rests_on("link", anywhere=True).mark]),
        "service": basis([pytest.mark.rests_on("route").mark]),
    }
    failed = {"test_link": "eth0 of worker1 is down", "test_service": "worker2 leads to nothing"}
    assert found(failed, known) == [("test_link", ("test_service",))]


def test_a_claim_of_another_place_than_the_cause_of_its_cause_is_a_consequence_too() -> None:
    failed = {
        "test_link": "the link of shop/web-1 is down",
        "test_route": "worker1 has no route",
        "test_service": "shop/web-2 is lost",
    }
    assert found(failed) == [("test_link", ("test_route", "test_service"))]


def test_claims_that_rest_on_each_other_are_reported_both() -> None:
    circle = graph(one=("other",), other=("one",))
    assert [name for name, _ in found({"test_one": "x", "test_other": "y"}, circle)] == ["test_one", "test_other"]
    assert problems(circle) == ["one rests on itself", "other rests on itself"]


def test_a_dependency_that_names_no_lesson_is_a_problem() -> None:
    known = {"route": basis([pytest.mark.rests_on("link", "nonsense").mark]), "link": Basis()}
    assert problems(known) == ["route rests on nonsense, which is no lesson"]
    assert problems(WEB) == []


@pytest.mark.parametrize(
    ("consequences", "says"),
    [
        ([()], "1 cause"),
        ([("a",)], "1 cause, 1 claim fails because of it"),
        ([("a", "b"), ("c",)], "2 causes, 3 claims fail because of them"),
    ],
)
def test_the_headline(consequences: list[tuple[str, ...]], says: str) -> None:
    assert headline(Cause("x", "why", consequences=names) for names in consequences) == says
