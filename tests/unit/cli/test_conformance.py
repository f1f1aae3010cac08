"""`./lab conformance` as a person types it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hoplab import cli
from hoplab.conformance import runner
from hoplab.conformance.ginkgo import SpecResult
from hoplab.conformance.report import Run
from hoplab.core.errors import ClusterError, FileError, StateError
from hoplab.core.paths import LabPaths
from hoplab.lab import state

PASSED = SpecResult("[sig-network] DNS should work", "passed", 1.0)
RUN = Run("lab dev", (PASSED,), {}, 1.0, Path("/lab/e2e.log"))
Asked = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Callable[[runner.Ended], Asked]:
    """Let the run end in some way; the list has what was asked for."""
    asked: Asked = []

    def play(ended: runner.Ended) -> Asked:
        def run(paths: LabPaths, _progress: object, **options: Any) -> runner.Ended:
            asked.append((paths.lab, options))
            return ended

        monkeypatch.setattr(runner, "run", run)
        monkeypatch.setattr(state, "load_summary", lambda _: None)
        monkeypatch.setattr(state, "spec_notice", lambda *_: "")
        return asked

    return play


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli.cli, ["conformance", *words])


def test_a_run_that_succeeds_prints_its_table(ends: Callable[[runner.Ended], Asked]) -> None:
    asked = ends(runner.Ended(RUN))
    result = invoke("--lab", "blue", "--focus", "DNS")
    assert result.exit_code == 0
    assert result.output.startswith("ok          1.0 s  DNS should work\n")
    invoke("--quick")
    assert asked == [("blue", {"focus": "DNS", "quick": False}), ("dev", {"focus": "", "quick": True})]


def test_a_failure_is_exit_code_1(ends: Callable[[runner.Ended], Asked]) -> None:
    ends(runner.Ended(replace(RUN, results=(replace(PASSED, outcome="failed", why="no answer"),))))
    assert invoke().exit_code == 1


def test_junit_is_written_also_for_a_failure(ends: Callable[[runner.Ended], Asked], tmp_path: Path) -> None:
    ends(runner.Ended(replace(RUN, results=(replace(PASSED, outcome="failed", why="no answer"),))))
    result = invoke("--junit", str(tmp_path / "junit.xml"))
    assert result.exit_code == 1 and f"wrote {tmp_path}/junit.xml" in result.output
    assert 'message="no answer"' in (tmp_path / "junit.xml").read_text()


def test_a_file_that_cannot_be_written_is_refused_first(ends: Callable[[runner.Ended], Asked], tmp_path: Path) -> None:
    asked = ends(runner.Ended(RUN))
    assert isinstance(invoke("--junit", str(tmp_path / "no" / "junit.xml")).exception, FileError)
    assert not asked


def test_focus_and_quick_exclude_each_other(ends: Callable[[runner.Ended], Asked]) -> None:
    ends(runner.Ended(RUN))
    result = invoke("--quick", "--focus", "DNS")
    assert result.exit_code == 2 and "--focus and --quick exclude each other" in result.output


def test_an_interruption_and_what_is_left_are_told_after_the_table(ends: Callable[[runner.Ended], Asked]) -> None:
    ends(runner.Ended(RUN, interrupted=True))
    result = invoke()
    assert result.exit_code != 0 and "DNS should work" in result.output
    ends(runner.Ended(RUN, interrupted=True, left=ClusterError("it stays")))
    result = invoke()
    assert isinstance(result.exception, ClusterError) and "DNS should work" in result.output


def test_without_a_lab_there_is_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(invoke("--lab", "absent").exception, StateError)
