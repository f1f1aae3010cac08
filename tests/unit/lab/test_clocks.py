"""Clocks of nodes: read and moved by the real script, with programs of a node that only write down what they get."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hoplab.core.errors import UnavailableError
from hoplab.core.paths import LabPaths
from hoplab.host import agent
from hoplab.host.agent import AgentError, Done
from hoplab.lab import clocks
from hoplab.lab.clocks import Skew
from tests.support.labs import MADE

NOW = 1_795_902_780.0
ONE = replace(MADE, nodes=tuple(node for node in MADE.nodes if node.name == "worker1"))
PROGRAMS = {
    "ssh": 'while [ "$1" != sudo ]; do shift; done; exec sh -c "$*"',
    "sudo": 'exec "$@"',
    "date": 'case "$1" in -s) echo "date $2" >>LOG;; *) cat CLOCK;; esac',
    "perl": 'echo "seed ${3:-}" | cut -c1-21 >>LOG',
}


class Node:
    """A node that is a folder with its programs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.paths = LabPaths("dev", folder)
        for name, text in PROGRAMS.items():
            self.program(name, text)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def program(self, name: str, text: str) -> None:
        text = text.replace("LOG", str(self.folder / "log")).replace("CLOCK", str(self.folder / "clock"))
        (self.folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.folder / name).chmod(0o755)

    def ahead(self, seconds: float) -> None:
        (self.folder / "clock").write_text(f"{NOW + seconds:.9f}\n")

    def log(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


def clock() -> float:
    return NOW


@pytest.mark.parametrize(("ahead", "words"), [(-3600, "3600 s behind"), (90, "90 s ahead")])
def test_a_clock_that_differs_is_set(node: Node, ahead: float, words: str) -> None:
    node.ahead(ahead)
    skew = clocks.converse(node.paths, "worker1", clock=clock)
    assert skew == Skew("worker1", ahead, set=True)
    assert str(skew) == f"the clock of worker1 was {words}: set"
    assert node.log() == [f"date {-ahead:+.3f} seconds"]


def test_a_clock_that_agrees_is_kept(node: Node) -> None:
    node.ahead(1.5)
    assert clocks.converse(node.paths, "worker1", clock=clock) == Skew("worker1", 1.5)
    assert node.log() == []


def test_a_restored_node_gets_time_and_entropy(node: Node) -> None:
    node.ahead(-0.5)
    assert clocks.converse(node.paths, "worker1", reseed=True, limit_s=0, clock=clock).set
    moved, seed = node.log()
    assert moved == "date +0.500 seconds"
    assert len(seed) == 21 and int(seed.removeprefix("seed "), 16) != 0


def test_every_restored_node_is_set(node: Node) -> None:
    node.ahead(0)
    assert [skew.node for skew in clocks.renew(MADE, node.paths)] == [known.name for known in MADE.nodes]
    assert len(node.log()) == 2 * len(MADE.nodes)


class Notes:
    """A progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_mend_tells_what_it_did(node: Node) -> None:
    node.ahead(0)  # at another time than this machine has
    notes = Notes()
    (skew,) = clocks.mend(ONE, node.paths, notes)  # type: ignore[arg-type]
    assert skew.set
    assert notes.notes == [str(skew)]


@pytest.mark.parametrize(
    ("program", "text", "why"),
    [
        ("ssh", "echo 'Connection refused' >&2; exit 255", "Connection refused"),
        ("ssh", "exit 255", "ssh does not say why"),
        ("perl", "echo 'no perl' >&2; exit 1", "no perl"),
        ("date", 'case "$1" in -s) exit 1;; *) cat CLOCK;; esac', "exit code 2"),
    ],
)
def test_a_node_that_fails(node: Node, program: str, text: str, why: str) -> None:
    node.ahead(-60)
    node.program(program, text)
    with pytest.raises(UnavailableError, match=f"the clock of worker1 could not be set: {why}") as caught:
        clocks.renew(ONE, node.paths)
    assert "./lab ssh worker1" in caught.value.remedy


def test_mend_notes_a_node_that_cannot_be_reached(node: Node) -> None:
    node.program("ssh", "echo 'Connection refused' >&2; exit 255")
    notes = Notes()
    assert clocks.mend(ONE, node.paths, notes) == []  # type: ignore[arg-type]
    assert notes.notes == [
        "the clock of worker1 could not be looked at: the clock of worker1 could not be set: Connection refused"
    ]


def test_a_node_that_never_answers(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "ANSWER_S", 0.2)
    node.ahead(-60)
    node.program("perl", "exec sleep 5")
    with pytest.raises(UnavailableError, match="could not be set: no answer after 0 s"):
        clocks.renew(ONE, node.paths)


class GuestAgent:
    """An agent on such a node, which runs what it gets."""

    def __init__(self, ahead: float, done: Done | None = None) -> None:
        self._ahead, self._done = ahead, done

    def clock(self) -> float:
        return time.time() + self._ahead

    def run(self, script: str, given: str = "", limit_s: float = 0) -> Done:
        ran = subprocess.run(
            ["sh", "-c", script], input=given, timeout=limit_s, capture_output=True, text=True, check=False
        )
        return self._done or Done(ran.returncode, ran.stdout, ran.stderr)


def answered_by(monkeypatch: pytest.MonkeyPatch, guest: GuestAgent) -> list[str]:
    """Let this agent answer for every machine; return the names of those that are asked."""
    asked: list[str] = []

    @contextmanager
    def opened(_uri: str, name: str) -> Iterator[GuestAgent]:
        asked.append(name)
        yield guest

    monkeypatch.setattr(agent, "opened", opened)
    return asked


def test_an_agent_is_asked_before_ssh(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.program("ssh", "echo ssh >>LOG; exit 255")
    asked = answered_by(monkeypatch, GuestAgent(-3600.0))
    (skew,) = clocks.renew(ONE, node.paths)
    assert skew.set and skew.seconds == pytest.approx(-3600, abs=1)
    assert asked == [f"hoplab-{MADE.id}-worker1"]
    assert [line.split()[0] for line in node.log()] == ["date", "seed"]
    assert float(node.log()[0].split()[1]) == pytest.approx(3600, abs=1)


def test_an_agent_whose_clock_agrees_runs_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    answered_by(monkeypatch, GuestAgent(0.5))
    notes = Notes()
    (skew,) = clocks.mend(ONE, node.paths, notes)  # type: ignore[arg-type]
    assert not skew.set
    assert node.log() == [] and notes.notes == []


@pytest.mark.parametrize("done", [Done(2, "", "date: not permitted"), Done(0, "", "date: not permitted")])
def test_a_script_that_fails_on_an_agent(node: Node, monkeypatch: pytest.MonkeyPatch, done: Done) -> None:
    answered_by(monkeypatch, GuestAgent(-60.0, done))
    with pytest.raises(UnavailableError, match="the clock of worker1 could not be set: date: not permitted"):
        clocks.renew(ONE, node.paths)


def test_ssh_does_it_where_the_agent_ends_meanwhile(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ending(GuestAgent):
        def run(self, script: str, given: str = "", limit_s: float = 0) -> Done:
            raise AgentError("it ended")

    answered_by(monkeypatch, Ending(-60.0))
    node.ahead(0.0)
    (skew,) = clocks.renew(ONE, node.paths)
    assert skew.set and [line.split()[0] for line in node.log()] == ["date", "seed"]
