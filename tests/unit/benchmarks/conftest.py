"""What tests of benchmarks share: a lab's folder, and a lab whose verbs are a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.labs import BenchLab
from hoplab.core.paths import LabPaths


@pytest.fixture
def paths(tmp_path: Path) -> LabPaths:
    return LabPaths("bench", tmp_path)


@pytest.fixture
def fake(paths: LabPaths) -> Callable[[str], BenchLab]:
    """A lab whose ``./lab`` is the given shell script; it finds the verb in $1."""

    def make(script: str) -> BenchLab:
        program = paths.project / "lab"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return BenchLab(paths, paths.project / "logs")

    return make
