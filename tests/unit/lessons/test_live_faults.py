"""The faults of a real lab, without one: each lesson has a negative control."""

from __future__ import annotations

import pytest

from hoplab.verify.causes import ancestors
from tests.support.lesson_functions import lessons, read_only, with_traffic
from tests.system.faults import FAULTS, Fault
from tests.system.faults.without import GATEWAY_API, NOT_ON_A_LAB, POLICIES, RECORDINGS_ONLY, STANDS_STILL

TWO_CAUSES = {"a rule of iptables-legacy drops what pods send": {"one_iptables_lists_all_rules"}}


def test_every_lesson_catches_some_fault() -> None:
    caught = {name for fault in FAULTS for name in fault.lessons}
    without = RECORDINGS_ONLY | NOT_ON_A_LAB | GATEWAY_API
    assert caught | set(STANDS_STILL) | POLICIES | without == {*read_only(), *with_traffic()}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_fails_of_a_fault_rests_on_what_is_named_first(fault: Fault) -> None:
    graph = {name: lesson.basis for name, lesson in lessons().items()}
    first, _ = fault.named_first
    others = {name for name in fault.lessons if name != first and first not in ancestors(name, graph)}
    assert others == TWO_CAUSES.get(fault.name, set())
