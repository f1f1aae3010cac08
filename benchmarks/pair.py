"""`./lab up` compared with the same lab made by hand, in one run, so that the state of the machine is the same.

The side that goes first alternates by round. Each side starts without any part of the lab (no network namespace), with
the node image in the cache, and ends when the cluster is usable by the same check. A second `./lab up` measures the
cost of a run without changes, and `./lab verify` the cost of a verification.
"""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

import click

from benchmarks.byhand import make, prepare, reap
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
from hoplab.core.errors import LabError
from hoplab.devtools.programs import main
from hoplab.image import NodeImage
from hoplab.lab import state
from hoplab.spec.plan import LabPlan

RATIO = 1.0  # the maximum of the medians' ratio
NO_OP_S = 5.0
RESTARTED = re.compile(r"; restarted it \(\d+ of at most")  # a message of hoplab.host.boot
CHANGED = re.compile(r"^changed +(\d+) resources, (\d+) tasks$", re.MULTILINE)  # in the last lines of `./lab up`


@dataclass(frozen=True)
class Bringup:
    """One side of one round."""

    seconds: float | None  # None for a failed one
    steps: dict[str, float] = field(default_factory=dict)
    why: str = ""  # of a failure
    boot_retries: int = 0
    load: float = 0.0  # of the machine at its start
    no_op_s: float | None = None
    no_op_changed: int | None = None  # resources and tasks
    verify_s: float | None = None
    verify_failed: bool = False


def up(lab: BenchLab, title: str, *, verify: bool) -> Bringup:
    """Run `./lab up` from nothing, then the steps that follow it."""
    busy = load()
    ran = lab(f"{title}-up", "up")
    if ran.code != 0:
        lab.keep_evidence(title)
        return Bringup(None, why=last_line(ran.out), boot_retries=boot_retries(ran.out), load=busy)
    phases = {name: round(seconds, 1) for name, seconds in state.load(lab.paths).phases}
    again = lab(f"{title}-no-op", "up")
    looked = lab(f"{title}-verify", "verify") if verify else None
    return Bringup(
        round(ran.seconds, 1),
        phases,
        boot_retries=boot_retries(ran.out),
        load=busy,
        no_op_s=round(again.seconds, 1),
        no_op_changed=changed(again.out) if again.code == 0 else None,
        verify_s=round(looked.seconds, 1) if looked else None,
        verify_failed=bool(looked and looked.code != 0),
    )


def by_hand(lab: BenchLab, plan: LabPlan, image: NodeImage, title: str, *, verify: bool) -> Bringup:
    """Make the same lab by hand; `./lab verify` shows that it is the same cluster."""
    busy = load()
    try:
        laps, hand = make(lab, plan, image, title)
    except LabError as error:
        lab.keep_evidence(title)
        return Bringup(None, why=error.message, load=busy)
    looked = None
    if verify:
        hand.record()
        looked = lab(f"{title}-verify", "verify")
    return Bringup(
        laps.total,
        laps.times,
        load=busy,
        verify_s=round(looked.seconds, 1) if looked else None,
        verify_failed=bool(looked and looked.code != 0),
    )


def boot_retries(output: str) -> int:
    """Return how often a machine had to be restarted.

    >>> boot_retries("[ 9s] hoplab-a-worker1: its kernel panicked; restarted it (1 of at most 3 times)")
    1
    """
    return len(RESTARTED.findall(output))


def changed(output: str) -> int | None:
    """Return how many resources and tasks `./lab up` changed; None where its output has no such line.

    >>> changed("changed   2 resources, 3 tasks")
    5
    """
    found = CHANGED.search(output)
    return int(found[1]) + int(found[2]) if found else None


def median(values: Sequence[float | None]) -> float | None:
    """Return the median of the values that are not None."""
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 1) if known else None


def middle(side: Sequence[Bringup]) -> Bringup:
    """Return a bring-up with the median of every figure of one side."""
    return Bringup(
        median([bringup.seconds for bringup in side]),
        no_op_s=median([bringup.no_op_s for bringup in side]),
        verify_s=median([bringup.verify_s for bringup in side]),
    )


def ratio(hand: Bringup, lab: Bringup) -> float | None:
    """Return the ratio of `./lab up` to the lab by hand; None where one side failed."""
    return round(lab.seconds / hand.seconds, 3) if lab.seconds and hand.seconds else None


