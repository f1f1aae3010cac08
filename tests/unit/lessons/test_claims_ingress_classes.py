"""The lesson about classes of Ingresses, which recordings are too old for: on one that was given classes."""

from __future__ import annotations

import pytest

from hoplab.observe.snapshot import Snapshot
from hoplab.verify import requirements
from tests.support.edited.ingress_classes import FAULTS, HEALTHY_ONES, LESSON
from tests.support.edits import HEALTHY, Fault
from tests.support.lesson_functions import applies, failures


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fails_exactly_its_lesson(fault: Fault) -> None:
    fault.fails_its_lessons()


@pytest.mark.parametrize("lab", HEALTHY_ONES)
def test_it_holds_on_a_healthy_lab(lab: Snapshot) -> None:
    assert applies(LESSON, lab) and failures([LESSON], lab) == {}


def test_a_recording_that_is_older_than_a_fact_has_no_such_lesson() -> None:
    assert requirements.skip_reason(HEALTHY, facts=("ingress_classes",)) == (
        "needs the fact ingress_classes, which is younger than this recording"
    )
    assert (
        requirements.skip_reason(HEALTHY, facts=("nodes",))
        == requirements.skip_reason(HEALTHY, facts=("routes",))
        == ""
    )
