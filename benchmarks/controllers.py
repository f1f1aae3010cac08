"""What a change costs the ingress controller of a running lab, and which behaviours it has that the API does not name.

A pod more, a path, a host: the seconds until a request from outside shows it, the CPU time of the controller's pod, and
the processes that it started for it. With ``--write`` the figures go into the file that docs/ingress-controllers.md is
made of.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import click

from benchmarks.labs import table
from hoplab.cli.options import lab_option
from hoplab.core import fs
from hoplab.core.paths import LabPaths
from hoplab.devtools.controller_page import FIGURES
from hoplab.lab import state
from hoplab.observe.snapshot import Pod
from hoplab.verify import workload
from hoplab.verify.objects import INGRESSES
from hoplab.verify.session import LabSession, opened
from hoplab.verify.workload import APP1, APP2, HOST1
from tests.system.conformance import CASES, got

CASE_S = 20.0  # seconds until a behaviour counts as another one
SETTLED_S = 5.0  # seconds without a change before CPU time is read: an old process may still end
HOST = "another.yash.com"
TICKS, PAGE_KIB = 100, 4  # of /proc/PID/stat, on every node
_STAT = re.compile(r"(\d+) \((.*)\) \S (.*)")


@dataclass(frozen=True)
class Process:
    """One process in the controller's pod."""

    pid: int
    name: str
    began: int  # ticks since the boot: with the pid it is one process
    cpu_s: float  # its own, and that of children that it waited for
    memory_kib: int


def parse(text: str) -> tuple[Process, ...]:
    """Return the processes of lines of /proc/PID/stat.

    >>> parse("7 (nginx) S 1 7 7 0 -1 4 0 0 0 0 150 50 20 5 20 0 1 0 4711 99 250 1")[0].cpu_s
    2.25
    """
    found = []
    for line in text.splitlines():
        if match := _STAT.match(line):
            words = [int(word) for word in match[3].split()]
            cpu, began, pages = sum(words[10:14]) / TICKS, words[18], words[20]
            found.append(Process(int(match[1]), match[2], began, cpu, pages * PAGE_KIB))
    return tuple(found)


@dataclass(frozen=True)
class Change:
    """A change of the cluster, and what the controller did."""

    name: str
    seconds: float  # from the answer of the API until a request from outside shows it
    cpu_s: float  # of the controller's pod on the first node, until all is quiet again
    started: dict[str, int]  # processes that are there after it and were not before


def processes(session: LabSession, front: Pod) -> tuple[Process, ...]:
    look = f"for pid in $(ip netns pids {front.netns}); do cat /proc/$pid/stat 2>/dev/null; done; true"
    return parse(session.hosts.batch(front.node.name, {"it": look})["it"].out)


def compared(name: str, seconds: float, before: Iterable[Process], after: Iterable[Process]) -> Change:
    old, new = ({(process.pid, process.began): process for process in seen} for seen in (before, after))
    started = Counter(process.name for key, process in new.items() if key not in old)
    cpu = sum(process.cpu_s for process in new.values()) - sum(process.cpu_s for process in old.values())
    return Change(name, round(seconds, 1), round(max(cpu, 0.0), 2), dict(started))


def measured(
    session: LabSession, front: Pod, name: str, change: AbstractContextManager[Any], shown: Callable[[], bool]
) -> Change:
    before = processes(session, front)
    with change:
        began = time.monotonic()
        session.until(shown, bool)
        seconds = time.monotonic() - began
        time.sleep(SETTLED_S)
        after = processes(session, front)
    time.sleep(SETTLED_S)
    return compared(name, seconds, before, after)


@contextmanager
def a_pod_more(session: LabSession) -> Iterator[None]:
    with session.scaled(APP1, len(session.endpoints(APP1)) + 1):
        yield


def changes(session: LabSession, front: Pod) -> Iterator[Change]:
    known = session.endpoints(APP1)
    url = f"http://{HOST1}"

    def longer(item: dict[str, Any]) -> None:
        item["spec"]["rules"][0]["http"]["paths"] += rule("/bench", APP2)

    yield measured(
        session,
        front,
        "a pod more",
        a_pod_more(session),
        lambda: session.reached(f"{url}/", front.node) in session.endpoints(APP1) - known,
    )
    yield measured(
        session,
        front,
        "a path to a service that is behind others",
        session.edited(f"{INGRESSES}/apps", longer),
        lambda: session.reached(f"{url}/bench", front.node) in session.endpoints(APP2),
    )
    yield measured(
        session,
        front,
        "a host in an Ingress of its own",
        session.created(INGRESSES, workload.ingress("another", {HOST: {"/": APP1}})),
        lambda: session.reached(f"http://{HOST}/", front.node) in session.endpoints(APP1),
    )


def rule(path: str, service: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workload.ingress("", {"": {path: service}})["spec"]["rules"][0]["http"]["paths"]
    return found


def other_behaviours(session: LabSession, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Return the cases of tests/system/conformance.py in which requests get something else, with what they get."""
    node = session.snapshot.nodes[0]
    found: dict[str, dict[str, Any]] = {}
    for case in CASES:
        body = {**case.ingress, "metadata": {**case.ingress["metadata"]}}
        with session.created(INGRESSES, body):
            seen = session.timing.settled(
                lambda case=case: {url: got(session, url, node) for url in case.gets},  # type: ignore[misc]
                lambda seen, case=case: seen == case.gets,  # type: ignore[misc]
                CASE_S,
            )
        if seen != case.gets:
            found[case.name] = {url: to for url, to in seen.items() if to != case.gets[url]}
            say(f"{case.name}: {found[case.name]}")
    return found


@click.command()
@lab_option
@click.option("--source", default="", help="Where its image is from: a sentence for the page.")
@click.option("--write", is_flag=True, help="Keep the figures for docs/ingress-controllers.md.")
def run(paths: LabPaths, source: str, write: bool) -> None:
    """Measure what changes cost the ingress controller of a running lab."""
    with opened(paths, click.echo) as session:
        name = session.snapshot.setting.ingress
        front = session.controller_pods[session.snapshot.nodes[0].name]
        memory = sum(process.memory_kib for process in processes(session, front)) // 1024
        found = []
        for change in changes(session, front):
            click.echo(
                f"{change.name}: {change.seconds} s, CPU {change.cpu_s} s, {change.started or 'nothing'} started"
            )
            found.append(change)
        others = other_behaviours(session, click.echo)
        accel = "emulated" if state.load(paths).accel == "tcg" else "with KVM"
        entry = {
            "seen": f"{datetime.now(UTC):%Y-%m-%d}",
            "on": f"{len(session.snapshot.nodes)} machines, {accel}",
            "source": source,
            "memory_mib": memory,
            "changes": [asdict(change) for change in found],
            "others": others,
        }
    rows = [[change.name, f"{change.seconds}", f"{change.cpu_s}", str(change.started)] for change in found]
    click.echo(table([["change", "seconds", "CPU seconds", "started"], *rows]))
    if write:
        known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
        fs.write(FIGURES, json.dumps({**known, name: entry}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    run()
