"""The way that a packet took: the predicted one beside what was seen of it; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from hoplab.trace.live.drops import NOT_SPECIFIED, Drop, Lookup
from hoplab.trace.live.sightings import Sighting
from hoplab.trace.model import (
    INFERRED,
    NOT_SEEN,
    OTHERWISE,
    OUTSIDE,
    SEEN,
    UNPREDICTED,
    End,
    Event,
    Header,
    Hop,
    Place,
    Sent,
    Trace,
    Way,
)

WIRE = Place("wire")
NEAR_NS = 50_000_000  # a drop that is reported so long after the packet was last seen may be its own
TRANSLATING = ("dnat", "snat")
HOW = {"wireguard": "WireGuard"}


@dataclass(frozen=True)
class RuleHit:
    """A rule that a packet matched on a node, in its user's words."""

    place: Place
    where: str  # "iptables nat, KUBE-SEP-OEQII452HUCDINZ5"
    text: str
    verdict: str
    leg: str  # "there", "back"

    @property
    def drops(self) -> bool:
        return self.verdict == "drop"


@dataclass(frozen=True)
class Observed:
    """All that was seen of one packet and its reply."""

    sightings: tuple[Sighting, ...]
    outcome: str  # as the sender knows it: "connected", "Connection refused", "no answer in 2.5 s"
    answered: bool  # the sender got a reply
    rules: tuple[RuleHit, ...] = ()
    drops: Mapping[Place, tuple[Drop, ...]] = field(default_factory=dict)  # of nodes, on the clock of sightings
    lookups: Mapping[Place, tuple[Lookup, ...]] = field(default_factory=dict)
    pods: Mapping[Place, Place] = field(default_factory=dict)  # the nodes of pods
    one_way: bool = False  # no reply is expected
    lacking: tuple[str, ...] = ()
    seconds: float = 0.0

    def of(self, *, second: bool) -> tuple[Sighting, ...]:
        return tuple(seen for seen in self.sightings if seen.second == second or seen.leg == "carrier")


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
            any(_is_at(hop, seen) and _agrees(hop, seen) for seen in sightings if seen.leg == leg) for hop in hops
        )
    return found


def _way(
    model: Trace, observed: Observed, sightings: Sequence[Sighting], goals: Collection[Place], *, answered: bool
) -> tuple[Way, Sent]:
    predicted = max(model.ways, key=lambda way: (_fits(way, sightings), way.end is None))
    legs = {leg: [seen for seen in sightings if seen.leg == leg] for leg in ("there", "back")}
    carriers = [seen for seen in sightings if seen.leg == "carrier"]
    there = _Leg("there", predicted.there, legs["there"], carriers, observed)
    target = _arrived(legs["there"], goals, observed)
    back = _Leg("back", predicted.back if target else (), legs["back"], carriers, observed)
    returned = answered or any(
        seen.place == predicted.source and seen.direction == "in" and not seen.what for seen in legs["back"]
    )
    refused = next((seen for seen in legs["back"] if seen.what), None)
    if refused and target is None:
        returned = False
    quiet = observed.one_way and target is not None and not legs["back"]
    complete = (returned or quiet) and not (refused and target is None)
    end = None if complete else _end(predicted, there, back, target, refused, observed)
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
        (seen.place for seen in reversed(arriving) if seen.place in goals - dropping and not seen.inner),
        None,
    )


def _is_at(hop: Hop, seen: Sighting) -> bool:
    if hop.place != seen.place or hop.direction != seen.direction or bool(hop.inner) != bool(seen.inner):
        return False
    return hop.place == OUTSIDE or seen.dev in (hop.interface, hop.port)


def _agrees(hop: Hop, seen: Sighting) -> bool:
    return all(
        _same(wanted, found)
        for wanted, found in ((hop.header, seen.header), (hop.inner, seen.inner))
        if wanted and found
    )


def _same(wanted: Header, found: Header) -> bool:
    if (wanted.src, wanted.dst) != (found.src, found.dst):
        return False
    if wanted.protocol != found.protocol:
        return found.protocol == "icmp"  # an error about it
    return all(port in (0, real) for port, real in ((wanted.sport, found.sport), (wanted.dport, found.dport)))


