"""Group changes that belong to one event: a pod is gone, and with it its veth, its route, its endpoint; pure.

A change is a detail of another one where it names it and may follow from it (``CAUSES``). One that no other explains
is a headline itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from hoplab.observe.snapshot import Snapshot
from hoplab.verify.changes.compare import API, NETNS, Compared, compare
from hoplab.verify.changes.entry import Change, Difference, Event, Place

RULESET = frozenset({"rule", "chain", "base chain", "set", "map", "element", "ipset", "order of rules"})
OF_INTERFACES = frozenset({"address", "route", "policy rule", "neighbour", "FDB entry", "sysctl", "WireGuard peer"})
ALONE = frozenset({"machine", "service", "outage"})  # follow from nothing
PAIRED = frozenset({"interface", "sysctl"})  # one may follow from another: a veth's ends, ip_forward
CARRIERS = frozenset({"interface", "chain", "set", "map", "ipset", NETNS})  # what follows from these follows too
SHARE = frozenset({"-m", "--mode", "--probability"})  # fields of a rule: how many of the connections it takes


@dataclass(frozen=True)
class Cause:
    """A kind of change from which others follow."""

    kind: str
    effects: frozenset[str] | None  # kinds of changes that may follow; None: any
    fields: frozenset[str] = frozenset()  # those of a changed one from whose change something follows
    everywhere: bool = False  # also in other places than its own

    def may_explain(self, change: Change) -> bool:
        """Return whether something may follow from a change of this kind."""
        return change.kind == self.kind and (change.verb != "changed" or bool(self.fields & change.fields.keys()))


_UNIQUE = re.compile(r"(?=.*\d)[a-z0-9]{9,}")
# The first that fits explains a change
CAUSES = (
    Cause("machine", None, everywhere=True),
    Cause("node", frozenset({"endpoint", "pod", "IPAM block"}), frozenset({"state"}), everywhere=True),
    Cause("pod", None, frozenset({"name", "address", "node", "phase", "Ready"}), everywhere=True),
    Cause(NETNS, None),
    Cause("service", RULESET | {"endpoint"}, frozenset({"clusterIP", "ports", "type"}), everywhere=True),
    Cause(
        "interface", OF_INTERFACES | RULESET | PAIRED, frozenset({"state", "MAC", "master", "port state", "VRF table"})
    ),
    Cause("address", frozenset({"route"}), frozenset({"address", "prefix length", "broadcast"})),
    Cause("BGP session", frozenset({"route"}), frozenset({"state", "info"})),
    Cause("sysctl", frozenset({"route", "sysctl"}), frozenset({"value"})),
    Cause("table", RULESET),
    Cause("chain", frozenset({"rule"})),
    Cause("set", frozenset({"element"})),
    Cause("map", frozenset({"element"})),
    Cause("ipset", frozenset({"element"})),
)


def difference(before: Snapshot, after: Snapshot) -> Difference:
    """Return all that differs between two snapshots, grouped by what happened."""
    found = compare(before, after)
    lasting = [change for change in found.changes if not change.momentary]
    places = sorted({change.place for change in found.changes}, key=lambda place: _order(place, after))
    return Difference(
        events=tuple(grouped(lasting, found.ends)),
        momentary=tuple(Event(change) for change in found.changes if change.momentary),
        notes=tuple((*_settings(before, after), *_outages(before, after), *_notes(found))),
        places=tuple(places),
    )


def grouped(
    changes: Iterable[Change], ends: Mapping[tuple[Place, str], tuple[Place, str]] | None = None
) -> Iterator[Event]:
    """Yield events in the order of their headlines; ``ends`` has the other end of each veth pair."""
    left = list(changes)
    details: dict[int, list[Change]] = {}
    taken: set[int] = set()
    for cause in CAUSES:
        for headline in left:
            if id(headline) in taken or not cause.may_explain(headline):
                continue
            bound = taken | details.keys()
            free = [change for change in left if change is not headline and id(change) not in bound]
            if found := _followers(headline, cause, free, _reach(headline, ends or {})):
                details[id(headline)] = found
                taken |= {id(change) for change in found}
    for change in left:
        if id(change) not in taken:
            yield Event(change, tuple(details.get(id(change), ())))


def _followers(
    headline: Change, cause: Cause, changes: Iterable[Change], reach: dict[Place, frozenset[str]]
) -> list[Change]:
    """Return what follows from a change, and what follows from that: a pod's chain, and the rules in it."""
    found: list[Change] = []
    left = list(changes)
    while followers := [change for change in left if _follows(change, headline, cause, reach)]:
        found += followers
        taken = set(map(id, followers))
        left = [change for change in left if id(change) not in taken]
        for change in followers:
            if change.kind in CARRIERS and change.verb != "changed":
                reach[change.place] = reach.get(change.place, frozenset()) | change.names
    return found + list(_shares(left, found))


