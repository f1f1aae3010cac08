"""Labs for one measurement, with their own spec files and logs, which leave nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT, LabPaths

RESULTS = PROJECT / "benchmarks" / "results"
MARK = "# made by benchmarks/, and removed at its end\n"  # a spec file without it is the user's
Command = TypeVar("Command", bound=Callable[..., object])


@dataclass(frozen=True)
class Ran:
    """The result of a command."""

    code: int
    seconds: float
    out: str
    log: Path


@dataclass(frozen=True)
class BenchLab:
    """A lab of the benchmark's own, called with ``./lab``; every command's output is a file in ``logs``."""

    paths: LabPaths
    logs: Path

    def __call__(self, title: str, *words: str) -> Ran:
        """Run ``./lab <words> --lab <name>`` to its end, timed; its output goes to <logs>/<title>.log."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{title}.log"
        began = time.monotonic()
        with log.open("w") as out:
            code = subprocess.run(
                [str(self.paths.project / "lab"), *words, "--lab", self.paths.lab],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.paths.project,
                check=False,
            ).returncode
        return Ran(code, time.monotonic() - began, log.read_text(errors="replace"), log)

    def destroy(self, title: str) -> None:
        """Destroy the lab; raise LabError when that fails, because the next bring-up would not be cold."""
        ran = self(title, "destroy")
        if ran.code != 0:
            raise LabError(
                f"lab {self.paths.lab} can't be destroyed: {last_line(ran.out)}",
                remedy=f"./lab destroy --lab {self.paths.lab}, then try again",
                log=str(ran.log),
            )

    def keep_evidence(self, title: str) -> Path:
        """Copy the logs that explain a failure out of the lab before its removal; return the folder."""
        folder = self.logs / f"{title}-evidence"
        sources = {
            "console": self.paths.console,
            "qemu": self.paths.libvirt / "log" / "qemu",
            "control-plane": self.paths.control_plane / "log",
            "ansible": self.paths.runner / "artifacts",
        }
        for name, source in sources.items():
            if source.is_dir():
                shutil.copytree(source, folder / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("job_events"))
        if self.paths.state.exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.paths.state, folder)
        return folder


@contextmanager
def bench_lab(name: str, settings: Mapping[str, Any], logs: Path) -> Iterator[BenchLab]:
    """Yield a new lab with these settings, and destroy it at the end.

    First remove the rest of an interrupted benchmark. Refuse a lab that no benchmark made.
    """
    lab = BenchLab(LabPaths(name), logs)
    spec = lab.paths.spec
    if spec.exists() and not spec.read_text().startswith(MARK):
        raise LabError(
            f"{spec.name} is a lab of somebody's: the benchmark would destroy it",
            remedy="give the benchmark's lab another name (--lab), or rename that file",
        )
    spec.write_text(MARK + yaml.safe_dump({"config": dict(settings)}, sort_keys=False))
    try:
        lab.destroy(f"{name}-before")
        yield lab
    finally:
        try:
            lab.destroy(f"{name}-after")
        finally:
            spec.unlink(missing_ok=True)


def settings(workers: int, accel: str, placement: str, engine: str = "auto") -> dict[str, Any]:
    """Return the spec of a benchmark's lab: the default lab with these settings."""
    chosen: dict[str, Any] = {"lab:nodes": {"workers": workers}, "lab:checkpoint": "off"}  # every `up` is a cold one
    if accel != "auto":
        chosen["lab:accel"] = accel
    if engine != "auto":
        chosen["lab:engine"] = engine
    if placement != "auto":
        chosen["lab:controlPlane"] = {"placement": placement}
    return chosen


ENGINES = click.Choice(["auto", "pulumi", "embedded"])
engine_option = click.option("--engine", type=ENGINES, default="auto", show_default=True)


def spec_options(function: Command) -> Command:
    """Add the options of the measured lab; the command gets them as ``workers``, ``accel``, ..."""
    for option in (
        click.option("--placement", type=click.Choice(["auto", "vm", "hosted"]), default="auto", show_default=True),
        click.option("--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True),
        click.option("--workers", type=click.IntRange(1, 50), default=2, show_default=True),
    ):
        function = option(function)
    return function


def results_folder(benchmark: str) -> Path:
    """Return a new folder for the logs and figures of one run."""
    folder = RESULTS / f"{benchmark}-{datetime.now():%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    return folder


@dataclass
class Report:
    """The results of a benchmark: text lines while it runs and one JSON line at the end, both also in its folder."""

    benchmark: str
    folder: Path
    figures: dict[str, Any] = field(default_factory=dict)

    def say(self, text: str) -> None:
        print(text, flush=True)
        with (self.folder / "report.txt").open("a") as file:
            file.write(text + "\n")

    def end(self) -> None:
        line = json.dumps({"benchmark": self.benchmark, **self.figures})
        (self.folder / "result.json").write_text(line + "\n")
        self.say(line)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells in columns: the first left-aligned, the others right-aligned.

    >>> print(table([["", "s"], ["up", "251"]]))
          s
    up  251
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def last_line(text: str) -> str:
    """Return the reason of a failed command: its error, else its last line.

    >>> last_line("[ 3s] cluster\\nerror: worker1 does not boot\\n  -> try again\\n  log: x")
    'worker1 does not boot'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else lines[-1] if lines else "it said nothing"


def load() -> float:
    """Return the load average of the last minute, which shows other work on this machine."""
    return round(os.getloadavg()[0], 1)
