"""The way that a packet took: the predicted one beside what was seen of it; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from hoplab.trace.live.ending import end_of
from hoplab.trace.live.leg import Leg, agrees, is_at
from hoplab.trace.live.observed import Observed
from hoplab.trace.live.sightings import Sighting
from hoplab.trace.model import INFERRED, NOT_SEEN, OTHERWISE, SEEN, UNPREDICTED, End, Hop, Place, Sent, Trace, Way


def compared(model: Trace, observed: Observed, goals: Collection[Place]) -> Trace:
    """Return the way that the packet took, each hop seen or inferred, with what the model predicted otherwise.

    ``goals`` are the places where it should arrive: any of them.
    """
    way, sent = _way(model, observed, observed.of(second=False), goals, answered=observed.answered)
    then: tuple[Trace, ...] = ()
    second = observed.of(second=True)
    if model.then and any(seen.second for seen in second):
        inner = max(model.then, key=lambda trace: _fits(trace.ways[0], second))
        answered = any(seen.leg == "back" and seen.place == inner.ways[0].source for seen in second)
        goals = {way.target for way in inner.ways if way.target}
        found, with_it = _way(inner, observed, second, goals, answered=answered)
        then = (replace(inner, ways=(found,), sent=with_it),)
    notes = list(model.notes)
    others = [other for other in model.ways if other.end]
    if others and way.end is None and len(model.ways) > 1:
        notes.append(f"{len(others)} of {len(model.ways)} ways that rules may draw do not arrive and return (--model)")
    if model.then and not then and way.end is None:
        notes.append("the request that the ingress controller passes on was not seen")
    return Trace(model.source, model.target, (way,), then, tuple(notes), sent)


def _fits(way: Way, sightings: Sequence[Sighting]) -> int:
    """Return how many hops of a predicted way were seen."""
    found = 0
    for leg, hops in (("there", way.there), ("back", way.back)):
        found += sum(
            any(is_at(hop, seen) and agrees(hop, seen) for seen in sightings if seen.leg == leg) for hop in hops
        )
    return found


def _way(
    model: Trace, observed: Observed, sightings: Sequence[Sighting], goals: Collection[Place], *, answered: bool
) -> tuple[Way, Sent]:
    predicted = max(model.ways, key=lambda way: (_fits(way, sightings), way.end is None))
    legs = {leg: [seen for seen in sightings if seen.leg == leg] for leg in ("there", "back")}
    carriers = [seen for seen in sightings if seen.leg == "carrier"]
    there = Leg("there", predicted.there, legs["there"], carriers, observed)
    target = _arrived(legs["there"], goals, observed)
    back = Leg("back", predicted.back if target else (), legs["back"], carriers, observed)
    returned = answered or any(
        seen.place == predicted.source and seen.direction == "in" and not seen.what for seen in legs["back"]
    )
    refused = next((seen for seen in legs["back"] if seen.what), None)
    if refused and target is None:
        returned = False
    quiet = observed.one_way and target is not None and not legs["back"]
    complete = (returned or quiet) and not (refused and target is None)
    end = None if complete else end_of(predicted, there, back, target, refused, observed)
    bends = tuple(predicted.bends) if complete else ()
    shown_there = there.hops(complete=complete or target is not None)
    shown_back = back.hops(complete=complete) if (target and not quiet) or legs["back"] else ()
    wrong = _wrong(predicted, end, [*shown_there, *shown_back])
    own = [hop for hop in (*shown_there, *shown_back) if hop.evidence != NOT_SEEN]
    seen = [hop for hop in own if hop.evidence != INFERRED]
    sent = Sent(
        observed.outcome,
        len(own),
        len(seen),
        sum(hop.evidence == SEEN for hop in seen),
        wrong,
        observed.lacking,
        observed.seconds,
    )
    first = next((seen.header for seen in legs["there"]), predicted.header)
    return Way(predicted.source, first, shown_there, shown_back, end, target, predicted.share, bends), sent


def _arrived(there: Sequence[Sighting], goals: Collection[Place], observed: Observed) -> Place | None:
    """Return the goal where the packet was seen to arrive, None where it was not, or a rule drops it there."""
    dropping = {rule.place for rule in observed.rules if rule.drops and rule.leg == "there"}
    arriving = [seen for seen in there if seen.direction == "in" or seen.dev == "lo"]
    return next(
        (
            seen.place
            for seen in reversed(arriving)
            if seen.place in goals and seen.place not in dropping and not seen.inner
            if observed.translated != seen.itself.dst
        ),
        None,
    )


def _wrong(predicted: Way, end: End | None, hops: Iterable[Hop]) -> tuple[str, ...]:
    """Return in sentences where the model and the real packet differ."""
    found = []
    if predicted.end and end is None:
        found.append(f"the model predicted that it ends at {predicted.end.at}: {predicted.end.why}")
    if end and predicted.end is None:
        found.append("the model predicted that it arrives and its reply returns")
    if end and predicted.end and (end.reply, end.at) != (predicted.end.reply, predicted.end.at):
        found.append(f"the model predicted that it ends at {predicted.end.at}: {predicted.end.why}")
    for hop in hops:
        if hop.evidence == UNPREDICTED:
            found.append(f"not predicted: {hop.interface} of {hop.place} {hop.direction}")
        if hop.evidence == OTHERWISE:
            found.append(f"other addresses than predicted: {hop.interface} of {hop.place} {hop.direction}")
    return tuple(found)
