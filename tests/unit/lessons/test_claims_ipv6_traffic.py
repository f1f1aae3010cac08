"""The lessons of chapter 9 that send packets, in a small world that talks by IPv6, then with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hoplab.observe import capture
from hoplab.verify import observations
from tests.support.edited.ipv6 import CILIUM, CLUSTER_IP, LIVE
from tests.support.imaginary.ipv6 import FAULTS, PATIENCE, World
from tests.support.lesson_functions import failures


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], dict[str, str]]:
    monkeypatch.setattr(observations, "SETTLE_DEADLINE", PATIENCE)

    def check(world: World) -> dict[str, str]:
        monkeypatch.setattr(capture, "read", world.read)
        return failures(LIVE, world.lab, world.session())

    return check


def test_all_hold_in_a_healthy_world(checked: Callable[[World], dict[str, str]]) -> None:
    assert checked(World()) == {}
    assert checked(World(reaches_itself=True)) == {}
    assert set(checked(World(reaches_itself=True, keeps_clients=False))) == {CLUSTER_IP}  # seen as another node


def test_a_socket_that_was_given_its_own_address_keeps_it(checked: Callable[[World], dict[str, str]]) -> None:
    assert CLUSTER_IP not in checked(World(lab=CILIUM, reaches_itself=True))
    assert CLUSTER_IP in checked(World(lab=CILIUM, reaches_itself=True, keeps_clients=False))


@pytest.mark.parametrize(("switch", "value", "caught_by", "says"), FAULTS)
def test_one_fault_fails_its_lessons(
    switch: str, value: object, caught_by: tuple[str, ...], says: str, checked: Callable[[World], dict[str, str]]
) -> None:
    world = World()
    setattr(world, switch, value)
    found = checked(world)
    assert set(found) == set(caught_by), found
    assert says in found[caught_by[0]]
