"""Trace a packet from one end to another: every way that rules may draw, each there and back; pure.

follow(lab, "hoplab-verify/single-659bfc6785-8hptb", "hoplab-verify/echo")
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Unpack

from hoplab.core.ip import IPAddress, with_port
from hoplab.netfilter.packet import ECHO_REPLIES, Packet
from hoplab.observe.facts.api_endpointslices import Endpoint, Endpoint6
from hoplab.observe.snapshot import Snapshot
from hoplab.trace import link, sockets
from hoplab.trace.landing import Connection, Ended, Landing
from hoplab.trace.model import ICMP6, OUTSIDE, PORTLESS, End, Header, Hop, Place, Trace, Way
from hoplab.trace.places import Options, Source, Target, ends
from hoplab.trace.routes import decide
from hoplab.trace.topology import Space, Topology
from hoplab.trace.walk import Walk

ECHO_REQUESTS = {"icmp": 8, ICMP6: 128}  # types, by the protocol
MAX_WAYS = 32  # of the endpoints of one service
UNEQUAL = 0.02  # shares of endpoints that differ by more are not those of kube-proxy


def follow(lab: Snapshot, sender: str, receiver: str, **options: Unpack[Options]) -> Trace:
    """Return the trace of one packet between two ends that a user names.

    Raise LabError where an end is unknown, FactError where the snapshot lacks a fact that the way depends on.
    """
    return between(lab, *ends(lab, sender, receiver, **options))


def between(lab: Snapshot, sent_by: Source, to: Target) -> Trace:
    """Return the trace of one packet between two ends; raise FactError as ``follow`` does."""
    return _Follower(Topology(lab, ipv6=to.address.version == 6)).trace(sent_by, to)


@dataclass(frozen=True)
class _Follower:
    topology: Topology

    def trace(self, sent_by: Source, to: Target) -> Trace:
        ways, notes = list[Way](), dict.fromkeys(self.topology.notes)
        choices: tuple[int, ...] | None = ()
        while choices is not None and len(ways) < MAX_WAYS:
            walk = Walk(self.topology, to.name, choices)
            walk.entry = to.entry
            ways.append(self.way(walk, sent_by, to))
            notes.update(dict.fromkeys(walk.notes))
            choices = _next(walk.options, choices)
        if to.spread:
            ways = _with_shares(ways)
        then = tuple(self.proxied(way, to) for way in ways[:1] if to.proxied and way.target and to.endpoints)
        return Trace(str(sent_by.place), to.name, tuple(ways), then, tuple(notes))

    def proxied(self, way: Way, to: Target) -> Trace:
        """Return the connection of an ingress controller to the endpoints of the service; the first that fails."""
        assert way.target
        space = self.space(way.target)
        owner = space.pod or space.node
        sent_by = Source(way.target, owner.address6 if to.endpoints[0].address.version == 6 else owner.address)
        traces = [self.trace(sent_by, self.to_endpoint(endpoint)) for endpoint in to.endpoints]
        return next((trace for trace in traces if not trace.complete), traces[0])

    def to_endpoint(self, endpoint: Endpoint | Endpoint6) -> Target:
        place = self.topology.place_of(endpoint.address)
        return Target(str(place), endpoint.address, endpoint.protocol.lower(), endpoint.port, frozenset({place}))

    def way(self, walk: Walk, sent_by: Source, to: Target) -> Way:
        packet = Packet(sent_by.address, to.address, to.protocol, to.port, icmp_type=ECHO_REQUESTS.get(to.protocol))
        there: tuple[Hop, ...] = ()
        landing: Landing | None = None
        end: End | None = None
        try:
            went = self.with_source(sent_by, self.from_socket(walk, sent_by.place, packet))
            packet = replace(packet, src=went.src)
            walk.socket = Connection(Header.of(packet), Header.of(went))
            landing = self.sent(walk, sent_by.place, went)
            self.require_goal(walk, landing, to)
            there, walk.hops = tuple(walk.hops), []
            walk.bends += _masqueraded(there, sent_by, landing, to, walk)
            walk.reply = True
            walk.goal = str(sent_by.place)
            back = sockets.restored(walk, self.sent(walk, landing.place, _reply(landing.packet)))
            self.require_sender(walk, back, sent_by, packet, there)
            walk.bends += _asymmetric(there, tuple(walk.hops))
        except Ended as ended:
            end = _explained(ended.end, there)
        first, last = (there, tuple(walk.hops)) if walk.reply else (tuple(walk.hops), ())
        arrived = landing.place if landing and walk.reply else None
        return Way(sent_by.place, Header.of(packet), first, last, end, arrived, walk.share, tuple(walk.bends))

    def with_source(self, sent_by: Source, packet: Packet) -> Packet:
        """Return a node's packet with the source address that its route gives."""
        if sent_by.place.kind != "node":
            return packet
        space = self.topology.nodes[sent_by.place.name]
        decided = decide(space, packet)
        own = decided.source or (packet.dst if decided.local else space.source_to(packet.dst, decided.dev))
        return replace(packet, src=own or packet.src)

    def space(self, place: Place) -> Space:
        return (self.topology.nodes if place.kind == "node" else self.topology.pods)[place.name]

    def from_socket(self, walk: Walk, place: Place, packet: Packet) -> Packet:
        return packet if place == OUTSIDE else sockets.translated(walk, self.space(place), packet)

    def sent(self, walk: Walk, place: Place, packet: Packet) -> Landing:
        return link.from_outside(walk, packet) if place == OUTSIDE else walk.send(self.space(place), packet)

    def require_goal(self, walk: Walk, landing: Landing, to: Target) -> None:
        """Raise Ended where the packet was delivered to somebody else."""
        untranslated = landing.packet.dst == to.address and to.of_service and not to.is_endpoint(to.address)
        if landing.place in to.arrives and not untranslated:
            return
        at_node = not to.of_service and all(place.kind == "node" for place in to.arrives)
        if at_node and landing.packet.dst != to.address and landing.place == self.topology.place_of(landing.packet.dst):
            return  # a rule sends on what is for this port of the node
        at, route = walk.route
        if untranslated:
            aim = _aim(to.address, to.protocol, to.port)
            why = f"no rule of {at} translates or rejects what is for {aim}: it goes on by `{route}`"
            cause = f"no translation of the destination {aim}"
            raise Ended(walk.end(at, "translation", cause, why, missing=to.name, last=landing.place))
        why = f"`{route}` of {at} leads to {landing.place}, which is not what has {landing.packet.dst}"
        raise Ended(walk.end(at, "route", route, why, missing=to.name, last=landing.place))

    def require_sender(
        self, walk: Walk, back: Landing, sent_by: Source, packet: Packet, there: tuple[Hop, ...]
    ) -> None:
        """Raise Ended where the reply was delivered to somebody else, or is not of the sender's connection."""
        if back.place != sent_by.place or back.packet.dst != packet.src:
            at, route = walk.route
            why = f"`{route}` of {at} leads the reply to {back.place}"
            raise Ended(walk.end(at, "route", route, why, last=back.place))
        got = Header.of(back.packet)
        if (got.src, got.sport) != (packet.dst, Header.of(packet).dport):
            at = _translator(there) or sent_by.place
            sent_to = _aim(packet.dst, packet.protocol, packet.dport)
            by = _aim(got.src, packet.protocol, got.sport)
            why = f"{sent_by.place} sent to {sent_to}, and the reply comes from {by}: it is of no connection there"
            raise Ended(walk.end(at, "client", f"source {by} is not {sent_to}", why, last=sent_by.place))


