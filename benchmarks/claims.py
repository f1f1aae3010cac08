"""What each claim of a verification costs: `./lab verify` on a running lab, some times, and the slowest claims.

The seconds of a claim contain what it waits for. A deployment is scaled beside other lessons, so the first one that may
not run meanwhile has what is left of it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import click

from benchmarks.labs import BenchLab, Report, last_line, load, results_folder, table
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.devtools.programs import main

SHOWN = 15  # claims


def document(out: str) -> dict[str, Any]:
    """Return the JSON document in an output that may have notes before and after it; raise ValueError without one."""
    found: dict[str, Any] = json.JSONDecoder().raw_decode(out[out.index("{") :])[0]
    return found


def costs(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the median seconds of each claim that was checked in every run, the slowest first."""
    seconds: dict[str, list[float]] = {}
    for run in runs:
        for claim in run["claims"]:
            if claim["outcome"] in {"passed", "failed"}:
                seconds.setdefault(claim["name"], []).append(claim["seconds"])
    medians = {name: statistics.median(found) for name, found in seconds.items() if len(found) == len(runs)}
    return dict(sorted(medians.items(), key=lambda cost: -cost[1]))


@click.command(help=__doc__)
@click.option("--lab", "name", default="dev", show_default=True, help="A running lab.")
@click.option("-n", "number", type=click.IntRange(1), default=3, show_default=True, help="How many runs.")
def claims(name: str, number: int) -> int:
    report = Report("claims", results_folder("claims"))
    lab, runs = BenchLab(LabPaths(name), report.folder), []
    for turn in range(1, number + 1):
        busy, ran = load(), lab(f"verify-{turn}", "verify", "--json")
        try:
            run = document(ran.out)
        except ValueError:
            raise LabError(f"lab {name} can't be verified: {last_line(ran.out)}", log=str(ran.log)) from None
        runs.append(run)
        report.say(
            f"run {turn}  {run['seconds']:.1f} s, of which {run['looked_seconds']:.1f} s until all was looked at; "
            f"{run['passed']} claims hold, {run['failed']} fail  (load {busy})"
        )
    found = costs(runs)
    whole = sum(found.values())
    rows = [[name, f"{cost:.1f}", f"{cost / whole:.0%}"] for name, cost in list(found.items())[:SHOWN]]
    report.say(table([["claim", "seconds", "share"], *rows]))
    report.say(f"{len(found)} claims: {whole:.1f} s")
    report.figures = {
        "seconds": [run["seconds"] for run in runs],
        "looked": [run["looked_seconds"] for run in runs],
        "claims": {name: round(cost, 3) for name, cost in found.items()},
        "failed": [run["failed"] for run in runs],
    }
    report.end()
    return 1 if any(run["failed"] for run in runs) else 0


if __name__ == "__main__":
    main(claims)