class _Leg:
    """The packet on its way there, or its reply on its way back."""

    def __init__(
        self,
        name: str,
        predicted: Sequence[Hop],
        seen: Sequence[Sighting],
        carriers: Sequence[Sighting],
        observed: Observed,
    ) -> None:
        self.name, self.predicted, self.seen, self.observed = name, predicted, seen, observed
        self.matched: list[Sighting | None] = [self._at(hop, carriers) for hop in predicted]
        used = {id(found) for found in self.matched}
        self.receivers = {header.dst for one in seen for header in (one.header, one.inner) if header}
        self.others = [one for one in seen if id(one) not in used and not self._another_end(one)]
        self.last = max((number for number, found in enumerate(self.matched) if found), default=-1)

    def _at(self, hop: Hop, carriers: Sequence[Sighting]) -> Sighting | None:
        at = [seen for seen in self.seen if _is_at(hop, seen)]
        if not at and hop.inner and hop.wrapped == HOW["wireguard"]:
            return self._encrypted(hop, carriers)
        return next((seen for seen in at if _agrees(hop, seen)), next(iter(at), None))

    def _encrypted(self, hop: Hop, carriers: Sequence[Sighting]) -> Sighting | None:
        """Return a packet of the predicted addresses that left or came while the traced one was on its way."""
        times = [seen.time for seen in self.seen]
        if not times:
            return None
        least, most = min(times), max(times)
        return next(
            (
                replace(seen, inner=hop.inner)
                for seen in carriers
                if (seen.place, seen.direction, seen.dev) == (hop.place, hop.direction, hop.interface)
                and _same(hop.header, seen.header)
                and least <= seen.time <= most + NEAR_NS
            ),
            None,
        )

    def _another_end(self, seen: Sighting) -> bool:
        """Return whether it is the same step as a predicted hop: a port of its bridge, or that of the lab network."""
        if seen.place == WIRE:
            return True
        return any(
            hop.place == seen.place and hop.direction == seen.direction and seen.dev in (hop.interface, hop.port)
            for hop in self.predicted
        )

    @property
    def last_seen(self) -> Sighting | None:
        """Return where it was seen last, on the lab network too."""
        return max(self.seen, key=lambda seen: (seen.time, seen.order), default=None)

    def hops(self, *, complete: bool) -> tuple[Hop, ...]:
        """Return the hops of the way: seen, inferred where it was seen farther on, or not seen."""
        found: list[tuple[Hop, Sighting | None]] = []
        for number, (hop, seen) in enumerate(zip(self.predicted, self.matched, strict=True)):
            if seen:
                agrees = _agrees(hop, seen)
                real = replace(hop, header=seen.header, inner=seen.inner, evidence=SEEN if agrees else OTHERWISE)
                found.append((real, seen))
            else:
                passed = complete or number < self.last
                found.append((hop if passed else replace(hop, evidence=NOT_SEEN, events=()), None))
        for seen in self._joined():
            evidence = UNPREDICTED if self.predicted else SEEN
            port = seen[1].dev if len(seen) > 1 else ""
            one = seen[0]
            hop = Hop(one.place, one.dev, one.direction, one.header, port, one.inner, one.wrapped, (), evidence)
            at = next(
                (
                    number + 1
                    for number in range(len(found) - 1, -1, -1)
                    if (before := found[number][1]) and (before.time, before.order) <= (one.time, one.order)
                ),
                0,
            )
            found.insert(at, (hop, one))
        last = next((number for number in range(len(found) - 1, -1, -1) if found[number][1]), -1)
        hops = [self._with_events(hop, is_last=number == last) for number, (hop, _) in enumerate(found)]
        return self._wired(hops)

    def _joined(self) -> Iterator[tuple[Sighting, ...]]:
        """Yield the sightings that nothing predicted; those of a bridge and of its port as one, the bridge first."""
        left = list(self.others)
        while left:
            one = left.pop(0)
            same = next(
                (
                    other
                    for other in left
                    if (one.place, one.direction, one.header, one.inner)
                    == (other.place, other.direction, other.header, other.inner)
                ),
                None,
            )
            if same:
                left.remove(same)
                yield (same, one) if one.direction == "in" else (one, same)
            else:
                yield (one,)

    def _with_events(self, hop: Hop, *, is_last: bool) -> Hop:
        """Return the hop with its events marked that were seen, and the rules that drop its packet."""
        rules = [rule for rule in self.observed.rules if rule.place == hop.place and rule.leg == self.name]
        texts = {rule.text for rule in rules}
        events = tuple(
            replace(event, evidence=SEEN) if event.text in texts or self._looked_up(hop, event) else event
            for event in hop.events
        )
        known = {event.text for event in events}
        events += tuple(
            Event("rule", rule.text, rule.where, rule.verdict.upper(), SEEN)
            for rule in dict.fromkeys(rules)
            if rule.drops and rule.text not in known and is_last
        )
        return replace(hop, events=events)

    def _looked_up(self, hop: Hop, event: Event) -> bool:
        """Return whether the kernel was seen to take the routing decision of a node."""
        if event.kind != "route" or hop.place.kind != "node":
            return False
        words = event.text.split()
        dev = words[words.index("dev") + 1] if "dev" in words[:-1] else ""
        return any(
            dev and lookup.dev == dev and not lookup.error and lookup.dst in self.receivers and _is_for(lookup, words)
            for lookup in self.observed.lookups.get(hop.place, ())
        )

    def _wired(self, hops: Sequence[Hop]) -> tuple[Hop, ...]:
        """Return the hops with the ports of the lab network's bridge by which the packet was seen to pass."""
        wire = [seen for seen in self.seen if seen.place == WIRE]
        found = list(hops)
        for number, hop in enumerate(hops):
            after = hops[number + 1] if number + 1 < len(hops) else None
            machine = hop.place.kind == "node" and hop.direction == "out" and (not after or after.place != hop.place)
            outside = hop.place == OUTSIDE and hop.direction == "out"
            if not (machine or outside) or (after and after.place.kind == "pod"):
                continue
            ports = [seen.dev for seen in wire if bool(seen.inner) == bool(hop.inner) and _same_ends(seen, hop)]
            if ports:
                event = Event("wire", " to ".join(dict.fromkeys(ports)), "ports of the lab network", evidence=SEEN)
                found[number] = replace(hop, events=(*hop.events, event))
        return tuple(found)