def _aim(address: IPAddress, protocol: str, port: int) -> str:
    return str(address) if protocol in PORTLESS else with_port(address, port)


def _reply(packet: Packet) -> Packet:
    """Return the reply of the receiver of a packet, as it sends it."""
    turned = Packet(packet.dst, packet.src, packet.protocol, packet.sport, sport=packet.dport, state="ESTABLISHED")
    return replace(turned, icmp_type=None if packet.icmp_type is None else ECHO_REPLIES[packet.icmp_type])


def _next(options: list[int], choices: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the choices that come after these, given how many options there were at each; None after the last.

    >>> _next([2, 3], (0, 2)), _next([2], (1,))
    ((1,), None)
    """
    taken = [*choices, *[0] * (len(options) - len(choices))]
    while taken:
        last = taken.pop()
        if last + 1 < options[len(taken)]:
            return (*taken, last + 1)
    return None


def _with_shares(ways: list[Way]) -> list[Way]:
    """Return the ways to the endpoints of a service, the largest of unequal shares with a note of that."""
    shares = [way.share for way in ways]
    if len(ways) < 2 or max(shares) - min(shares) <= UNEQUAL or not all(way.target for way in ways):
        return ways
    most = ways[shares.index(max(shares))]
    words = f"{most.share:.0%} of connections go to {most.target}, not 1 of {len(ways)}"
    rule = next((f": {e.where} of {h.place}" for h in most.there for e in h.events if e.kind == "dnat"), "")
    return [replace(way, bends=(*way.bends, words + rule)) if way is most else way for way in ways]


def _masqueraded(there: tuple[Hop, ...], sent_by: Source, landing: Landing, to: Target, walk: Walk) -> list[str]:
    """Return the rules that change the source of a packet between two pods: Kubernetes wants them to see each other."""
    inside = walk.topology.in_services(to.address) or walk.topology.pod_with(to.address)
    pods = sent_by.place.kind == "pod" == landing.place.kind and sent_by.place != landing.place
    if not inside or not pods or landing.packet.src == sent_by.address:
        return []
    return [
        f"`{event.text}` in {event.where} of {hop.place} hides {sent_by.place}: {event.result}"
        for hop in there
        for event in hop.events
        if event.kind == "snat"
    ]


def _asymmetric(there: tuple[Hop, ...], back: tuple[Hop, ...]) -> list[str]:
    """Return where a packet leaves a node by another interface than the one by which its reply comes back."""
    left = {
        hop.place: hop.interface
        for hop in there
        if hop.place.kind == "node" and hop.direction == "out" and not hop.inner
    }
    came = {hop.place: (hop.interface, hop.port) for hop in back if hop.direction == "in" and not hop.inner}
    return [
        f"the packet leaves {place} by {dev}, and its reply comes back by {came[place][0]}"
        for place, dev in left.items()
        if dev not in came.get(place, (dev,))
    ][:1]


def _explained(end: End, there: tuple[Hop, ...]) -> End:
    """Return the end of a reply that the outside cannot send, with the node that should have translated its source."""
    nodes = [hop for hop in there if hop.place.kind == "node"]
    if not end.reply or end.at != OUTSIDE or end.kind != "route" or not nodes:
        return end
    node, source = nodes[-1].place, nodes[-1].header.src
    why = f"no rule of {node} translates the source {source}, and {end.why}"
    return replace(end, at=node, kind="translation", cause=f"no translation of the source {source}", why=why)


def _translator(there: tuple[Hop, ...]) -> Place | None:
    """Return the node that changes the destination of a packet, or else the last one on its way."""
    nodes = [hop for hop in there if hop.place.kind == "node"]
    changing = [hop.place for hop in nodes if any(event.kind == "dnat" for event in hop.events)]
    return changing[0] if changing else nodes[-1].place if nodes else None
