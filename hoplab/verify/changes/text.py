"""The words for what differs: lines for a reader, and the same as JSON; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hoplab.verify.changes.entry import Change, Difference, Entry, Event, Place, Verb

SIGNS: dict[Verb, str] = {"gone": "-", "new": "+", "changed": "~"}
ALIKE = 3  # changes of one kind that are each said; more are one line
DETAILS = 2  # changes of an event that are each said; more are counted
SHOWN = 2  # of those in one line
WHOLE = frozenset({"rule", "route", "policy rule", "address", "element", "order of rules", "clock"})  # said twice
FIELDS = 4  # fields of a changed entry that are said; the JSON has all


def lines(found: Difference, *, everything: bool = False) -> Iterator[str]:
    """Yield lines, below a heading for each place; with ``everything`` each change is a line."""
    events = (*found.events, *(found.momentary if everything else ()))
    for place in found.places:
        here = [event for event in events if event.headline.place == place]
        if here:
            yield str(place)
        for alike in _alike(here, everything=everything):
            if len(alike) > 1:
                yield f"  {_together([event.headline for event in alike])}"
                continue
            yield f"  {said(alike[0].headline)}"
            yield from (f"      {line}" for line in _details(alike[0], everything=everything))


def said(change: Change) -> str:
    """Return a change in words: ``- route 10.244.1.0/24 via ...``, ``~ interface cni0: mtu 1450 -> 1400``."""
    entry, before, fields = change.entry, change.before, change.fields
    sign = f"{SIGNS[change.verb]} {_kind(change)}"
    if before is None or change.after is None:
        return f"{sign}{':' if entry.within else ''} {entry.text}"
    if entry.kind == "pod" and "name" in fields:
        address = {name: values for name, values in fields.items() if name == "address"}
        return f"{sign} {before.called} was replaced by {entry.called}{_fields(address, ', ')}"
    if entry.kind == "rule" and len(fields) == 1 and "rule" not in fields:  # one option
        return f"{sign}{_fields(fields, ': ')} in {entry.text}"
    if entry.kind in WHOLE:
        return f"{sign}{':' if entry.within else ''} {_whole(before, fields)} -> {_whole(entry, fields)}"
    return f"{sign} {before.called}{_fields(fields, ': ')}"


def _whole(entry: Entry, fields: Iterable[str]) -> str:
    """Return the text of an entry, and those of its fields that the text does not have; a rule's has all."""
    if entry.kind == "rule":
        return entry.text
    more = [f"{name} {entry.fields[name]}" for name in fields if entry.fields.get(name, "") not in entry.text]
    return f"{entry.text} ({', '.join(more)})" if more else entry.text


def _kind(change: Change) -> str:
    within = change.entry.within
    return f"{change.kind} of {within}" if within else change.kind


def _fields(fields: dict[str, tuple[str, str]], before: str) -> str:
    words = [
        f"{'' if name == 'value' else f'{name} '}{old or 'none'} -> {new or 'none'}"
        for name, (old, new) in list(fields.items())[:FIELDS]
    ]
    words += [f"and {len(fields) - FIELDS} more"] if len(fields) > FIELDS else []
    return f"{before}{', '.join(words)}" if words else ""


def _alike(events: Sequence[Event], *, everything: bool) -> Iterator[list[Event]]:
    """Yield events in groups: many that are alike in one, all others alone."""
    groups: dict[object, list[Event]] = {}
    for event in events:
        change = event.headline
        values = tuple(change.fields.items()) if change.verb == "changed" and len(change.fields) == 1 else ()
        alone = event.details or everything or (change.verb == "changed" and not values)
        key = id(event) if alone else (change.verb, change.kind, change.entry.within, values)
        groups.setdefault(key, []).append(event)
    for group in groups.values():
        if len(group) > ALIKE:
            yield group
        else:
            yield from ([event] for event in group)


def _together(changes: Sequence[Change]) -> str:
    """Return many changes that are alike in one line."""
    first = changes[0]
    what = f"{SIGNS[first.verb]} {len(changes)} {_plural(first.kind)}"
    what += f" of {first.entry.within}" if first.entry.within else ""
    what += _fields(first.fields, ": ") if first.fields else ""
    named = "; ".join(change.entry.called if first.fields else change.entry.text for change in changes[:SHOWN])
    return f"{what}: {named} and {len(changes) - SHOWN} more"


def _details(event: Event, *, everything: bool) -> Iterator[str]:
    """Yield the lines of what follows from an event: each change, or their numbers by place."""
    home = event.headline.place
    if everything:
        for change in event.details:
            yield f"{'' if change.place == home else f'{change.place}: '}{said(change)}"
        return
    each: dict[str, list[Place]] = {}
    for change in event.details:
        each.setdefault(said(change), []).append(change.place)
    if len(each) > DETAILS:
        each = {}
        for place in dict.fromkeys(change.place for change in event.details):
            each.setdefault(counted(change for change in event.details if change.place == place), []).append(place)
    for text, places in each.items():
        where = "" if places == [home] else f"{', '.join(map(str, places))}: "
        yield f"{where}{text}"


def counted(changes: Iterable[Change]) -> str:
    """Return the numbers of changes by kind: ``- 1 route, 4 sysctls; + 1 endpoint``."""
    found = list(changes)
    parts = []
    for verb, sign in SIGNS.items():
        kinds = Counter(change.kind for change in found if change.verb == verb)
        if kinds:
            parts.append(
                f"{sign} " + ", ".join(f"{n} {kind if n == 1 else _plural(kind)}" for kind, n in kinds.items())
            )
    return "; ".join(parts)


def _plural(kind: str) -> str:
    """
    >>> _plural("route"), _plural("FDB entry"), _plural("address"), _plural("listening socket")
    ('routes', 'FDB entries', 'addresses', 'listening sockets')
    """
    if kind.endswith("ry"):
        return f"{kind[:-1]}ies"
    return f"{kind}{'es' if kind.endswith(('s', 'x')) else 's'}"


def document(found: Difference, *, everything: bool = False) -> dict[str, Any]:
    """Return what differs as ``json.dumps`` takes it."""
    return {
        "same": found.same,
        "notes": list(found.notes),
        "events": [
            {**_change(event.headline), "details": [_change(change) for change in event.details]}
            for event in (*found.events, *(found.momentary if everything else ()))
        ],
    }


def _change(change: Change) -> dict[str, Any]:
    entry = change.entry
    return {
        "node": change.place.node,
        "pod": change.place.pod,
        "change": change.verb,
        "kind": entry.kind,
        "within": entry.within,
        "before": change.before.text if change.before else None,
        "after": change.after.text if change.after else None,
        "fields": {name: list(values) for name, values in change.fields.items()},
    }