def _same_ends(seen: Sighting, hop: Hop) -> bool:
    return (seen.header.src, seen.header.dst) == (hop.header.src, hop.header.dst)


def _is_for(lookup: Lookup, words: Sequence[str]) -> bool:
    """Return whether a route's text, "10.244.1.0/24 via ...", is of a destination."""
    first = next((word for word in words if word not in ("local", "unicast")), "")
    try:
        return first == "default" or lookup.dst in ip_network(first, strict=False)
    except ValueError:
        return False


def _end(
    predicted: Way, there: _Leg, back: _Leg, target: Place | None, refused: Sighting | None, observed: Observed
) -> End:
    """Return where the packet, or its reply, was seen last, and why it went no farther, as far as that is known."""
    reply = target is not None
    leg = back if reply else there
    hop = _next_place(leg, predicted, reply=reply)
    seen = leg.last_seen
    last = _place(seen) if seen else (target if reply and target else predicted.source)
    if seen and seen.place == WIRE:
        last = OUTSIDE
    missing = hop
    if drop := next((rule for rule in observed.rules if rule.drops and rule.leg == leg.name), None):
        why = f"`{drop.text}` in {drop.where} of {drop.place} {_drops(drop.text)} it"
        return End(drop.place, missing, "rule", drop.text, why, drop.place, reply, SEEN)
    own = predicted.end
    if own and own.reply == reply and (seen is None or _consistent(leg, own)):
        reason = _reason(observed, seen, own.at)
        why = f"{own.why} (the kernel there: {reason})" if reason else own.why
        return replace(
            own,
            last=last,
            missing=missing if own.missing == "" else own.missing,
            why=why,
            evidence=SEEN if reason else INFERRED,
        )
    if refused and not reply:
        who = _first_of(back) or refused.place
        why = f"{who} answers with {refused.what}"
        return End(last, missing, "refused", refused.what, why, who, reply, SEEN)
    if reply and not back.seen:
        assert target
        why = f"{target} got it, and no reply of it was seen"
        return End(target, str(predicted.source), "silent", "no reply", why, target, True, SEEN)
    at = observed.pods.get(last, last) if seen and seen.direction == "out" and last.kind == "pod" else last
    reason = _reason(observed, seen, at)
    if reason:
        return End(last, missing, "dropped", reason, f"the kernel of {at} dropped it: {reason}", at, reply, SEEN)
    why = f"it was seen at {_where(seen)}, and not at {missing}; no report says why" if seen else "it was seen nowhere"
    return End(last, missing, "lost", "no reason was reported", why, at, reply, SEEN)


def _where(seen: Sighting | None) -> str:
    if seen is None:
        return "nothing"
    if seen.place == WIRE:
        return f"{seen.dev} of the lab network"
    return f"{seen.dev} of {seen.place}" if seen.place != OUTSIDE else "the outside"


def _drops(text: str) -> str:
    return "rejects" if "REJECT" in text or "reject" in text else "drops"


def _place(seen: Sighting) -> Place:
    return seen.place


def _first_of(leg: _Leg) -> Place | None:
    """Return where an answer was seen first: who sent it."""
    first = min(leg.seen, key=lambda seen: (seen.time, seen.order), default=None)
    return first.place if first and first.place != WIRE else None


def _next_place(leg: _Leg, predicted: Way, *, reply: bool) -> str:
    """Return the first place where it was expected and not seen."""
    hops = leg.predicted[leg.last + 1 :]
    current = leg.predicted[leg.last].place if leg.last >= 0 else None
    following = next((hop.place for hop in hops if hop.place != current), None)
    if following:
        return str(following)
    if predicted.end and predicted.end.missing:
        return predicted.end.missing
    goal = predicted.source if reply else predicted.target
    return str(goal or "its receiver")


def _consistent(leg: _Leg, end: End) -> bool:
    """Return whether it was seen no farther than the model says."""
    return not leg.others and all(found is not None for found in leg.matched[:1]) and leg.last >= 0


def _reason(observed: Observed, seen: Sighting | None, at: Place) -> str:
    """Return why a node dropped a packet soon after the traced one was last seen; "" where nothing says so."""
    node = observed.pods.get(at, at)
    if seen is None:
        return ""
    near = [drop for drop in observed.drops.get(node, ()) if -NEAR_NS / 10 <= drop.time - seen.time <= NEAR_NS]
    near.sort(key=lambda drop: (drop.reason == NOT_SPECIFIED, abs(drop.time - seen.time)))
    return f"{near[0].reason} in {near[0].function}" if near else ""


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
