"""What is seen of an encrypted packet, in the small world of test_claims_traffic with WireGuard between its nodes."""

from __future__ import annotations

import pytest

from hoplab.observe import capture
from tests.support.imaginary.wireguard import FAULTS, WRAPPED, World
from tests.support.lesson_functions import failures


def test_it_holds_in_a_healthy_world(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(capture, "read", world.read)
    assert failures([WRAPPED], world.lab, world.session()) == {}


@pytest.mark.parametrize(("switch", "value", "caught_by", "says"), FAULTS)
def test_one_fault_fails_it(
    switch: str, value: object, caught_by: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    setattr(world, switch, value)
    monkeypatch.setattr(capture, "read", world.read)
    found = failures([WRAPPED], world.lab, world.session())
    assert set(found) == set(caught_by), found
    assert says in found[WRAPPED]
