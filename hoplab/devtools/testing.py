"""``lab test``: the stages of the project's own test, in order, each with its title, time and output.

Stages without tests run side by side. It stops after the first failed one and its neighbours, and repeats the failures
of pytest at the end of the output. The last line is the sum of pytest's counts in all stages:

    N passed, N failed, N skipped
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from hoplab.core.console import clock
from hoplab.core.paths import PROJECT

BIN = Path(sys.executable).parent
COUNTED = ("passed", "failed", "skipped")
NO_TESTS = 5  # pytest's exit code when it collected nothing
AGAIN = re.compile(
    r"E   |_{3,} (?!coverage).* _{3,}$"
)  # pytest's line of an error's message, and the title above a failure
AGAIN_LINES = 60  # the first ones: what fails later often follows from the first failure
PARSERS = ("tests/unit/observe/facts",)
SLOWEST = ("--durations=25", "--durations-min=5")  # lists the slowest tests
PARALLEL = ("-n", "auto", "--dist", "worksteal")  # a worker for each processor; neighbouring tests share fixtures
UNIT = ("--timeout-method=thread", *PARALLEL, *SLOWEST)


@dataclass(frozen=True)
class Stage:
    """One command; its first word is a program of the virtual environment."""

    title: str
    command: tuple[str, ...]
    beside: bool = False  # runs beside its neighbours that do, and its output is printed when it has ended
    slow: bool = False  # not with --fast
    matrix: bool = False  # only on request, as it takes hours
    only_with: str = ""  # a pattern: skipped as long as no file of the project matches
    fast: tuple[str, ...] = ()  # further arguments with --fast
    thorough: tuple[str, ...] = ()  # ... and without it
    every: tuple[str, ...] = ()  # further arguments with --all

    def with_arguments(self, *, fast: bool, every: bool) -> Stage:
        """Return the stage with its further arguments in its command."""
        more = (*(self.fast if fast else self.thorough), *(self.every if every else ()))
        return replace(self, command=(*self.command, *more))


STAGES = (
    Stage("ruff: lint", ("ruff", "check"), beside=True),
    Stage("ruff: format", ("ruff", "format", "--check"), beside=True),
    Stage("mypy: types", ("mypy",), beside=True),
    Stage("import-linter: layers", ("lint-imports",), beside=True),
    Stage(
        "ansible-lint: roles",
        ("ansible-lint", "--offline", "--nocolor", "--format=pep8", "-q", "roles", "playbooks"),
        beside=True,
        slow=True,  # the hook before a commit runs it where roles changed
        only_with="playbooks/*.yml",
    ),
    # A hanging unit test ends the run with every thread's stack, as no clean-up is needed. The parsers' own tests also
    # fail below a coverage limit (tool.coverage in pyproject.toml); for all tests the measurement would take more time
    # than the tests.
    Stage("pytest: parsers of facts", ("pytest", *UNIT, *PARSERS, "--cov"), slow=True),
    Stage(
        "pytest: unit tests",
        ("pytest", *UNIT, "tests/unit"),
        fast=("-m", "not mutation and not thorough"),
        thorough=tuple(f"--ignore={path}" for path in PARSERS),
    ),
    Stage(
        "pytest: real machines",
        ("pytest", "-v", "-s", *SLOWEST, "tests/system"),
        slow=True,
        only_with="tests/system/test_*.py",
        every=("--all",),
    ),
    Stage(
        "pytest: every combination",
        ("pytest", "-v", "-s", *SLOWEST, "tests/matrix"),
        slow=True,
        matrix=True,
        only_with="tests/matrix/test_*.py",
    ),
)


def run(*, fast: bool = False, matrix: bool = False, every: bool = False) -> int:
    """Run the stages and return the exit code.

    ``fast`` skips the stages with machines, ansible-lint, the coverage of the parsers, and mutation and thorough tests,
    which take most of the unit tests' time.
    ``matrix`` skips the stages that need no machines or only the usual lab. ``every`` runs on the usual lab
    what takes long there, too: every fault, every exercise, and the commands of the learners' pages.
    """
    stages = [stage for stage in STAGES if stage.matrix == matrix and not (fast and stage.slow)]
    return run_stages([stage.with_arguments(fast=fast, every=every) for stage in stages], PROJECT)


def run_stages(stages: Sequence[Stage], project: Path, say: Callable[[str], None] | None = None) -> int:
    """Run these stages in the project and print their output line by line; return 0 or 1."""
    say = say or _say
    total: Counter[str] = Counter()
    times = []
    failed: list[str] = []
    again: list[str] = []
    present = [stage for stage in stages if not stage.only_with or any(project.glob(stage.only_with))]
    for stage in stages:
        if stage not in present:
            times.append(f"{stage.title}: nothing to do, there is no {stage.only_with}")
    for beside, group in groupby(present, key=lambda stage: stage.beside):
        for stage, ended in _beside(list(group), project, say) if beside else _in_order(group, project, say):
            total += ended.counts
            taken = f"{stage.title}: {'ok' if ended.code == 0 else 'failed'} in {clock(ended.seconds)}"
            say(f"=== {taken}")
            times.append(taken)
            if ended.code != 0:
                failed.append(stage.title)
                again += ended.again
                total["failed"] = max(total["failed"], 1)  # a failed stage is never "0 failed"
        if failed:
            break
    say("\n".join(["", *times]))
    if failed:
        say("\n".join([*again, f"stopped at: {', '.join(failed)}"]))
    say(", ".join(f"{total[outcome]} {outcome}" for outcome in COUNTED))
    return 1 if failed else 0


@dataclass(frozen=True)
class Ended:
    """How a stage ended."""

    code: int
    counts: Counter[str]  # of pytest
    again: Sequence[str]  # lines to repeat at the end when it failed
    seconds: float


def _in_order(stages: Iterator[Stage], project: Path, say: Callable[[str], None]) -> Iterator[tuple[Stage, Ended]]:
    """Run stages one after the other, up to the first that fails."""
    for stage in stages:
        say(f"=== {stage.title}")
        ended = _run_stage(stage, project, say)
        yield stage, ended
        if ended.code != 0:
            return


def _beside(stages: Sequence[Stage], project: Path, say: Callable[[str], None]) -> Iterator[tuple[Stage, Ended]]:
    """Run stages at the same time, and print the output of each in their order."""
    say(f"=== {', '.join(stage.title for stage in stages)}")
    outputs: list[list[str]] = [[] for _ in stages]
    with ThreadPoolExecutor(len(stages)) as pool:
        running = [
            pool.submit(_run_stage, stage, project, output.append)
            for stage, output in zip(stages, outputs, strict=True)
        ]
        for stage, output, run in zip(stages, outputs, running, strict=True):
            ended = run.result()
            for line in output:
                say(line)
            yield stage, ended


def _run_stage(stage: Stage, project: Path, say: Callable[[str], None]) -> Ended:
    began = time.monotonic()
    program, *arguments = stage.command
    process = subprocess.Popen(
        [str(BIN / program), *arguments],
        cwd=project,
        env={**os.environ, "PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    last = ""
    seen: list[str] = []
    assert process.stdout is not None
    with process, process.stdout:
        for line in process.stdout:
            say(line.rstrip("\n"))
            last = line if line.strip() else last
            if program == "pytest" and len(seen) < AGAIN_LINES and AGAIN.match(line):
                seen.append(line.rstrip("\n"))
    seconds = time.monotonic() - began
    if program != "pytest":
        return Ended(process.returncode, Counter(), seen, seconds)
    code = 0 if process.returncode == NO_TESTS else process.returncode
    return Ended(code, counted(last), seen, seconds)


def counted(line: str) -> Counter[str]:
    """Return the counts in the last line of pytest; an error in the set-up of a test is a failure.

    >>> counted("== 1 failed, 7 passed, 2 errors in 0.1s ==")
    Counter({'passed': 7, 'failed': 3, 'skipped': 0})
    """
    words = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", line)}
    failed = words.get("failed", 0) + words.get("error", 0) + words.get("errors", 0)
    return Counter({"passed": words.get("passed", 0), "failed": failed, "skipped": words.get("skipped", 0)})


def _say(text: str) -> None:
    print(text, flush=True)
