"""A trace as text for a terminal, and as JSON; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from hoplab.trace.link import UNKNOWN
from hoplab.trace.model import INFERRED, End, Event, Hop, Sent, Trace, Way

NAME = 10  # characters of an event's name
INDENT = "     "


def text(trace: Trace) -> str:
    """Return a trace as lines: the outcome, each hop there and back with what was done at it, and where it ends."""
    return "\n".join(chain(_lines(trace), *(["", "then", *_lines(inner)] for inner in trace.then))) + "\n"


def _lines(trace: Trace) -> Iterator[str]:
    way = trace.shown
    yield f"{trace.source} to {trace.target}: {way.header.protocol_name} {way.header}"
    yield outcome(trace)
    width = _widths(way)
    for name, hops in (("there", way.there), ("back", way.back)):
        if hops:
            yield ""
            yield name
        for number, hop in enumerate(hops, start=1):
            yield from _hop(number, hop, width)
    if way.end:
        yield ""
        yield from _ended(way.end)
    for bend in way.bends:
        yield f"{'note':<{NAME}}{bend}"
    if trace.sent:
        yield from _sent(trace.sent)
    for note in trace.notes:
        yield f"{'note':<{NAME}}{note}"


def last_lines(trace: Trace, hops: int) -> tuple[str, ...]:
    """Return the last hops of a trace with what happens there, and where it ends, as lines without columns."""
    way = trace.shown
    last = (way.back or way.there)[-hops:]
    lines = [line.strip() for hop in last for line in _hop(0, hop, (0, 0, 0))]
    lines = [line.removeprefix("0  ").removesuffix(INFERRED).strip() for line in lines]
    return (*lines, *(_ended(way.end) if way.end else ()), *(f"{'note':<{NAME}}{bend}" for bend in way.bends))


def _sent(sent: Sent) -> Iterator[str]:
    """Yield what was seen of a real packet, and where the model was wrong."""
    yield f"{'sent':<{NAME}}{sent.what}: {summary(sent)}"
    for sentence in sent.wrong:
        yield f"{'model':<{NAME}}{sentence}"
    for sentence in sent.lacking:
        yield f"{'lacking':<{NAME}}{sentence}"


def summary(sent: Sent) -> str:
    """Return how much of a packet's way was seen: "16 of 16 hops seen, all as predicted"."""
    as_predicted = "all" if sent.predicted == sent.seen else str(sent.predicted)
    return f"{sent.seen} of {sent.hops} hops seen, {as_predicted} as predicted"


def outcome(trace: Trace) -> str:
    """Return in a sentence whether the packet arrives, by which of the ways that rules may draw."""
    way = trace.shown
    if way.end is None and trace.sent and not way.back:
        sentence = f"arrives at {way.target}, which sends no reply"
    elif way.end is None:
        sentence = f"arrives at {way.target or trace.target}, and the reply returns"
    elif way.end.kind == UNKNOWN:
        sentence = f"{'its reply ' if way.end.reply else ''}cannot be followed beyond {way.end.at}"
    elif way.end.reply:
        sentence = f"arrives at {way.target}, but the reply does not return: it ends at {way.end.at}"
    else:
        sentence = f"does not arrive: it ends at {way.end.at}"
    if len(trace.ways) > 1:
        failing = sum(1 for other in trace.ways if other.end)
        others = (
            "all of them arrive"
            if not failing
            else f"{failing} of them {'does' if failing == 1 else 'do'} not arrive and return"
        )
        sentence += f" (one of {len(trace.ways)} ways that rules may draw, {way.share:.0%} of connections; {others})"
    return sentence


def _widths(way: Way) -> tuple[int, int, int]:
    hops = (*way.there, *way.back)
    columns = ([str(hop.place) for hop in hops], list(map(_interface, hops)), list(map(_addresses, hops)))
    return tuple(max(map(len, column), default=0) for column in columns)  # type: ignore[return-value]


def _interface(hop: Hop) -> str:
    return f"{hop.interface} ({hop.port})" if hop.port else hop.interface or "-"


def _addresses(hop: Hop) -> str:
    return f"{hop.header} [{hop.wrapped}: {hop.inner}]" if hop.inner else str(hop.header)


def _hop(number: int, hop: Hop, width: Sequence[int]) -> Iterator[str]:
    place, interface, addresses = width
    yield (
        f"{number:>3}  {hop.place!s:<{place}}  {_interface(hop):<{interface}}  {hop.direction:<3}  "
        f"{_addresses(hop):<{addresses}}  {hop.evidence}"
    )
    for event in hop.events:
        yield from _event(event)


def _event(event: Event) -> Iterator[str]:
    where = f" ({event.where})" if event.where and event.kind == "route" else ""
    seen = f"  {event.evidence}" if event.evidence != INFERRED else ""
    yield f"{INDENT}{event.kind:<{NAME}}{event.text}{where}".rstrip() + seen
    more = (event.where if event.kind != "route" else "", event.result)
    if any(more):
        yield f"{INDENT}{'':<{NAME}}{': '.join(part for part in more if part)}"


def _ended(end: End) -> Iterator[str]:
    packet = "the reply" if end.reply else "the packet"
    yield f"{'ends':<{NAME}}{packet} reaches {end.last}, and not {end.missing}"
    yield f"{'why':<{NAME}}{end.why}"
    if end.cause not in end.why:
        yield f"{end.kind:<{NAME}}{end.cause}"


def as_json(trace: Trace) -> dict[str, Any]:
    """Return a trace as ``json.dumps`` takes it; addresses are text, the way that is shown comes first."""
    ways = [trace.shown, *(way for way in trace.ways if way is not trace.shown)]
    return {
        "from": trace.source,
        "to": trace.target,
        "complete": trace.complete,
        "outcome": outcome(trace),
        "ways": [_way(way) for way in ways],
        "then": [as_json(inner) for inner in trace.then],
        "notes": list(trace.notes),
        **({"sent": asdict(trace.sent)} if trace.sent else {}),
    }


def _way(way: Way) -> dict[str, Any]:
    return {
        "share": round(way.share, 4),
        "arrives": str(way.target) if way.target else None,
        "returns": way.end is None,
        "there": [_hop_json(hop) for hop in way.there],
        "back": [_hop_json(hop) for hop in way.back],
        "end": {**asdict(way.end), "last": str(way.end.last), "at": str(way.end.at)} if way.end else None,
        "bends": list(way.bends),
    }


def _hop_json(hop: Hop) -> dict[str, Any]:
    return {
        "place": str(hop.place),
        "interface": hop.interface,
        "port": hop.port,
        "direction": hop.direction,
        "packet": _header(hop.header),
        "carries": {"how": hop.wrapped, "packet": _header(hop.inner)} if hop.inner else None,
        "events": [asdict(event) for event in hop.events],
        "evidence": hop.evidence,
    }


def _header(header: Any) -> dict[str, Any]:
    return {**asdict(header), "src": str(header.src), "dst": str(header.dst)}
