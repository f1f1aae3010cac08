"""Follow one packet over the namespaces of a lab, and its reply back, by the facts of a snapshot; pure.

``Walk`` has the way of the packet through pods and nodes; ``link`` hands it from one interface to the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from hoplab.core.ip import with_port
from hoplab.netfilter.hooks import Passage, Step, Translation, Traversal, bridged_too
from hoplab.netfilter.packet import Packet
from hoplab.netfilter.ruleset import Rule
from hoplab.observe.facts.links import Link
from hoplab.observe.facts.sockets import SOCKETS
from hoplab.observe.reverse_path import refusal
from hoplab.trace import link, programs
from hoplab.trace.landing import Carried, Connection, Ended, Landing
from hoplab.trace.model import OUTSIDE, PORTLESS, Direction, End, Event, Header, Hop, Place
from hoplab.trace.routes import Decided, decide
from hoplab.trace.topology import Space, Topology

MAX_HOPS = 64  # a routing loop ends as a TTL does
BEFORE_ROUTING = ("ingress", "prerouting")
FORWARDING6 = "net.ipv6.conf.all.forwarding"  # that of an interface decides on router advertisements alone
FORCED6 = "net.ipv6.conf.{}.force_forwarding"  # of Linux 6.17 and later: an interface from which packets go on anyway
TRANSLATIONS = {"DNAT": "dnat", "REDIRECT": "dnat", "NETMAP": "dnat", "SNAT": "snat", "MASQUERADE": "snat"}


class Walk:
    """One packet and its reply; ``choices`` selects among the outcomes of random numbers, in the order of hosts."""

    def __init__(self, topology: Topology, goal: str, choices: tuple[int, ...] = ()) -> None:
        self.topology, self.goal, self.choices = topology, goal, choices
        self.options: list[int] = []  # how many there were at each choice
        self.share = 1.0
        self.reply = False
        self.hops: list[Hop] = []
        self.bends: list[str] = []
        self.notes: list[str] = []
        self.route: tuple[Place, str] = (OUTSIDE, "")  # the last routing decision
        self.entry = ""  # the node by which packets from outside come in, where no address says so
        self.first: tuple[Event, ...] = ()  # what is done to the packet before it has a hop
        self.socket: Connection | None = None  # of the sender: as it asks for it, and as it is sent
        self._connections: dict[Place, list[Connection]] = {}
        self._of_programs: dict[Place, list[Connection]] = {}  # what programs of eBPF translate there

    # --- what link.py and the caller use ---

    def hop(self, hop: Hop) -> None:
        self.hops.append(replace(hop, events=(*self.first, *hop.events)))
        self.first = ()
        if len(self.hops) > MAX_HOPS:
            raise Ended(self.end(hop.place, "loop", str(self.route[1]), f"it goes in circles, now at {hop.place}"))

    def event(self, kind: str, text: str, where: str = "", result: str = "") -> None:
        last = self.hops[-1]
        self.hops[-1] = replace(last, events=(*last.events, Event(kind, text, where, result)))

    def end(self, at: Place, kind: str, cause: str, why: str, *, missing: str = "", last: Place | None = None) -> End:
        return End(last or at, missing or self.goal, kind, cause, why, at, reply=self.reply)

    def draw(self, count: int) -> int:
        """Return which of so many equal outcomes a random number draws."""
        index = self._choice(count)
        self.share /= count
        return index

    def keep(self, at: Place, came: Packet, went: Packet) -> None:
        """Note a connection that a program translates."""
        self._of_programs.setdefault(at, []).append(Connection(Header.of(came), Header.of(went)))

    def kept(self, at: Place, reply: Packet) -> Connection | None:
        """Return the connection that a program has translated, and that a packet is a reply of."""
        return next((known for known in self._of_programs.get(at, ()) if known.has_reply(reply)), None)

    def missing(self, packet: Packet) -> str:
        """Return the name of what the packet is for: the owner of its destination, or else the goal."""
        place = self.topology.place_of(packet.dst)
        return self.goal if place == OUTSIDE else str(place)

    def send(self, space: Space, packet: Packet, carried: Carried | None = None) -> Landing:
        """Follow a packet that a namespace sends itself."""
        if space.firewall:
            return self._send_of_node(space, packet, carried)
        decided = decide(space, packet)
        if decided.local:
            self.route = (space.place, decided.event.text)
            self.hop(Hop(space.place, "lo", "out", Header.of(packet), events=(decided.event,)))
            self.hop(Hop(space.place, "lo", "in", Header.of(packet)))
            return Landing(space.place, packet, space)
        self._require_route(space, packet, decided, f"{space.place} has no route to {packet.dst}")
        self.hop(Hop(space.place, decided.dev, "out", Header.of(packet), events=(decided.event,)))
        return link.out_of_pod(self, space, packet, decided)

    def arrive(
        self,
        space: Space,
        packet: Packet,
        dev: str,
        port: str = "",
        carried: Carried | None = None,
        to: Link | None = None,
        vni: int = 0,
    ) -> Landing:
        """Follow a packet that comes in at a node.

        ``to`` is the port of a bridge that its frame is for, ``vni`` came with a packet that was unwrapped.
        """
        self._hop_of(space, dev, "in", packet, carried, port)
        if not carried:
            left = programs.comes_in(self, space, packet, dev, vni)
            if isinstance(left, Landing):
                return left
            packet, dev = left.packet, left.dev
        packet = replace(packet, mark=0, connmark=0)  # they are of one host
        called = bridged_too(space.facts, ipv6=packet.ipv6)  # IP's hooks, for what a bridge passes on
        kept = self._undone(space, packet, carried) if called or not to else _Undone(packet)
        seen = self._with_way(space, replace(kept.middle, in_dev=dev, port_in=port, out_dev="", src_is_local=False), to)
        crossing = self._cross(space, packet, seen, kept, carried)
        before = crossing.before
        if to and before.dst == seen.dst:
            self.event("bridge", f"{port} to {to.name}, ports of {dev}")
            return self._leave(crossing, Decided.bridged(dev), to=to, came_by=port)
        decided = decide(space, before, dev)
        self._check_arrival(space, before, dev)
        self._require_route(space, before, decided, f"{space.place} has no route to {before.dst}")
        self._decided(space, decided)
        if decided.local:
            return self._stay(crossing)
        same_bridge = called and bool(port) and decided.dev == dev and before.dst != packet.dst
        if not same_bridge:  # the bridge passes on what it translates, without forwarding
            self._check_forwarding(space, before, dev)
        return self._leave(crossing, decided, came_by=port if same_bridge else "")

    def route_text(self) -> str:
        """Return the route by which the packet came to its last interface."""
        return self.route[1]

    # --- one node ---

    def _send_of_node(self, space: Space, packet: Packet, carried: Carried | None) -> Landing:
        kept = self._undone(space, packet, carried)
        decided = decide(space, kept.middle)
        self._hop_of(space, decided.dev or "lo", "out", kept.leaves or packet, carried)
        seen = replace(
            kept.middle, in_dev="", port_in="", out_dev=decided.dev, src_is_local=True, dst_is_local=decided.local
        )
        crossing = self._cross(space, packet, seen, kept, carried, local=True)
        sent = crossing.passage.packet
        if sent.dst != seen.dst:
            decided = decide(space, sent)
        self._describe(space, crossing.after, seen, crossing.passage)
        self._require_route(space, sent, decided, f"{space.place} has no route to {sent.dst}")
        self._decided(space, decided)
        self._track(space, packet, sent, carried)
        leaving = kept.leaving(sent)
        if decided.local:
            self._hop_of(space, "lo", "in", leaving, carried)
            return self._deliver(space, leaving, carried)
        if landing := None if carried else programs.goes_out(self, space, leaving, decided.dev):
            return landing
        self.hops[-1] = replace(self.hops[-1], interface=decided.dev, header=Header.of(leaving))
        return link.out_of_node(self, space, leaving, decided, carried)

    def _stay(self, crossing: _Crossing) -> Landing:
        """Follow a packet for a node itself from its routing decision on."""
        space, packet = crossing.space, crossing.passage.packet
        self._describe(space, crossing.after, crossing.before, crossing.passage)
        self._track(space, crossing.came, packet, crossing.carried)
        return self._deliver(space, crossing.kept.leaving(packet), crossing.carried)

    def _leave(self, crossing: _Crossing, decided: Decided, *, to: Link | None = None, came_by: str = "") -> Landing:
        """Follow a packet from the routing decision of a node, or of a bridge, to its next interface.

        ``came_by`` is the port by which it came, where the bridge itself passes it on.
        """
        space, carried = crossing.space, crossing.carried
        self._describe(space, crossing.after, crossing.before, crossing.passage)
        self._track(space, crossing.came, crossing.passage.packet, carried)
        sent = crossing.kept.leaving(crossing.passage.packet)
        if landing := None if carried else programs.goes_out(self, space, sent, decided.dev):
            return landing
        self._hop_of(space, decided.dev, "out", sent, carried, to.name if to else "")
        return link.out_of_node(self, space, sent, decided, carried, came_by)

    def _cross(
        self, space: Space, came: Packet, seen: Packet, kept: _Undone, carried: Carried | None, *, local: bool = False
    ) -> _Crossing:
        """Return the passage of a packet through the hooks of a node; note its steps before it is routed."""
        assert space.firewall
        route = partial(self._with_way, space, to=None)
        found = space.firewall.traverse(seen, Translation(route, kept.arrives, kept.leaves))
        passage = self._chosen(space, found)
        first = () if local else tuple(step for step in passage.steps if step.hook in BEFORE_ROUTING)
        stops = passage.stop is not None and passage.stop.hook in BEFORE_ROUTING
        self._describe(space, first, seen, passage if stops else None)
        if kept.event:
            self.event("restored", "conntrack", result=kept.event)
        before = first[-1].packet if first else seen
        return _Crossing(space, came, kept, passage, before, passage.steps[len(first) :], carried)

    def _chosen(self, space: Space, found: Traversal) -> Passage:
        sure = [passage for passage in found.passages if not passage.unsure]
        passing = [passage for passage in found.passages if not passage.stop]  # a rule that is not known drops nothing
        options = sure or passing or list(found.passages)
        for stop in found.unknown:
            how = "a program decides" if stop.queued else "could not be evaluated"
            self.notes.append(f"{how}: {stop}, of {space.place}")
        chosen = options[self._choice(len(options))]
        for step in chosen.steps:
            self.share *= step.probability
        return chosen

    def _choice(self, count: int) -> int:
        if count < 2:
            return 0
        at = len(self.options)
        self.options.append(count)
        return self.choices[at] if at < len(self.choices) else 0

    def _with_way(self, space: Space, packet: Packet, to: Link | None) -> Packet:
        """Return the packet with its way out, and whether the route to its source leads by where it came in."""
        if to:
            return replace(packet, out_dev=packet.in_dev, port_out=to.name, reverse_path=True)
        decided = decide(space, packet, packet.in_dev)
        back = decide(space, replace(packet, dst=packet.src)).dev == packet.in_dev if packet.in_dev else None
        port = ""
        for pod in self.topology.attached(space, decided.dev):
            end = self.topology.host_end(pod)
            if end and end.master and packet.dst in pod.addresses:
                port = end.name
        return replace(packet, out_dev=decided.dev, port_out=port, dst_is_local=decided.local, reverse_path=back)

    def _describe(self, space: Space, steps: tuple[Step, ...], before: Packet, passage: Passage | None) -> None:
        """Note what base chains did; raise Ended where the passage stops there."""
        for step in steps:
            where = f"{step.table}, {' > '.join(step.chains)}"
            if step.packet.mark != before.mark:
                marking = next((rule for rule in reversed(step.rules) if _marks(rule)), step.rules[-1])
                self.event("mark", str(marking), f"{step.table}, {marking.chain}", f"mark {step.packet.mark:#x}")
            if kind := TRANSLATIONS.get(step.verdict):
                self.event(kind, str(step.rules[-1]), where, _changed(before, step.packet, kind))
            before = step.packet
        if passage and passage.stop:
            stop = passage.stop
            last = next((step for step in reversed(passage.steps) if str(step.rules[-1]) == stop.rule), None)
            where = f"{stop.table}, {' > '.join(last.chains)}" if last else stop.where
            self.event("rule", stop.rule, where, stop.verdict)
            why = f"`{stop.rule}` in {where} of {space.place} {_ends(stop.verdict)} it"
            raise Ended(self.end(space.place, "rule", stop.rule, why, missing=self.missing(passage.packet)))

    def _decided(self, space: Space, decided: Decided) -> None:
        self.event(decided.event.kind, decided.event.text, decided.event.where)
        self.route = (space.place, decided.event.text)

    def _require_route(self, space: Space, packet: Packet, decided: Decided, why: str) -> None:
        self.route = (space.place, decided.event.text)
        if decided.local or decided.dev:
            return
        if self.hops and self.hops[-1].place == space.place:
            self.event("route", decided.event.text)
        else:
            self.hop(Hop(space.place, "", "out", Header.of(packet), events=(decided.event,)))
        if decided.refusal:
            why = f"`{decided.refusal}` of {space.place} refuses it"
        cause = decided.refusal or f"no route to {packet.dst}"
        raise Ended(self.end(space.place, "route", cause, why, missing=self.missing(packet)))

    def _check_arrival(self, space: Space, packet: Packet, dev: str) -> None:
        if packet.ipv6:  # it has no such filter but that of ip6tables
            return
        if why := refusal(space.node, packet.src, dev):  # type: ignore[arg-type]
            raise Ended(self.end(space.place, "sysctl", why.split(" on ")[0], why, missing=self.missing(packet)))

    def _check_forwarding(self, space: Space, packet: Packet, dev: str) -> None:
        values = space.sysctls
        if packet.ipv6 and values.get(FORCED6.format(dev)) == "1":
            return
        switches = (FORWARDING6,) if packet.ipv6 else ("net.ipv4.ip_forward", f"net.ipv4.conf.{dev}.forwarding")
        for name in switches:
            if values.get(name) == "0":
                why = f"{name} is 0 on {space.place}, so it does not forward what is not for itself"
                raise Ended(self.end(space.place, "sysctl", f"{name} = 0", why, missing=self.missing(packet)))

    def _deliver(self, space: Space, packet: Packet, carried: Carried | None) -> Landing:
        if carried:
            return link.unwrapped(self, space, packet, carried)
        if not self.reply and packet.protocol in ("tcp", "udp") and not _listens(space, packet):
            name = f"{packet.protocol.upper()} port {packet.dport}"
            why = f"nothing on {space.place} listens on {name}: no rule has sent it on"
            raise Ended(self.end(space.place, "socket", f"no socket on {name}", why))
        self.event("delivered", f"to {space.place} itself")
        return Landing(space.place, packet, space)

    # --- connections ---

    def _undone(self, space: Space, packet: Packet, carried: Carried | None) -> _Undone:
        """Return a packet as conntrack makes it between the hooks; a reply gets the addresses of its connection."""
        if carried or not self.reply:
            return _Undone(replace(packet, state="NEW"))
        for known in self._connections.get(space.place, ()):
            if known.has_reply(packet):
                status = "dnat" if known.came.dst != known.went.dst else ""
                middle = replace(packet, dst=known.came.src, state="ESTABLISHED", status=status, mark=0)
                if known.came == known.went:
                    return _Undone(middle)
                leaves = replace(packet, src=known.came.dst, sport=known.came.dport, dst=known.came.src)
                event = f"{Header.of(packet)} becomes {Header.of(leaves)}"
                return _Undone(middle, replace(packet), leaves, event)
        return _Undone(replace(packet, state="NEW" if packet.protocol == "udp" else "INVALID", mark=0))

    def _track(self, space: Space, came: Packet, went: Packet, carried: Carried | None) -> None:
        if not carried and not self.reply:
            self._connections.setdefault(space.place, []).append(Connection(Header.of(came), Header.of(went)))

    def _hop_of(
        self, space: Space, dev: str, direction: Direction, packet: Packet, carried: Carried | None, port: str = ""
    ) -> None:
        inner, how = (Header.of(carried.packet), carried.how) if carried else (None, "")
        self.hop(Hop(space.place, dev, direction, Header.of(packet), port, inner, how))


@dataclass(frozen=True)
class _Undone:
    """A packet between the hooks of a node, and a reply before and after conntrack restores its addresses."""

    middle: Packet
    arrives: Packet | None = None
    leaves: Packet | None = None
    event: str = ""

    def leaving(self, packet: Packet) -> Packet:
        """Return the packet as it leaves the node."""
        if not self.leaves:
            return packet
        return replace(packet, src=self.leaves.src, dst=self.leaves.dst, sport=self.leaves.sport)


@dataclass(frozen=True)
class _Crossing:
    """A packet that crosses a node."""

    space: Space
    came: Packet  # as it arrived
    kept: _Undone
    passage: Passage
    before: Packet  # where it is routed
    after: tuple[Step, ...]  # of the hooks after that
    carried: Carried | None


def _changed(before: Packet, after: Packet, kind: str) -> str:
    if kind == "snat":
        return f"source {before.src} becomes {after.src}"
    if before.protocol in PORTLESS:
        return f"destination {before.dst} becomes {after.dst}"
    return f"destination {with_port(before.dst, before.dport)} becomes {with_port(after.dst, after.dport)}"


def _marks(rule: Rule) -> bool:
    text = str(rule)
    return "-j MARK " in text or "mark set" in text


def _ends(verdict: str) -> str:
    return {"DROP": "drops", "REJECT": "rejects"}.get(verdict, f"({verdict}) ends")


def _listens(space: Space, packet: Packet) -> bool:
    """Return whether a socket of the node takes it; True where its sockets were not recorded."""
    if SOCKETS.name not in space.facts.outputs:
        return True
    wild = ("*", "::", str(packet.dst), *(() if packet.ipv6 else ("0.0.0.0",)))
    return any(
        socket.protocol == packet.protocol and socket.port == packet.dport and socket.address in wild
        for socket in space.facts[SOCKETS]
    )