def shortcomings(hands: Sequence[Bringup], labs: Sequence[Bringup]) -> list[str]:
    """Return a sentence for every missed target."""
    found = [f"a bring-up failed: {bringup.why}" for bringup in (*hands, *labs) if bringup.seconds is None]
    times = ratio(middle(hands), middle(labs))
    if times and times > RATIO:
        found.append(f"`./lab up` takes {times:.2f} times as long as by hand, at most {RATIO} is wanted")
    no_op = middle(labs).no_op_s
    if no_op is not None and no_op > NO_OP_S:
        found.append(f"`./lab up` takes {no_op:.1f} s where there is nothing to do, at most {NO_OP_S:.0f} s is wanted")
    for bringup in labs:
        if bringup.seconds is not None and bringup.no_op_changed != 0:
            what = "failed" if bringup.no_op_changed is None else f"changed {bringup.no_op_changed} resources or tasks"
            found.append(f"the second `./lab up` {what}")
    found += ["`./lab verify` found a claim that does not hold" for bringup in (*hands, *labs) if bringup.verify_failed]
    return found


def line(title: str, side: str, made: Bringup) -> str:
    """Return one bring-up as text."""
    if made.seconds is None:
        return f"{title}  {side:<9} failed: {made.why}"
    steps = ", ".join(f"{step} {seconds:.0f}" for step, seconds in made.steps.items())
    text = f"{title}  {side:<9} {made.seconds:6.1f} s  (load {made.load}; {steps})"
    if made.boot_retries:
        text += f"  boot retries: {made.boot_retries}"
    if made.no_op_s is not None:
        text += f"  again {made.no_op_s:.1f} s, {made.no_op_changed} changed"
    if made.verify_s is not None:
        text += f"  verify {made.verify_s:.1f} s" + (" FAILED" if made.verify_failed else "")
    return text


def figures_table(hands: Sequence[Bringup], labs: Sequence[Bringup]) -> str:
    """Return rounds, medians and their ratio as text."""

    def seconds(value: float | None) -> str:
        return "failed" if value is None else f"{value:.1f}"

    rows = [["", "by hand s", "./lab up s", "ratio", "no-op s", "verify s"]]
    titles = [*(f"round {number}" for number in range(1, len(hands) + 1)), "median"]
    for title, hand, lab in zip(titles, [*hands, middle(hands)], [*labs, middle(labs)], strict=True):
        times = ratio(hand, lab)
        extra = ["-" if value is None else f"{value:.1f}" for value in (lab.no_op_s, lab.verify_s)]
        rows.append([title, seconds(hand.seconds), seconds(lab.seconds), f"{times:.2f}" if times else "-", *extra])
    return table(rows)


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="How many of each.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Also run `./lab verify` on both.")
@spec_options
@engine_option
def pair(rounds: int, verify: bool, workers: int, accel: str, placement: str, engine: str) -> int:
    """Make the lab by hand and with `./lab up`, alternating, and compare; exit code 1 where a target is missed.

    Uses two labs of its own, "byhand" and "bench", one at a time, and leaves nothing of them.
    """
    folder = results_folder("pair")
    report = Report("pair", folder)
    spec = settings(workers, accel, placement, engine)
    hands: list[Bringup] = []
    labs: list[Bringup] = []
    with ExitStack() as stack:
        hand = stack.enter_context(bench_lab("byhand", spec, folder))
        lab = stack.enter_context(bench_lab("bench", spec, folder))
        plan, image = prepare(hand.paths)
        report.say(
            f"{len(os.sched_getaffinity(0))} cores, accel {plan.accel}, control plane {plan.placement}, "
            f"{workers} workers, image {image.digest[:12]}; logs in {folder}"
        )

        def one_by_hand(title: str) -> None:
            hands.append(by_hand(hand, plan, image, f"{title}-byhand", verify=verify))
            report.say(line(title, "by hand", hands[-1]))
            hand.destroy(f"{title}-byhand-destroy")
            reap()

        def one_lab(title: str) -> None:
            labs.append(up(lab, f"{title}-lab", verify=verify))
            report.say(line(title, "./lab up", labs[-1]))
            lab.destroy(f"{title}-lab-destroy")

        for number in range(1, rounds + 1):
            sides: list[Callable[[str], None]] = [one_by_hand, one_lab]
            for side in sides if number % 2 else reversed(sides):
                side(f"round-{number}")
    missed = shortcomings(hands, labs)
    report.say("\n" + figures_table(hands, labs) + "\n")
    for sentence in missed:
        report.say(f"missed: {sentence}")
    floor, mine = middle(hands), middle(labs)
    report.figures = {
        "cores": len(os.sched_getaffinity(0)),
        "accel": plan.accel,
        "placement": plan.placement,
        "workers": workers,
        "by_hand_s": floor.seconds,
        "lab_up_s": mine.seconds,
        "ratio": ratio(floor, mine),
        "no_op_s": mine.no_op_s,
        "verify_s": mine.verify_s,
        "missed": missed,
        "by_hand": [asdict(bringup) for bringup in hands],
        "lab_up": [asdict(bringup) for bringup in labs],
    }
    report.end()
    return 1 if missed else 0


if __name__ == "__main__":
    main(pair)
