"""`lab test`: which stages run, when it stops, and what its last line counts."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from hoplab.devtools import testing
from hoplab.devtools.testing import Stage, counted, run_stages


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs in place of the virtual environment's: `say TEXT`, `fail TEXT`, and a pytest that says its argument."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, code in (("say", 0), ("fail", 3), ("pytest", 0), ("pytest-failing", 1)):
        program = folder / name
        program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit {code}\n")
        program.chmod(0o755)
    monkeypatch.setattr(testing, "BIN", folder)
    return tmp_path


def lines_of(stages: list[Stage], project: Path) -> tuple[int, list[str]]:
    lines: list[str] = []
    code = run_stages(stages, project, lambda text: lines.extend(text.split("\n")))
    return code, lines


def test_all_stages_run_and_counts_add_up(programs: Path) -> None:
    stages = [
        Stage("lint", ("say", "clean")),
        Stage("unit", ("pytest", "dots", "== 7 passed, 1 skipped in 0.1s ==")),
        Stage("system", ("pytest", "== 2 passed in 600s (0:10:00) ==")),
    ]
    assert lines_of(stages, programs) == (
        0,
        [
            "=== lint",
            "clean",
            "=== lint: ok in 0s",
            "=== unit",
            "dots",
            "== 7 passed, 1 skipped in 0.1s ==",
            "=== unit: ok in 0s",
            "=== system",
            "== 2 passed in 600s (0:10:00) ==",
            "=== system: ok in 0s",
            "",
            "lint: ok in 0s",
            "unit: ok in 0s",
            "system: ok in 0s",
            "9 passed, 0 failed, 1 skipped",
        ],
    )


def test_the_first_failing_stage_ends_it(programs: Path) -> None:
    code, lines = lines_of([Stage("lint", ("fail", "E501")), Stage("unit", ("say", "never"))], programs)
    assert code == 1
    assert "never" not in lines
    assert lines[-3:] == ["lint: failed in 0s", "stopped at: lint", "0 passed, 1 failed, 0 skipped"]


def test_stages_side_by_side_all_end_and_print_in_their_order(programs: Path) -> None:
    """Each of the first two waits for the other's file, so they end only when both run at the same time."""
    wait = "touch $1; until [ -e $2 ]; do :; done; echo saw $2; exit $3"
    for name in ("meet", "late"):
        (programs / "bin" / name).write_text(f"#!/bin/sh\n{wait}\n")
        (programs / "bin" / name).chmod(0o755)
    stages = [
        Stage("types", ("meet", "one", "two", "0"), beside=True),
        Stage("lint", ("late", "two", "one", "1"), beside=True),
        Stage("layers", ("fail", "no"), beside=True),
        Stage("unit", ("say", "never")),
    ]
    code, lines = lines_of(stages, programs)
    assert code == 1
    assert lines[:7] == [
        "=== types, lint, layers",
        "saw two",
        "=== types: ok in 0s",
        "saw one",
        "=== lint: failed in 0s",
        "no",
        "=== layers: failed in 0s",
    ]
    assert "never" not in lines
    assert lines[-2:] == ["stopped at: lint, layers", "0 passed, 1 failed, 0 skipped"]


def test_what_pytest_saw_is_said_again_at_the_end(programs: Path) -> None:
    (programs / "bin" / "pytest").write_text((programs / "bin" / "pytest-failing").read_text())
    told = [
        "_____ test_pages _____",
        "    assert drifts == []",
        "E   AssertionError: docs/x.md:1",
        "E     -one",
        "== 1 failed ==",
    ]
    _, lines = lines_of([Stage("system", ("pytest", *told))], programs)
    assert lines[-6:] == [
        "system: failed in 0s",
        "_____ test_pages _____",
        "E   AssertionError: docs/x.md:1",
        "E     -one",
        "stopped at: system",
        "0 passed, 1 failed, 0 skipped",
    ]


def test_the_first_failures_are_said_again(programs: Path) -> None:
    """Tests of one lab follow each other: the first failure is the cause of many."""
    (programs / "bin" / "pytest").write_text((programs / "bin" / "pytest-failing").read_text())
    told = [line for number in range(70) for line in (f"_____ test_{number} _____", "E   no space left")]
    _, lines = lines_of([Stage("system", ("pytest", *told, "== 70 failed =="))], programs)
    again = lines[lines.index("system: failed in 0s") + 1 : -2]
    assert again == told[: testing.AGAIN_LINES]
    assert lines[-1] == "0 passed, 70 failed, 0 skipped"


def test_a_stage_without_files_is_named_and_left_out(programs: Path) -> None:
    code, lines = lines_of([Stage("roles", ("fail",), only_with="roles/*.yml")], programs)
    assert code == 0
    assert "roles: nothing to do, there is no roles/*.yml" in lines


def test_counted() -> None:
    assert counted("== 1 failed, 7 passed, 2 errors in 0.1s ==") == Counter(passed=7, failed=3, skipped=0)
    assert counted("1 passed, 1 error in 2s") == Counter(passed=1, failed=1, skipped=0)
    assert counted("no tests ran in 0.01s") == Counter(passed=0, failed=0, skipped=0)
    assert counted("1 passed, 3 deselected in 2s") == Counter(passed=1, failed=0, skipped=0)


def test_counts_of_parallel_tests_are_in_the_last_line(tmp_path: Path) -> None:
    """pytest-xdist prints its workers first, then what pytest prints; one worker here, as many as processors there."""
    text = "def test_one(): pass\ndef test_two(): assert 1 == 2\ndef test_three(): __import__('pytest').skip('no')\n"
    (tmp_path / "test_it.py").write_text(text)
    one_worker = [word if word != "auto" else "1" for word in testing.UNIT]
    code, lines = lines_of([Stage("unit", ("pytest", "-p", "no:cacheprovider", *one_worker, "test_it.py"))], tmp_path)
    assert code == 1
    assert "E   assert 1 == 2" in [line.rstrip() for line in lines[-4:]]
    assert lines[-1] == "1 passed, 1 failed, 1 skipped"


def test_fast_leaves_out_machines_and_mutants(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    commands: list[tuple[str, ...]] = []

    def run_stages(stages: list[Stage], _project: Path) -> None:
        ran.extend(stage.title for stage in stages)
        commands.extend(stage.command for stage in stages if stage.title == "pytest: unit tests")

    monkeypatch.setattr(testing, "run_stages", run_stages)
    testing.run(fast=True)
    assert not {"pytest: real machines", "pytest: parsers of facts", "ansible-lint: roles"} & set(ran)
    assert "pytest: unit tests" in ran
    testing.run()
    assert ran[-1] == "pytest: real machines"
    tests = ("pytest", *testing.UNIT, "tests/unit")
    left_to_the_other_stage = ("--ignore=tests/unit/observe/facts",)
    assert commands == [(*tests, "-m", "not mutation and not thorough"), (*tests, *left_to_the_other_stage)]
    ran.clear()
    testing.run(matrix=True)
    assert ran == ["pytest: every combination"]


def test_all_runs_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(testing, "run_stages", lambda stages, _project: commands.append(stages[-1].command))
    testing.run()
    testing.run(every=True)
    assert commands[1] == (*commands[0], "--all")


def test_every_program_is_in_the_virtual_environment() -> None:
    assert [stage for stage in testing.STAGES if not (Path(sys.executable).parent / stage.command[0]).exists()] == []
