"""The lessons about NetworkPolicy, in a small world where policies are enforced, then with one thing wrong."""

from __future__ import annotations

import pytest

from hoplab.verify import observations
from tests.support.imaginary import policies, queued_policies
from tests.support.imaginary.policies import LESSONS
from tests.support.lesson_functions import applies, failures, lessons, with_traffic


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there at the first look will never be."""
    monkeypatch.setattr(observations, "SETTLE_DEADLINE", 0.0)


WORLDS = {"Felix": policies, "kube-network-policies": queued_policies}
FAULTS = [(name, *fault) for name, place in WORLDS.items() for fault in place.FAULTS]


@pytest.mark.parametrize("name", WORLDS)
def test_all_hold_in_a_healthy_world(name: str) -> None:
    place = WORLDS[name]
    for lesson in LESSONS:
        assert applies(lesson, place.RECORDED)
        assert failures([lesson], place.RECORDED, place.World().session()) == {}


@pytest.mark.parametrize(("name", "switch", "value", "caught_by", "says"), FAULTS)
def test_a_fault_fails_exactly_its_lessons(
    name: str, switch: str, value: object, caught_by: tuple[str, ...], says: str
) -> None:
    found: dict[str, str] = {}
    for lesson in LESSONS:
        world = WORLDS[name].World()
        setattr(world, switch, value)
        found |= failures([lesson], world.recorded, world.session())
    assert set(found) == set(caught_by), found
    assert says in found[caught_by[0]]


def test_every_lesson_about_policies_is_among_them() -> None:
    files = {name: lessons()[name].function.__code__.co_filename for name in with_traffic()}
    assert {name for name, file in files.items() if file.endswith("policies.py")} == {*LESSONS}
