"""Every lesson about the Gateway API, in a small world that is as it should be, then with one thing wrong."""

from __future__ import annotations

import pytest

from hoplab.verify import observations
from tests.support.imaginary import ingress
from tests.support.imaginary.gateway import FAULTS, PATIENCE, RECORDED, World, names
from tests.support.lesson_functions import failures


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "SETTLE_DEADLINE", PATIENCE)


def test_all_hold_in_a_healthy_world() -> None:
    assert failures(names(), RECORDED, World().session()) == {}


def test_all_hold_where_a_gateway_has_an_address_of_its_own() -> None:
    session = World(own="192.168.77.245").session()
    assert failures(names(), session.snapshot, session) == {}


@pytest.mark.parametrize(("switch", "value", "caught_by", "says"), FAULTS)
def test_a_fault_fails_exactly_its_lessons(switch: str, value: object, caught_by: tuple[str, ...], says: str) -> None:
    world = World()
    setattr(world, switch, value)
    found = failures(names(), RECORDED, world.session())
    assert set(found) == set(caught_by), found
    assert says in found[caught_by[0]]


def test_every_lesson_catches_some_fault() -> None:
    assert set(names()) == {name for _, _, caught_by, _ in FAULTS for name in caught_by}


def test_without_the_gateway_api_none_applies() -> None:
    assert failures(names(), ingress.RECORDED, None) == {}
