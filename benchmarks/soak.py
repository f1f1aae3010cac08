"""Consecutive cold bring-ups: the time of each phase, the number of boot retries, and all other failures.

With --steady the last lab then runs without changes: no container, no process of the hosted control plane and no
machine may restart, and the API must answer a request every second in time.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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
from benchmarks.pair import boot_retries
from hoplab.cluster.api import connect
from hoplab.core.errors import ClusterError
from hoplab.devtools.programs import main
from hoplab.host import machines, processes
from hoplab.lab import state

PROBE_S = 1.0  # between two requests to the API
LOOK_S = 10.0  # between two comparisons of pods and processes
ANSWER_S = 2.0  # the maximum time of the API's answer


@dataclass(frozen=True)
class Cold:
    """One bring-up from nothing."""

    number: int
    seconds: float
    failed: str = ""  # the reason; "" after a success
    phases: dict[str, float] = field(default_factory=dict)
    boot_retries: int = 0
    verify_s: float | None = None
    load: float = 0.0  # of the machine at its start


@dataclass(frozen=True)
class Steady:
    """Observations of a lab without changes."""

    minutes: float
    probes: int
    max_s: float
    p99_s: float
    restarts_before: int  # of containers, while the lab came up
    troubles: tuple[str, ...]  # empty for a steady lab


def bring_up(lab: BenchLab, number: int, *, verify: bool) -> Cold:
    """Run `./lab up` from nothing and, on request, `./lab verify`; keep the logs of a failure."""
    busy = load()
    ran = lab(f"{number:02d}-up", "up")
    retries = boot_retries(ran.out)
    if ran.code != 0:
        lab.keep_evidence(f"{number:02d}")
        return Cold(number, round(ran.seconds, 1), f"up: {last_line(ran.out)}", boot_retries=retries, load=busy)
    phases = {title: round(seconds, 1) for title, seconds in state.load(lab.paths).phases}
    looked = lab(f"{number:02d}-verify", "verify") if verify else None
    failed = ""
    if looked and looked.code != 0:
        failed = f"verify: {last_line(looked.out)}"
        lab.keep_evidence(f"{number:02d}")
    return Cold(
        number,
        round(ran.seconds, 1),
        failed,
        phases,
        retries,
        verify_s=round(looked.seconds, 1) if looked else None,
        load=busy,
    )


def soak_table(colds: Sequence[Cold]) -> str:
    """Return one row per bring-up, then the median and the slowest of the successful ones."""
    well = [cold for cold in colds if not cold.failed]
    titles = list(dict.fromkeys(title for cold in colds for title in cold.phases))
    with_verify = any(cold.verify_s is not None for cold in colds)

    def numbers(cold: Cold) -> list[float | None]:
        found: list[float | None] = [cold.seconds, *(cold.phases.get(title) for title in titles)]
        return found + ([cold.verify_s] if with_verify else [])

    def cells(values: Sequence[float | None]) -> list[str]:
        return ["-" if value is None else f"{value:.0f}" for value in values]

    rows = [["", "up s", *titles, *(["verify"] if with_verify else []), "retries", "load"]]
    for cold in colds:
        title = f"{cold.number}" + (" FAILED" if cold.failed else "")
        rows.append([title, *cells(numbers(cold)), str(cold.boot_retries), f"{cold.load:.1f}"])
    for title, of in (("median", statistics.median), ("slowest", max)):
        columns = zip(*(numbers(cold) for cold in well), strict=True)
        known = [[value for value in column if value is not None] for column in columns]
        if well:
            rows.append([title, *cells([of(values) if values else None for values in known]), "", ""])
    return table(rows)


def restart_counts(pods: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the restarts of every container: {"kube-system/coredns-5d78c/coredns": 0, ...}."""
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}/{container['name']}": container["restartCount"]
        for pod in pods
        for kind in ("initContainerStatuses", "containerStatuses")
        for container in pod.get("status", {}).get(kind, ())
    }


