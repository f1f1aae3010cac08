"""Practice: exercises in network namespaces on a node, checked by the state of the kernel.

An exercise is a module of ``exercises/`` with one ``EXERCISE``; there is no list to edit. It consists of data
(starting state, task, hints) and one pure function that checks an inspection. ``runner.py`` starts,
checks and removes exercises, ``checks.py`` has the checks that exercises share, ``echo.py`` is the server and client
inside the namespaces.

All addresses are in 172.31.0.0/16 and 10.200.0.0/16 and exist only inside the namespaces.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from hoplab.core.errors import LabError
from hoplab.observe.facts import Fact, Facts
from hoplab.observe.facts.links import Link
from hoplab.observe.script import Output
from hoplab.practice import exercises as exercises_folder

PORT = 8080  # of the exercises' servers


class PracticeError(LabError):
    """An exercise that does not exist, is not started, or can't be started."""


@dataclass(frozen=True)
class Server:
    """A server that answers with its namespace and the client's address: `practice-right was asked by 172.31.3.1`."""

    namespace: str
    port: int = PORT


@dataclass(frozen=True)
class Request:
    """A TCP connection that every check makes."""

    source: str  # the client's namespace
    address: IPv4Address
    port: int = PORT

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check: whether it passed, a message, and the evidence."""

    passed: bool
    message: str
    evidence: tuple[str, ...] = ()  # lines of `ip` or iptables


@dataclass(frozen=True)
class Inspection:
    """The facts and answers that the runner collected in the namespaces of one exercise."""

    places: Mapping[str, Facts]  # by namespace
    answers: Mapping[Request, Output]
    node_links: tuple[Link, ...] = ()  # the node's own interfaces, for an exercise with ``makes``

    def __getitem__(self, namespace: str) -> Facts:
        return self.places[namespace]


@dataclass(frozen=True)
class Exercise:
    """One task to solve by hand."""

    name: str  # "veth"
    day: int  # of the course's learning path
    title: str  # one line
    task: str  # what to do
    hints: tuple[str, ...]  # each more detailed than the one before; none is the solution
    namespaces: tuple[str, ...]  # "practice-left": each belongs to one exercise
    setup: str  # shell commands for the starting state inside the namespaces; `lo` is up
    facts: Mapping[str, tuple[Fact[Any], ...]]  # the facts that ``check`` reads, by namespace
    check: Callable[[Inspection], Iterator[CheckResult]]
    servers: tuple[Server, ...] = ()
    requests: tuple[Request, ...] = ()
    # Interfaces that the learner makes, and their kinds. A check reports an interface made on the node itself by
    # mistake, and a reset removes it. So an exercise does not start on a node with an interface of that name.
    makes: Mapping[str, str] = field(default_factory=dict)


def discover() -> tuple[Exercise, ...]:
    """Return every exercise of ``exercises/``, sorted by day and name."""
    modules = [
        importlib.import_module(f"{exercises_folder.__name__}.{found.name}")
        for found in pkgutil.iter_modules(exercises_folder.__path__)
    ]
    exercises = [module.EXERCISE for module in modules if hasattr(module, "EXERCISE")]
    return tuple(sorted(exercises, key=lambda exercise: (exercise.day, exercise.name)))


def find(name: str) -> Exercise:
    """Return the exercise of that name; raise PracticeError with the nearest known name."""
    known = {exercise.name: exercise for exercise in discover()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0)
    raise PracticeError(
        f"there is no exercise {name!r}; the nearest is {near[0]!r}", remedy=f"there are: {', '.join(known)}"
    )