def _reach(headline: Change, ends: Mapping[tuple[Place, str], tuple[Place, str]]) -> dict[Place, frozenset[str]]:
    """Return the places where something may follow, each with the names that the headline's thing has there."""
    reach = {headline.place: headline.names}
    for name in headline.names:
        if other := ends.get((headline.place, name)):
            reach[other[0]] = frozenset({other[1]})
    return reach


def _follows(change: Change, headline: Change, cause: Cause, reach: Mapping[Place, frozenset[str]]) -> bool:
    """Return whether a change may follow from the headline's."""
    if cause.effects is not None and change.kind not in cause.effects:
        return False
    if change.kind in ALONE or (change.kind == headline.kind and change.kind not in PAIRED):
        return False
    if change.verb != "changed" and headline.verb not in ("changed", change.verb):
        return False
    if headline.kind == "pod" and headline.verb == "changed" and headline.fields.keys() <= {"phase", "Ready"}:
        return change.kind == "endpoint" and _names(headline.names, change.mentions)
    if headline.kind == "node" and headline.verb == "changed":
        return change.fields.keys() <= {"Ready", "state"} and _names(headline.names, change.mentions)
    if change.place in reach and _names(reach[change.place], change.mentions):
        return True
    return cause.everywhere and _names(headline.names, change.mentions)


def _shares(changes: Iterable[Change], of: Iterable[Change]) -> Iterator[Change]:
    """Yield rules that only take another share of connections, in chains where other rules came or went."""
    chains = {(change.place, change.entry.key[:2]) for change in of if change.kind == "rule"}
    for change in changes:
        share = change.kind == "rule" and change.verb == "changed" and change.fields.keys() <= SHARE
        if share and (change.place, change.entry.key[:2]) in chains:
            yield change


def _names(names: frozenset[str], text: str) -> bool:
    """Return whether a text has one of these names as a whole word."""
    return any(name in text for name in names) and _pattern(names).search(text) is not None


@lru_cache(maxsize=4096)
def _pattern(names: frozenset[str]) -> re.Pattern[str]:
    """Return a pattern of any of these names as a whole: 10.244.0.4 in "10.244.0.4:8080", not in "10.244.0.41".

    Names like cali83cebb9e5cf may have a prefix: Felix calls a chain cali-fw-cali83cebb9e5cf.
    """
    words = "|".join(
        (r"(?<!\w)" if _UNIQUE.fullmatch(name) else r"(?<![\w.:/-])") + re.escape(name)
        for name in sorted(names, key=len, reverse=True)
    )
    return re.compile(rf"(?:{words})(?![\w-]|\.\w|:[0-9a-f]*:)")


def _order(place: Place, lab: Snapshot) -> tuple[bool, int, Place]:
    """Return the rank of a place: the API, then each node, and after it its pods."""
    names = list(lab.node_facts)
    rank = names.index(place.node) if place.node in names else len(names)
    return place != API, rank, place


def _settings(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """Yield what the two labs themselves differ in: then most differences follow from that."""
    old, new = before.setting, after.setting
    if old.lab != new.lab:
        yield f"these are two labs, {old.lab} and {new.lab}"
    differing = [
        f"{name.replace('_', ' ')} {_text(vars(old)[name])} and {_text(vars(new)[name])}"
        for name in vars(old)
        if name != "lab" and vars(old)[name] != vars(new)[name]
    ]
    if differing:
        yield f"their settings differ: {'; '.join(differing)}"
    versions = [
        f"{name} {before.versions.get(name, 'none')} and {after.versions.get(name, 'none')}"
        for name in dict.fromkeys((*before.versions, *after.versions))
        if before.versions.get(name) != after.versions.get(name)
    ]
    if versions:
        yield f"they were made of different versions: {'; '.join(versions)}"


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items()) or "none"
    return str(value) if value not in (None, "") else "none"


def _outages(before: Snapshot, after: Snapshot) -> Iterator[str]:
    for outage in before.outages:
        if after.outage(outage.place):
            yield f"not compared: {outage.problem}"


def _notes(found: Compared) -> Iterator[str]:
    if found.lacking:
        yield f"not compared, because one side lacks it: {', '.join(sorted(found.lacking))}"
    for why, places in found.unreadable.items():
        yield f"not compared: {why} ({', '.join(sorted(places))})"
