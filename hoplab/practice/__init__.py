"""Practice: a network made by hand, in network namespaces on a node, and graded by what is really there.

One exercise is one file of this folder with one ``EXERCISE``; there is no list to edit. An exercise is data (a starting
state, a task in words, hints) and one pure function that grades what was seen. ``desk.py`` starts, checks and removes
them, ``grades.py`` has the sentences they share, ``talk.py`` is the server and client inside the namespaces.

All their addresses are of 172.31.0.0/16 and 10.200.0.0/16 and exist inside the namespaces only.
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

PORT = 8080  # where the exercises' servers listen


class PracticeError(LabError):
    """An exercise that does not exist, is not started, or can't be."""


@dataclass(frozen=True)
class Server:
    """A server that answers with its namespace and the address it saw: `practice-right was asked by 172.31.3.1`."""

    namespace: str
    port: int = PORT


@dataclass(frozen=True)
class Request:
    """A real packet: one TCP connection, made by every check."""

    source: str  # the namespace it is made in
    address: IPv4Address
    port: int = PORT

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Grade:
    """One thing that was asked for: it is there, or what is missing and what is there instead."""

    done: bool
    sentence: str
    seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """What one look at an exercise found."""

    places: Mapping[str, Facts]  # by namespace
    answers: Mapping[Request, Output]
    node_links: tuple[Link, ...] = ()  # the node's own interfaces, where an exercise has the learner make some

    def __getitem__(self, namespace: str) -> Facts:
        return self.places[namespace]


@dataclass(frozen=True)
class Exercise:
    """One thing to do by hand."""

    name: str  # "veth"
    day: int  # of the course's learning path
    title: str  # one line
    task: str  # what to do, in words
    hints: tuple[str, ...]  # each says more than the one before; none is the solution
    namespaces: tuple[str, ...]  # "practice-left": no other exercise has one of these
    setup: str  # shell commands that make the starting state inside the namespaces, `lo` being up already
    looks: Mapping[str, tuple[Fact[Any], ...]]  # what the grades need to know of each namespace
    grade: Callable[[Seen], Iterator[Grade]]
    servers: tuple[Server, ...] = ()
    requests: tuple[Request, ...] = ()
    # Interfaces that the learner makes, and their kinds. One that was made on the node itself by mistake is told and,
    # by a reset, removed; so an exercise does not start on a node that has an interface of that name.
    makes: Mapping[str, str] = field(default_factory=dict)


def discover() -> tuple[Exercise, ...]:
    """Every exercise of this folder, in the course's order."""
    modules = [
        importlib.import_module(f"{exercises_folder.__name__}.{found.name}")
        for found in pkgutil.iter_modules(exercises_folder.__path__)
    ]
    exercises = [module.EXERCISE for module in modules if hasattr(module, "EXERCISE")]
    return tuple(sorted(exercises, key=lambda exercise: (exercise.day, exercise.name)))


def find(name: str) -> Exercise:
    """The exercise of that name; PracticeError with the nearest known one."""
    known = {exercise.name: exercise for exercise in discover()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0)
    raise PracticeError(
        f"there is no exercise {name!r}; the nearest is {near[0]!r}", remedy=f"there are: {', '.join(known)}"
    )
