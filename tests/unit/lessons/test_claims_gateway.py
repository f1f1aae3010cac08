"""Every lesson about the Gateway API, in a small world that is as it should be, then with one thing wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hoplab.verify import observations
from hoplab.verify.claims import ClaimFailed
from tests.support.imaginary import ingress
from tests.support.imaginary.gateway import FABRICS_FAULTS, FAULTS, PATIENCE, RECORDED, Fabric, World, names
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


def test_all_hold_with_nginx_gateway_fabric() -> None:
    session = Fabric().session()
    assert failures(names(), session.snapshot, session) == {}


@pytest.mark.parametrize(("switch", "value", "caught_by", "says"), FABRICS_FAULTS)
def test_a_fault_of_nginx_gateway_fabric(switch: str, value: object, caught_by: tuple[str, ...], says: str) -> None:
    world = Fabric()
    setattr(world, switch, value)
    session = world.session()
    found = failures(names(), session.snapshot, session)
    assert set(found) == set(caught_by), found
    assert says in found[caught_by[0]]


def test_a_lab_without_either_has_nothing_that_serves_gateways() -> None:
    session = replace(World().session(), snapshot=ingress.RECORDED)
    with pytest.raises(ClaimFailed, match="nothing serves the Gateway API"):
        _ = session.gateway_pods


def test_every_lesson_catches_some_fault() -> None:
    assert set(names()) == {name for _, _, caught_by, _ in FAULTS for name in caught_by}


def test_without_the_gateway_api_none_applies() -> None:
    assert failures(names(), ingress.RECORDED, None) == {}