def running(lab: BenchLab) -> dict[str, int]:
    """Return the processes that must not change: {"etcd": 4711, "hoplab-soak-1a2b3c-worker1": 4712, ...}."""
    programs, guests = f"{lab.paths.control_plane}/bin/", f"guest={machines.domain_name(lab.paths.id, '')}"
    found: dict[str, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        words = processes.command_line(int(folder.name))
        if words and words[0].startswith(programs):
            found[Path(words[0]).name] = int(folder.name)
        found |= {
            word.removeprefix("guest=").split(",")[0]: int(folder.name) for word in words if word.startswith(guests)
        }
    return found


def differences(what: str, before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """Return a sentence for every difference from the start.

    >>> differences("restarts of", {"a": 0, "b": 0}, {"a": 1})
    ['restarts of a: 0 -> 1', 'restarts of b: 0 -> gone']
    """
    names = sorted({*before, *now})
    return [
        f"{what} {name}: {before.get(name, 'new')} -> {now.get(name, 'gone')}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least this percentage of all values do not exceed.

    >>> percentile([0.1] * 99 + [3.0], 99), percentile([0.1] * 9 + [3.0], 99)
    (0.1, 3.0)
    """
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def watch(lab: BenchLab, minutes: float) -> Steady:
    """Watch a lab for this time: send its API a request every second, compare pods and processes every ten."""
    made = state.load(lab.paths)
    answers: list[float] = []
    troubles: dict[str, None] = {}  # in the order of their first occurrence
    with connect(lab.paths, made.netns) as api:
        pods, pids = restart_counts(api.read("/api/v1/pods")["items"]), running(lab)
        restarts_before = sum(pods.values())
        began = looked = time.monotonic()
        while (asked := time.monotonic()) - began < minutes * 60:
            try:
                api.read("/api/v1/namespaces/kube-system/pods")  # through the API server to etcd, like kubectl
                answers.append(time.monotonic() - asked)
                if answers[-1] > ANSWER_S:
                    troubles[f"after {asked - began:.0f} s the API took {answers[-1]:.1f} s"] = None
                if asked - looked >= LOOK_S:
                    looked = asked
                    counts = restart_counts(api.read("/api/v1/pods")["items"])
                    seen = differences("restarts of", pods, counts) + differences("process of", pids, running(lab))
                    troubles |= dict.fromkeys(seen)
            except ClusterError as error:
                answers.append(time.monotonic() - asked)
                troubles[f"after {asked - began:.0f} s {error.message}"] = None
            time.sleep(max(0.0, PROBE_S - (time.monotonic() - asked)))
    return Steady(
        minutes,
        len(answers),
        round(max(answers), 3),
        round(percentile(answers, 99), 3),
        restarts_before,
        tuple(troubles),
    )


@click.command()
@click.option("-n", "--number", type=click.IntRange(min=1), default=10, show_default=True, help="How many bring-ups.")
@click.option("--verify", is_flag=True, help="Run `./lab verify` after each.")
@click.option("--steady", type=float, default=0.0, metavar="MINUTES", help="Watch the last lab for so long.")
@click.option("--lab", "name", default="soak", show_default=True, help="Name of the lab it makes and destroys.")
@spec_options
@engine_option
def soak(
    number: int, verify: bool, steady: float, name: str, workers: int, accel: str, placement: str, engine: str
) -> int:
    """Bring a lab up from nothing, again and again; exit code 1 when anything but a boot retry went wrong."""
    folder = results_folder("soak")
    report = Report("soak", folder)
    colds: list[Cold] = []
    watched: Steady | None = None
    with bench_lab(name, settings(workers, accel, placement, engine), folder) as lab:
        report.say(f"{number} cold bring-ups of {workers} workers; logs in {folder}")
        for round_number in range(1, number + 1):
            cold = bring_up(lab, round_number, verify=verify)
            colds.append(cold)
            said = cold.failed or ", ".join(f"{title} {seconds:.0f}" for title, seconds in cold.phases.items())
            report.say(f"{round_number:3}  {cold.seconds:6.1f} s  {cold.boot_retries} boot retries  {said}")
            if steady and round_number == number and not cold.failed:
                report.say(f"watching the lab for {steady:g} minutes")
                watched = watch(lab, steady)
                if watched.troubles:
                    lab.keep_evidence("steady")
            lab.destroy(f"{round_number:02d}-destroy")
    failures = [f"{cold.number}: {cold.failed}" for cold in colds if cold.failed]
    report.say("\n" + soak_table(colds) + "\n")
    report.say(
        f"{len(colds)} bring-ups, {sum(cold.boot_retries > 0 for cold in colds)} needed a boot retry, "
        f"{len(failures)} failed"
    )
    for failure in failures:
        report.say(f"failed: {failure}")
    if watched:
        report.say(
            f"steady: {watched.minutes:g} minutes, {watched.probes} questions to the API, slowest {watched.max_s} s, "
            f"p99 {watched.p99_s} s, {len(watched.troubles)} troubles ({watched.restarts_before} restarts before)"
        )
        for trouble in watched.troubles:
            report.say(f"  {trouble}")
    elif steady:
        report.say("steady: not watched, because the last bring-up failed")
    report.figures = {
        "bring_ups": len(colds),
        "with_boot_retry": sum(cold.boot_retries > 0 for cold in colds),
        "failed": len(failures),
        "colds": [asdict(cold) for cold in colds],
        "steady": asdict(watched) if watched else None,
    }
    report.end()
    return 1 if failures or (watched and watched.troubles) else 0


if __name__ == "__main__":
    main(soak)
