"""The state of a lab that a benchmark has made, and a connection to its API that does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hoplab.core.paths import LabPaths
from hoplab.lab import state
from hoplab.lab.spec_file import plan_lab
from hoplab.spec.model import LabSpec


def lab_state(paths: LabPaths) -> None:
    plan = plan_lab(LabSpec("bench"), lab_id=paths.id, accel="tcg")
    made = state.lab_state(plan, libvirt_uri="", netns="", image="", image_bin=Path())
    state.save(replace(made, phases=(("cluster", 120.04),)), paths)


@contextmanager
def opened(_paths: LabPaths, _netns: str) -> Iterator[None]:
    yield None
