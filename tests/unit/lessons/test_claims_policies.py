"""The lessons about NetworkPolicy, in a small world where policies are enforced, then with one thing wrong."""

from __future__ import annotations

import pytest

from hoplab.verify import observations
from tests.support.imaginary.policies import FAULTS, LESSONS, RECORDED, World
from tests.support.lesson_functions import failures, lessons, with_traffic


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there at the first look will never be."""
    monkeypatch.setattr(observations, "SETTLE_DEADLINE", 0.0)


def test_all_hold_in_a_healthy_world() -> None:
    for lesson in LESSONS:
        assert failures([lesson], RECORDED, World().session()) == {}


@pytest.mark.parametrize(("switch", "value", "caught_by", "says"), FAULTS)
def test_a_fault_fails_exactly_its_lessons(switch: str, value: object, caught_by: tuple[str, ...], says: str) -> None:
    found: dict[str, str] = {}
    for lesson in LESSONS:
        world = World()
        setattr(world, switch, value)
        found |= failures([lesson], RECORDED, world.session())
    assert set(found) == set(caught_by), found
    assert says in found[caught_by[0]]


def test_every_lesson_about_policies_is_among_them() -> None:
    assert {name for name in with_traffic() if "policies" in lessons()[name].function.__code__.co_filename} == {
        *LESSONS
    }
