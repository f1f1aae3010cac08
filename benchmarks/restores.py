"""Restores of one checkpoint in a row, beside the cold bring-up of the same lab: time to usable, and what was lost.

A restore is well when no container has started anew and every node is Ready once the command has ended. With --verify
the lessons hold, too, after every Nth.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import click

from benchmarks.labs import (
    BenchLab,
    Report,
    bench_lab,
    engine_option,
    last_line,
    load,
    results_folder,
    settings,
    spec_options,
    table,
)
from benchmarks.soak import bring_up, percentile, restart_counts
from hoplab.cluster.api import connect
from hoplab.cluster.readiness import not_ready
from hoplab.core.errors import LabError
from hoplab.devtools.programs import main
from hoplab.lab import state

NAME = "benchmark"
PHASE = re.compile(r"^\[ *(?:\d+[ms] ?)+\] (\w+): done in (?:(\d+)m)?(\d+)s$", re.MULTILINE)
RATIO, SLOWEST = 1 / 15, 1 / 10  # of a cold bring-up, at most: the median, and the 95th percentile


@dataclass(frozen=True)
class Restored:
    """One restore."""

    number: int
    seconds: float
    failed: str = ""  # the reason; "" after a success
    phases: dict[str, int] = field(default_factory=dict)  # whole seconds
    verify_s: float | None = None
    load: float = 0.0  # of the machine at its start


def phases(out: str) -> dict[str, int]:
    """Return the seconds of each phase in the output of a command.

    >>> phases("[    1s] check: done in 1s\\n[   12s] machines ...\\n[ 1m23s] machines: done in 1m11s\\n")
    {'check': 1, 'machines': 71}
    """
    return {title: int(minutes or 0) * 60 + int(seconds) for title, minutes, seconds in PHASE.findall(out)}


def restore(lab: BenchLab, number: int, *, from_nothing: bool, verify: bool, before: dict[str, int]) -> Restored:
    """Restore the checkpoint, over the running lab or after its removal; ``before`` are the restarts of containers."""
    if from_nothing:
        lab.destroy(f"{number:02d}-destroy")
    busy = load()
    ran = lab(f"{number:02d}-restore", "checkpoint", "restore", NAME, "--yes")
    failed = f"restore: {last_line(ran.out)}" if ran.code != 0 else what_is_wrong(lab, before)
    looked = lab(f"{number:02d}-verify", "verify") if verify and not failed else None
    if looked and looked.code != 0:
        failed = f"verify: {last_line(looked.out)}"
    elif looked:
        failed = what_is_wrong(lab, before)
    if failed:
        lab.keep_evidence(f"{number:02d}")
    took = round(looked.seconds, 1) if looked else None
    return Restored(number, round(ran.seconds, 1), failed, phases(ran.out), took, busy)


def restarts(lab: BenchLab) -> dict[str, int]:
    """Return the restarts of every container of the lab."""
    with connect(lab.paths, state.load(lab.paths).netns) as api:
        return restart_counts(api.read("/api/v1/pods")["items"])


def what_is_wrong(lab: BenchLab, before: dict[str, int]) -> str:
    """Return what a restored lab lacks; "" where nothing."""
    with connect(lab.paths, state.load(lab.paths).netns) as api:
        now = restart_counts(api.read("/api/v1/pods")["items"])
        nodes = {node["metadata"]["name"]: not_ready(node) for node in api.read("/api/v1/nodes")["items"]}
    anew = [name for name in before if now.get(name) != before[name]]
    waiting = [f"{name}: {why}" for name, why in nodes.items() if why]
    return "; ".join([*(f"{name} started anew" for name in anew), *waiting])


def restores_table(done: Sequence[Restored]) -> str:
    """Return one row per restore, then the median and the slowest of the successful ones."""
    titles = list(dict.fromkeys(title for one in done for title in one.phases))
    rows = [["", "s", *titles, "verify", "load"]]
    for one in done:
        cells = [str(one.phases.get(title, "-")) for title in titles]
        verify = "-" if one.verify_s is None else f"{one.verify_s:.0f}"
        rows.append(
            [f"{one.number}{' FAILED' if one.failed else ''}", f"{one.seconds:.0f}", *cells, verify, f"{one.load:.1f}"]
        )
    well = [one for one in done if not one.failed]
    for title, of in (("median", statistics.median), ("slowest", max)) if well else ():
        columns = [[one.phases.get(name, 0) for one in well] for name in titles]
        rows.append([title, f"{of([one.seconds for one in well]):.0f}", *(f"{of(column):.0f}" for column in columns)])
        rows[-1] += ["", ""]
    return table(rows)


@click.command()
@click.option("-n", "--number", type=click.IntRange(min=1), default=20, show_default=True, help="How many restores.")
@click.option("--verify", type=click.IntRange(min=0), default=0, metavar="N", help="Run the lessons after every Nth.")
@click.option("--from-nothing", is_flag=True, help="Destroy the lab before each.")
@click.option("--lab", "name", default="restore", show_default=True, help="Name of the lab it makes and destroys.")
@spec_options
@engine_option
def restores(
    number: int, verify: int, from_nothing: bool, name: str, workers: int, accel: str, placement: str, engine: str
) -> int:
    """Restore one checkpoint again and again; exit code 1 when a lab was not as it was, or took too long."""
    folder = results_folder("restores")
    report = Report("restores", folder)
    done: list[Restored] = []
    with bench_lab(name, settings(workers, accel, placement, engine), folder) as lab:
        report.say(f"a cold bring-up of {workers} workers, then {number} restores; logs in {folder}")
        cold = bring_up(lab, 0, verify=bool(verify))
        if cold.failed:
            raise LabError(f"the lab can't be made: {cold.failed}", remedy="read its log", log=str(folder))
        report.say(f"up   {cold.seconds:6.1f} s")
        made = lab("00-create", "checkpoint", "create", NAME)
        if made.code != 0:
            raise LabError(f"no checkpoint: {last_line(made.out)}", remedy="read its log", log=str(made.log))
        report.say(f"create {made.seconds:4.1f} s")
        try:
            before = restarts(lab)
            for turn in range(1, number + 1):
                looked = bool(verify) and turn % verify == 0
                one = restore(lab, turn, from_nothing=from_nothing, verify=looked, before=before)
                done.append(one)
                said = one.failed or ", ".join(f"{title} {seconds}" for title, seconds in one.phases.items())
                report.say(f"{turn:3}  {one.seconds:6.1f} s  {said}")
        finally:
            lab("99-delete", "checkpoint", "delete", NAME)
    report.say("\n" + restores_table(done) + "\n")
    failures = [one for one in done if one.failed]
    took = [one.seconds for one in done if not one.failed] or [0.0]
    median, slowest = statistics.median(took), percentile(took, 95)
    report.say(
        f"{len(done)} restores, {len(failures)} failed; median 1/{cold.seconds / max(median, 0.1):.1f} and 95 % within "
        f"1/{cold.seconds / max(slowest, 0.1):.1f} of the cold bring-up (wanted: 1/15 and 1/10)"
    )
    for one in failures:
        report.say(f"failed: {one.number}: {one.failed}")
    report.figures = {
        "cold_s": cold.seconds,
        "create_s": round(made.seconds, 1),
        "median_s": median,
        "p95_s": slowest,
        "failed": len(failures),
        "restores": [asdict(one) for one in done],
    }
    report.end()
    return 1 if failures or median > RATIO * cold.seconds or slowest > SLOWEST * cold.seconds else 0


if __name__ == "__main__":
    main(restores)
