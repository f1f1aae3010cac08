"""The cost of a `pulumi up` without changes, compared with that of an empty program, in one run.

It needs a Pulumi CLI on PATH and a running lab that the CLI made or adopted (`./lab up`, `./lab pulumi adopt`).
The program that goes first alternates by round; the lab does not change, and the empty stack is removed at the end.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click

from benchmarks.labs import Report, load, results_folder, table
from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.devtools.programs import main
from hoplab.engine.pulumi_cli import environment, workspace

ABOVE_S = 2.0  # the maximum difference between the lab's no-op and the empty program's
EMPTY = "name: empty\nruntime: {{name: python, options: {{virtualenv: {venv}}}}}\n"


def pulumi(folder: Path, told: Mapping[str, str], *words: str) -> tuple[float, str]:
    """Run the CLI in a project's folder; return seconds and output."""
    began = time.monotonic()
    done = subprocess.run(
        ["pulumi", *words, "--non-interactive"],
        cwd=folder,
        env={**os.environ, **told},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(f"pulumi {' '.join(words)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return time.monotonic() - began, done.stdout


def no_op(folder: Path, told: Mapping[str, str], stack: str) -> float:
    """Run `pulumi up` with nothing to do and return its seconds; raise LabError when it changed something."""
    seconds, _ = pulumi(folder, told, "up", "--yes", "--skip-preview", "--expect-no-changes", "--stack", stack)
    return seconds


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="How many of each.")
@click.option("--lab", "name", default="dev", show_default=True, help="A running lab of the Pulumi CLI.")
def pair(rounds: int, name: str) -> int:
    """Compare a no-op `pulumi up` of the lab with one of an empty program; exit code 1 where it takes too much more."""
    paths = LabPaths(name)
    folder, told = workspace(paths), environment(paths)
    report = Report("pulumi", results_folder("pulumi"))
    times: dict[str, list[float]] = {"empty": [], "lab": []}
    with tempfile.TemporaryDirectory(prefix="hoplab-empty-") as empty:
        (Path(empty) / "Pulumi.yaml").write_text(EMPTY.format(venv=PROJECT / ".venv"))
        (Path(empty) / "__main__.py").write_text('"""Nothing."""\n')
        pulumi(Path(empty), told, "stack", "init", "empty")
        try:
            pulumi(Path(empty), told, "up", "--yes", "--skip-preview", "--stack", "empty")
            for number in range(rounds):
                for side in ("empty", "lab") if number % 2 else ("lab", "empty"):
                    where = Path(empty) if side == "empty" else folder
                    times[side].append(round(no_op(where, told, "empty" if side == "empty" else name), 2))
                report.say(
                    f"round {number + 1}: empty {times['empty'][-1]} s, lab {times['lab'][-1]} s (load {load()})"
                )
        finally:
            pulumi(Path(empty), told, "stack", "rm", "--yes", "--force", "empty")
    differences = [lab - bare for lab, bare in zip(times["lab"], times["empty"], strict=True)]
    above = round(statistics.median(differences), 2)
    report.say(
        "\n"
        + table([["", "median s"], *[[side, f"{statistics.median(seconds):.2f}"] for side, seconds in times.items()]])
    )
    report.say(f"the lab's no-op takes {above} s more, at most {ABOVE_S} s is wanted")
    report.figures = {"above_s": above, **times}
    report.end()
    return 0 if above <= ABOVE_S else 1


if __name__ == "__main__":
    main(pair)
