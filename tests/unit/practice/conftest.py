"""What tests of practice share: this machine in place of a node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hoplab.practice.runner import ExerciseRunner
from tests.support.machine import Machine, lacking


@pytest.fixture
def machine() -> Iterator[Machine]:
    if why := lacking():
        pytest.skip(why)
    machine = Machine()
    yield machine
    machine.close()


@pytest.fixture
def worker(machine: Machine) -> ExerciseRunner:
    return ExerciseRunner({"worker1": machine})
