"""What tests of labs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoplab.lab.fleet_members import Fleet


@pytest.fixture
def course(tmp_path: Path) -> Fleet:
    """A fleet of the spec "course", with one worker each."""
    (tmp_path / "Pulumi.course.yaml").write_text("config:\n  lab:nodes: {workers: 1}\n")
    return Fleet("course", tmp_path)
