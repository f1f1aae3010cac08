"""Every lesson that sends packets, in a small world that answers as a healthy lab does, then with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hoplab.observe import capture
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import observations
from tests.support.imaginary.traffic import NFTABLES, PATIENCE, RECORDED, World
from tests.support.imaginary.traffic_faults import BY_RULES, FAULTS, names
from tests.support.lesson_functions import applies, failures

pytestmark = pytest.mark.thorough


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "SETTLE_DEADLINE", PATIENCE)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Callable[[World], dict[str, str]]:
    """The lessons that fail in a world, and why; its captures are told, not made."""

    def check(world: World) -> dict[str, str]:
        monkeypatch.setattr(capture, "read", world.read)
        return failures(names(), world.lab, world.session())

    return check


@pytest.mark.parametrize("lab", [RECORDED, NFTABLES], ids=["iptables", "nftables"])
def test_all_hold_in_a_healthy_world(lab: Snapshot, checked: Callable[[World], dict[str, str]]) -> None:
    assert checked(World(lab=lab)) == {}


@pytest.mark.parametrize(
    ("lab", "switch", "value", "caught_by", "says"),
    [(RECORDED, *fault) for fault in FAULTS if applies(fault[2][0], RECORDED)]
    + [(NFTABLES, *fault) for fault in FAULTS if fault[0] in BY_RULES or not applies(fault[2][0], RECORDED)],
)
def test_a_fault_fails_exactly_its_lessons(
    lab: Snapshot,
    switch: str,
    value: object,
    caught_by: tuple[str, ...],
    says: str,
    checked: Callable[[World], dict[str, str]],
) -> None:
    world = World(lab=lab)
    setattr(world, switch, value)
    found = checked(world)
    assert set(found) == {name for name in caught_by if applies(name, lab)}
    assert says in found[caught_by[0]]


def test_every_lesson_catches_some_fault() -> None:
    assert set(names()) == {name for _, _, caught_by, _ in FAULTS for name in caught_by}
