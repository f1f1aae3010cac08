"""What a snapshot of a lab saves: the read-only lessons on it, beside the same lessons with a command for each fact.

Both run the same functions on the same running lab, in turns. On one side every node is read in one round trip before
the first lesson. On the other every lesson asks for each fact when it needs it, with one command over SSH (and one
request to the API), as a test written with plain testinfra would; what it has asked for once it
remembers until its end. The SSH connections are shared and open on both sides.
"""

from __future__ import annotations

import json
import shlex
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import click

from benchmarks.labs import Report, load, results_folder
from hoplab.core.paths import LabPaths
from hoplab.devtools.programs import main
from hoplab.expectations.parts import known_parts
from hoplab.observe.facts import Fact, Facts, T
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.verify import session
from hoplab.verify.session import LabSession
from tests.support.lesson_functions import failures, read_only

TIMES = 5.0  # the minimum speed-up
LOOK_S = 60.0  # the maximum for the snapshot and all read-only lessons


@dataclass
class Asker:
    """A runner of single commands, which counts them."""

    hosts: Hosts
    api: Callable[[str], Output]
    asked: int = 0

    def __call__(self, node: str, netns: str, fact: Fact[Any]) -> Output:
        self.asked += 1
        if not node:
            return self.api(fact.command)
        enter = f"nsenter --net=/run/netns/{netns} " if netns else ""
        command = fact.command_for(known_parts())
        command = f"{enter}sh -c {shlex.quote(command)}" if netns else command
        return self.hosts.batch(node, {"it": command})["it"]


@dataclass(frozen=True)
class Asking(Facts):
    """The facts of one place; a fact is read on access."""

    ask: Callable[[Fact[Any]], Output] = field(default=lambda _fact: Output(1, ""))

    def __getitem__(self, fact: Fact[T]) -> T:
        if fact.name not in self.outputs:
            outputs = self.outputs
            assert isinstance(outputs, dict)
            outputs[fact.name] = self.ask(fact)
        return super().__getitem__(fact)


def asking(lab: Snapshot, asker: Asker) -> Snapshot:
    """Return the lab without facts, with only the places of its namespaces."""

    def place(name: str, node: str, netns: str = "") -> Asking:
        return Asking(name, {}, ask=lambda fact: asker(node, netns, fact))

    return replace(
        lab,
        node_facts={node: place(node, node) for node in lab.node_facts},
        netns_facts={
            node: {netns: place(f"{node} {netns}", node, netns) for netns in found}
            for node, found in lab.netns_facts.items()
        },
        api=place("api", ""),
    )


@dataclass(frozen=True)
class Look:
    """Run all read-only lessons once."""

    seconds: float
    commands: int
    failed: Mapping[str, str]


def at_once(lab: LabSession) -> Look:
    began = time.monotonic()
    seen = lab.look()
    failed = failures(read_only(), seen)
    return Look(time.monotonic() - began, len(seen.node_facts), failed)


def one_by_one(lab: LabSession) -> Look:
    def get(path: str) -> Output:
        status, body = lab.api("GET", path)
        return Output(0 if status == 200 else status, json.dumps(body))

    asker, began = Asker(lab.hosts, get), time.monotonic()
    failed: dict[str, str] = {}
    for name in read_only():
        failed |= failures([name], asking(lab.snapshot, asker))
    return Look(time.monotonic() - began, asker.asked, failed)


@click.command(help=__doc__)
@click.option("--lab", "name", default="dev", show_default=True, help="A running lab.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def look(name: str, rounds: int) -> int:
    report = Report("look", results_folder("look"))
    sides: dict[str, list[Look]] = {"at once": [], "one by one": []}
    with session.opened(LabPaths(name)) as lab:
        for number in range(rounds):
            order = [("at once", at_once), ("one by one", one_by_one)]
            for side, run in order if number % 2 == 0 else reversed(order):
                busy, seen = load(), run(lab)
                sides[side].append(seen)
                report.say(
                    f"round-{number + 1}  {side:<10}  {seen.seconds:6.1f} s  {seen.commands} commands  (load {busy})"
                    + "".join(f"\n  {lesson}: {why}" for lesson, why in seen.failed.items())
                )
    medians = {side: statistics.median(look.seconds for look in seen) for side, seen in sides.items()}
    times = medians["one by one"] / medians["at once"]
    failed = any(look.failed for seen in sides.values() for look in seen)
    report.say(f"{len(read_only())} lessons: {times:.1f} times faster at once (wanted: {TIMES:.0f})")
    report.figures = {
        "lessons": len(read_only()),
        "seconds": {side: [round(look.seconds, 1) for look in seen] for side, seen in sides.items()},
        "commands": {side: seen[0].commands for side, seen in sides.items()},
        "times": round(times, 1),
        "failed": failed,
    }
    report.end()
    return 1 if failed or times < TIMES or medians["at once"] > LOOK_S else 0


if __name__ == "__main__":
    main(look)
