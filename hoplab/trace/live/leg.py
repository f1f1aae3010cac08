"""One direction of a packet's way: each predicted hop with where it was seen; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network

from hoplab.trace.live.drops import Lookup
from hoplab.trace.live.observed import NEAR_NS, WIRE, Observed
from hoplab.trace.live.sightings import Sighting
from hoplab.trace.model import ICMP6, MAPS, NOT_SEEN, OTHERWISE, OUTSIDE, SEEN, UNPREDICTED, Event, Header, Hop, Place

PROVEN = frozenset({"program", "restored", "wrapped", "unwrapped", "bridge"})  # kinds of events that the next hop shows
WIREGUARD = "WireGuard"  # how a hop carries a packet that nobody can read there


def is_at(hop: Hop, seen: Sighting) -> bool:
    if hop.place != seen.place or hop.direction != seen.direction or bool(hop.inner) != bool(seen.inner):
        return False
    return hop.place == OUTSIDE or seen.dev in (hop.interface, hop.port)


def agrees(hop: Hop, seen: Sighting) -> bool:
    return all(
        _same(wanted, found)
        for wanted, found in ((hop.header, seen.header), (hop.inner, seen.inner))
        if wanted and found
    )


def _same(wanted: Header, found: Header) -> bool:
    if (wanted.src, wanted.dst) != (found.src, found.dst):
        return False
    if wanted.protocol != found.protocol:
        return found.protocol in ("icmp", ICMP6)  # an error about it
    return all(port in (0, real) for port, real in ((wanted.sport, found.sport), (wanted.dport, found.dport)))


@dataclass(frozen=True)
class Flood:
    """A frame that a bridge sent out of several ports, as it knows none for the receiver's hardware address."""

    place: Place
    bridge: str
    header: Header
    ports: tuple[str, ...]

    def has(self, seen: Sighting) -> bool:
        return (seen.place, seen.direction, seen.header) == (self.place, "out", self.header) and seen.dev in self.ports


def _floods(seen: Sequence[Sighting], observed: Observed) -> tuple[Flood, ...]:
    found: dict[tuple[Place, str, Header], list[str]] = {}
    for one in seen:
        bridge = observed.bridges.get(one.place, {}).get(one.dev)
        if bridge and one.direction == "out":
            found.setdefault((one.place, bridge, one.header), []).append(one.dev)
    return tuple(Flood(*key, tuple(sorted(ports))) for key, ports in found.items() if len(ports) > 1)


class Leg:
    """The packet on its way there, or its reply on its way back."""

    def __init__(
        self,
        name: str,
        predicted: Sequence[Hop],
        seen: Sequence[Sighting],
        carriers: Sequence[Sighting],
        observed: Observed,
    ) -> None:
        self.name, self.predicted, self.observed = name, predicted, observed
        self.floods = _floods(seen, observed)
        self.seen = [one for one in seen if not self._copy(one)]
        self.matched: list[Sighting | None] = [self._at(hop, carriers) for hop in predicted]
        used = {id(found) for found in self.matched}
        self.receivers = {header.dst for one in self.seen for header in (one.header, one.inner) if header}
        self.others = [one for one in self.seen if id(one) not in used and not self._another_end(one)]
        self.last = max((number for number, found in enumerate(self.matched) if found), default=-1)

    def _at(self, hop: Hop, carriers: Sequence[Sighting]) -> Sighting | None:
        at = [seen for seen in self.seen if is_at(hop, seen)]
        if not at and hop.inner and hop.wrapped == WIREGUARD:
            return self._encrypted(hop, carriers)
        return next((seen for seen in at if agrees(hop, seen)), next(iter(at), None))

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

    def _copy(self, seen: Sighting) -> bool:
        """Return whether it is a copy that a bridge made for a port which does not lead to the receiver."""
        predicted = any(is_at(hop, seen) for hop in self.predicted)
        return not predicted and any(flood.has(seen) for flood in self.floods)

    @property
    def last_seen(self) -> Sighting | None:
        """Return where it was seen last, on the lab network too."""
        return max(self.seen, key=lambda seen: (seen.time, seen.order), default=None)

    def hops(self, *, complete: bool) -> tuple[Hop, ...]:
        """Return the hops of the way: seen, inferred where it was seen farther on, or not seen."""
        found: list[tuple[Hop, Sighting | None]] = []
        for number, (hop, seen) in enumerate(zip(self.predicted, self.matched, strict=True)):
            if seen:
                evidence = SEEN if agrees(hop, seen) else OTHERWISE
                real = replace(hop, header=seen.header, inner=seen.inner, evidence=evidence)
                found.append((real, seen))
            else:
                passed = complete or number < self.last
                found.append((hop if passed else replace(hop, evidence=NOT_SEEN, events=()), None))
        for together in self._joined():
            evidence = UNPREDICTED if self.predicted else SEEN
            port = together[1].dev if len(together) > 1 else ""
            one = together[0]
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
        hops = [self._flooded(hop) for hop in hops]
        return self._wired([_proven(hop, after) for hop, after in zip(hops, [*hops[1:], None], strict=True)])

    def _flooded(self, hop: Hop) -> Hop:
        """Return the hop with the ports that the bridge sent copies out of, where it came in."""
        floods = [flood for flood in self.floods if hop.place == flood.place and hop.header == flood.header]
        if hop.direction != "in" or not floods:
            return hop
        ports, bridge = ", ".join(floods[0].ports), floods[0].bridge
        return replace(hop, events=(*hop.events, Event("flooded", ports, f"ports of {bridge}", evidence=SEEN)))

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


def _proven(hop: Hop, after: Hop | None) -> Hop:
    """Return the hop with those events marked that are seen by the packet as it is before and after them."""
    if not after or (hop.place, hop.evidence, after.evidence) != (after.place, SEEN, SEEN):
        return hop
    shown = (event.kind in PROVEN or event.where.startswith(MAPS) for event in hop.events)
    marked = (replace(event, evidence=SEEN) if so else event for event, so in zip(hop.events, shown, strict=True))
    return replace(hop, events=tuple(marked))


def _same_ends(seen: Sighting, hop: Hop) -> bool:
    return (seen.header.src, seen.header.dst) == (hop.header.src, hop.header.dst)


def _is_for(lookup: Lookup, words: Sequence[str]) -> bool:
    """Return whether a route's text, "10.244.1.0/24 via ...", is of a destination."""
    first = next((word for word in words if word not in ("local", "unicast")), "")
    try:
        return first == "default" or lookup.dst in ip_network(first, strict=False)
    except ValueError:
        return False
