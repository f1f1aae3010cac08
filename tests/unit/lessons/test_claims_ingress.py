"""Every lesson about ingress, in a small world with a controller that does as it should, then with one thing wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hoplab.verify import observations
from tests.support.imaginary.ingress import ALONE, DIRECT, FAULTS, PATIENCE, RECORDED, WITHOUT, World, names
from tests.support.lesson_functions import failures


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "SETTLE_DEADLINE", PATIENCE)


def test_all_hold_in_a_healthy_world() -> None:
    assert failures(names(), RECORDED, World().session()) == {}


@pytest.mark.parametrize(("switch", "value", "caught_by", "says"), FAULTS)
def test_a_fault_fails_exactly_its_lessons(switch: str, value: object, caught_by: tuple[str, ...], says: str) -> None:
    world = World()
    setattr(world, switch, value)
    found = failures(names(), RECORDED, world.session())
    assert set(found) == set(caught_by), found
    assert says in found[caught_by[0]]


def test_every_lesson_catches_some_fault() -> None:
    assert set(names()) == {name for _, _, caught_by, _ in FAULTS for name in caught_by}


def test_a_connection_that_is_older_than_its_entry_counts_too() -> None:
    assert failures([DIRECT], RECORDED, World(remembered_from="pod").session()) == {}


def test_without_a_controller_the_others_do_not_apply() -> None:
    world = World(orphan_status=0)
    assert failures([ALONE], WITHOUT, replace(world.session(), snapshot=WITHOUT)) == {}
    assert failures([name for name in names() if name != ALONE], WITHOUT, None) == {}
