"""Labs of a fleet as forks of the first one, compared with the same labs made from nothing: time and memory.

Memory is the proportional set size (PSS) of each lab's QEMU processes, from /proc/<pid>/smaps_rollup: a page that three
processes share counts as a third in each. It is read when all labs are usable, and of forks also when KSM has run.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click
import yaml

from benchmarks.labs import MARK, Report, last_line, load, results_folder, table
from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.devtools.programs import main
from hoplab.host import netns
from hoplab.lab.checkpoint.store import Store
from hoplab.lab.fleet_members import Fleet

SHARE = 0.6  # of the PSS of labs made from nothing, at most


@dataclass(frozen=True)
class FleetBench:
    """The benchmark's own fleet."""

    fleet: Fleet
    report: Report

    def run(self, title: str, *words: str) -> float:
        """Run ``./lab fleet ...`` and return its seconds; raise LabError where it fails."""
        log, began = self.report.folder / f"{title}.log", time.monotonic()
        with log.open("w") as out:
            done = subprocess.run(
                [str(PROJECT / "lab"), "fleet", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=PROJECT,
                check=False,
            )
        if done.returncode != 0:
            text = log.read_text(errors="replace")
            raise LabError(f"fleet {words[0]} failed: {last_line(text)}", remedy="read its log", log=str(log))
        return round(time.monotonic() - began, 1)

    def memory_mib(self) -> list[int]:
        """Return the PSS of each lab's machines in MiB."""
        return [sum(map(pss_mib, machines_of(member))) for member in self.fleet.made()]

    def clean(self) -> None:
        """Remove the fleet and what was kept of it."""
        self.run("destroy", "destroy", self.fleet.spec)
        for number in range(1, 100):
            store = Store(self.fleet.member(number))
            for name in store.names():
                store.delete(name)


def machines_of(member: LabPaths) -> list[Path]:
    """Return the folders in /proc of a lab's QEMU processes."""
    found = []
    for pid in netns.processes(member.netns):
        with suppress(OSError):
            if (Path("/proc") / str(pid) / "comm").read_text().startswith("qemu-system"):
                found.append(Path("/proc") / str(pid))
    return found


def pss_mib(process: Path) -> int:
    """Return the proportional set size of a process in MiB, from its folder in /proc."""
    found = re.search(r"^Pss: +(\d+) kB$", (process / "smaps_rollup").read_text(), re.MULTILINE)
    if not found:
        raise LabError(f"{process}/smaps_rollup has no Pss", remedy="a kernel from 4.14 on has it")
    return int(found[1]) // 1024


@contextmanager
def bench_fleet(name: str, workers: int, report: Report) -> Iterator[FleetBench]:
    """Yield a fleet with its spec, and remove all of it at the end; refuse a spec that no benchmark made."""
    spec = LabPaths(name).spec
    if spec.exists() and not spec.read_text().startswith(MARK):
        raise LabError(f"{spec.name} is a lab of somebody's", remedy="give the benchmark's fleet another name (--spec)")
    settings = {"lab:nodes": {"workers": workers}, "lab:kubeconfig": "off"}
    spec.write_text(MARK + yaml.safe_dump({"config": settings}, sort_keys=False))
    bench = FleetBench(Fleet(name), report)
    try:
        bench.clean()
        yield bench
    finally:
        try:
            bench.clean()
        finally:
            spec.unlink(missing_ok=True)


@click.command()
@click.option("--count", type=click.IntRange(2, 20), default=3, show_default=True, help="How many labs.")
@click.option("--workers", type=click.IntRange(1, 10), default=1, show_default=True)
@click.option("--parallel", type=click.IntRange(1, 20), default=2, show_default=True)
@click.option("--spec", default="forkbench", show_default=True, help="The name of the benchmark's fleet.")
def forks(count: int, workers: int, parallel: int, spec: str) -> int:
    """Compare a fleet of forks with one that is made from nothing; exit code 1 where they need too much memory."""
    report = Report("forks", results_folder("forks"))
    options = ("--count", str(count), "--parallel", str(parallel))
    with bench_fleet(spec, workers, report) as bench:
        report.say(f"{count} labs with {workers} worker each (load {load()})")
        cold_s = bench.run("cold", "up", spec, *options, "--fresh")
        cold = bench.memory_mib()
        report.say(f"from nothing: {cold_s} s, PSS {cold} MiB")
        bench.run("between", "destroy", spec)
        first_s = bench.run("first", "up", spec, "--count", "1")
        forks_s = bench.run("forks", "up", spec, *options)
        forked = bench.memory_mib()
        report.say(f"the first: {first_s} s; {count - 1} forks of it: {forks_s} s, PSS {forked} MiB")
        reset_s = bench.run("reset", "reset", spec, f"s{count}", "--yes")
        again = bench.memory_mib()
    share = round(sum(forked) / sum(cold), 2)
    sides = {"from nothing": (cold_s, cold), "forks": (forks_s, forked), "after a reset": (reset_s, again)}
    rows = [[side, f"{seconds}", str(sum(memory))] for side, (seconds, memory) in sides.items()]
    report.say("\n" + table([["", "s", "PSS MiB"], *rows]))
    report.say(f"forks need {share:.0%} of the memory, at most {SHARE:.0%} is wanted")
    report.figures = {
        "share": share,
        "cold": {"seconds": cold_s, "pss_mib": cold},
        "forks": {"seconds": forks_s, "pss_mib": forked},
        "first_s": first_s,
        "reset": {"seconds": reset_s, "pss_mib": again},
    }
    report.end()
    return 0 if share <= SHARE else 1


if __name__ == "__main__":
    main(forks)
