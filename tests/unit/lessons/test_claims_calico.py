"""Calico's lessons hold on healthy labs, one of each mode, and fail when just their subject is broken."""

from __future__ import annotations

import pytest

from hoplab.observe.snapshot import Snapshot
from tests.support import edits
from tests.support.edited.calico import BGP, FAULTS, LABS, MORE
from tests.support.edits import Fault
from tests.support.lesson_functions import applies, failures, read_only

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("lab", LABS.values(), ids=LABS)
def test_the_lessons_hold_on_a_healthy_lab(lab: Snapshot) -> None:
    assert failures(read_only(), lab) == {}


def test_every_lesson_of_calico_catches_some_fault() -> None:
    known = {name for fault in FAULTS for name in fault.caught_by}
    assert {name for name in read_only() if applies(name, BGP) and not applies(name, edits.HEALTHY)} <= known


@pytest.mark.parametrize("fault", (*FAULTS, *MORE), ids=lambda fault: fault.name)
def test_a_fault_fails_exactly_its_lessons(fault: Fault) -> None:
    found = failures(read_only(), fault.broken())
    assert fault.says in found.get(fault.caught_by[0], ""), found
    if fault.exactly:
        assert set(found) == set(fault.caught_by), found
