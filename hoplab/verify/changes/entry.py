"""Entries: one thing of a lab each, by what it is identified and what of it may differ; and changes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Verb = Literal["gone", "new", "changed"]


@dataclass(frozen=True, order=True)
class Place:
    """A network namespace with a name, or the Kubernetes API."""

    node: str = ""  # "worker1"; "" for the API
    pod: str = ""  # "hoplab-verify/echo-9p2h6", or the namespace's name where no pod is known; "" for the node's own

    def __str__(self) -> str:
        return f"pod {self.pod} on {self.node}" if self.pod else self.node or "Kubernetes"


@dataclass(frozen=True)
class Entry:
    """One thing that a fact shows: a route, an FDB entry, a rule of a chain.

    Entries of one place with the same kind and key are the same thing at two moments. Where several have the same key,
    the equal ones are paired first.
    """

    kind: str  # "route"
    key: tuple[str, ...]  # ("main", "10.244.1.0/24")
    fields: Mapping[str, str]  # what may differ, in the order in which it is said; {"via": "10.244.1.0"}
    text: str  # as its command prints it: "10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink"
    name: str = ""  # of a changed one, where that is not its text: "cni0"
    within: str = ""  # what it is part of: "iptables nat", "table local"
    momentary: bool = False  # comes and goes by itself, as a learned MAC does
    names: frozenset[str] = frozenset()  # what other entries call it
    words: str = ""  # further text in which it names others
    kin: tuple[str, ...] = ()  # of one that is replaced rather than changed: pods of one workload on one node
    rank: int = -1  # its place among the rules of a chain, from 0; -1 where order has no meaning

    @property
    def called(self) -> str:
        """Return what it is called where only a part of it changed."""
        return self.name or self.text

    @property
    def mentions(self) -> str:
        """Return all text in which it may name other entries."""
        return " ".join((self.text, self.within, self.words, *self.fields.values()))


@dataclass(frozen=True)
class Change:
    """One entry that is gone, new, or another one than before."""

    place: Place
    before: Entry | None
    after: Entry | None

    @property
    def entry(self) -> Entry:
        """Return the entry as it is, or as it was where it is gone."""
        found = self.after or self.before
        assert found
        return found

    @property
    def verb(self) -> Verb:
        if self.before is None:
            return "new"
        return "gone" if self.after is None else "changed"

    @property
    def kind(self) -> str:
        return self.entry.kind

    @property
    def momentary(self) -> bool:
        """Return whether it comes and goes by itself. One that is still there and has changed is no such thing."""
        return self.verb != "changed" and self.entry.momentary

    @cached_property
    def fields(self) -> dict[str, tuple[str, str]]:
        """Return what differs of a changed entry: before and after; "" where it has no such field."""
        if self.before is None or self.after is None:
            return {}
        before, after = self.before.fields, self.after.fields
        return {
            name: (before.get(name, ""), after.get(name, ""))
            for name in dict.fromkeys((*before, *after))
            if before.get(name, "") != after.get(name, "")
        }

    @cached_property
    def names(self) -> frozenset[str]:
        """Return what other entries call it, before and after."""
        return frozenset().union(*(entry.names for entry in (self.before, self.after) if entry))

    @cached_property
    def mentions(self) -> str:
        return " ".join(entry.mentions for entry in (self.before, self.after) if entry)


@dataclass(frozen=True)
class Event:
    """Changes that belong to one thing that happened: a headline, and what follows from it."""

    headline: Change
    details: tuple[Change, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        return (self.headline, *self.details)


@dataclass(frozen=True)
class Difference:
    """All that differs between two snapshots."""

    events: tuple[Event, ...]
    momentary: tuple[Event, ...] = ()  # what comes and goes by itself
    notes: tuple[str, ...] = ()  # what could not be compared, and what else the reader should bear in mind
    places: tuple[Place, ...] = ()  # in the order in which they are shown

    @property
    def same(self) -> bool:
        return not self.events
