"""The faults of a real lab, without one: each lesson has a negative control."""

from __future__ import annotations

from tests.support.lesson_functions import read_only, with_traffic
from tests.system.faults import FAULTS
from tests.system.faults.without import NOT_ON_A_LAB, POLICIES, RECORDINGS_ONLY, STANDS_STILL


def test_every_lesson_catches_some_fault() -> None:
    caught = {name for fault in FAULTS for name in fault.lessons}
    assert caught | set(STANDS_STILL) | POLICIES | RECORDINGS_ONLY | NOT_ON_A_LAB == {*read_only(), *with_traffic()}
