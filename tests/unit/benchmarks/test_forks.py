"""How memory of forks is read, and whose files the benchmark leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import forks
from benchmarks.labs import Report
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths

ROLLUP = """\
55d4c8a00000-7ffd3c9e0000 ---p 00000000 00:00 0                          [rollup]
Rss:             1064960 kB
Pss:              409600 kB
Pss_Dirty:        409000 kB
"""


def test_pss_is_read_in_mib(tmp_path: Path) -> None:
    (tmp_path / "smaps_rollup").write_text(ROLLUP)
    assert forks.pss_mib(tmp_path) == 400


def test_a_kernel_without_pss(tmp_path: Path) -> None:
    (tmp_path / "smaps_rollup").write_text("Rss: 1 kB\n")
    with pytest.raises(LabError, match="has no Pss"):
        forks.pss_mib(tmp_path)


def test_a_lab_without_a_namespace_has_no_machines(tmp_path: Path) -> None:
    assert forks.machines_of(LabPaths("none", tmp_path)) == []


def test_a_spec_of_somebody_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "LabPaths", lambda name: LabPaths(name, tmp_path))
    spec = tmp_path / "Pulumi.mine.yaml"
    spec.write_text("config: {}\n")
    report = Report("forks", tmp_path)
    with (
        pytest.raises(LabError, match=r"Pulumi\.mine\.yaml is a lab of somebody's"),
        forks.bench_fleet("mine", 1, report),
    ):
        pass
    assert spec.read_text() == "config: {}\n"
