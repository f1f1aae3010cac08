"""Send one real packet through a running lab and follow it: listen everywhere, send, listen on, compare.

Everything that is made on a node (sockets, a table of nftables, an instance of tracefs) belongs to a relay, and goes
with it: at the end, with Ctrl-C, when this process is killed, and when the connection is lost.
"""

from __future__ import annotations

import errno
import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from hoplab.core.ip import IPAddress
from hoplab.core.wait import HOST, Timing
from hoplab.observe.facts import Fact, Facts
from hoplab.observe.facts.counters import CACHES, INTERFACES, PROTOCOLS
from hoplab.observe.facts.iptables import IP6TABLES, IPTABLES
from hoplab.observe.facts.links import LINKS
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.facts.wireguard import WIREGUARD
from hoplab.observe.live import relay
from hoplab.observe.live.clocks import HERE
from hoplab.observe.live.node_stream import Frame, NodeStream
from hoplab.observe.live.run import Relays, Unreachable
from hoplab.observe.live.stop import Stop
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.trace import nft_trace
from hoplab.trace.live import compare, drops, node_program, sightings
from hoplab.trace.live.drops import Drop, Lookup
from hoplab.trace.live.heard import NFT, TRACEFS, Heard
from hoplab.trace.live.identity import DNS_PORT, Identity
from hoplab.trace.live.observed import WIRE, Observed
from hoplab.trace.live.reported import known_or, rule_hits, texts
from hoplab.trace.live.request import request
from hoplab.trace.live.sightings import Raw
from hoplab.trace.model import OUTSIDE, PORTLESS, Hop, Place, Trace
from hoplab.trace.places import Target

PROGRAM = Path(node_program.__file__).read_text()
READY_S = 8.0  # for nftables and tracefs, scaled
ANSWER_S = 2.5  # for the answer, scaled: TCP sends again after one second
SETTLE_S = 0.25  # without anything new, after the answer
REFUSALS = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)
REPORT, RULES, ECHO, SEND, COUNTS = 2000, 2001, 2002, 2003, 2004
COUNT = {"do": "counters", "id": COUNTS, "files": [*PROTOCOLS, *CACHES, INTERFACES]}
LISTS: Mapping[int, Fact[Any]] = {3000: IPTABLES, 3001: NFT_RULESET}
LISTS6 = {**LISTS, 3002: IP6TABLES}  # for a packet of IPv6, which one of IPv4 may carry
ETHERNET = {4: 0x800, 6: 0x86DD}  # numbers of protocols, by the version of IP


@dataclass(frozen=True)
class Wire:
    """The lab network on this machine."""

    netns: str
    bridge: str


class LiveTrace:
    """One packet in a lab."""

    def __init__(
        self, lab: Snapshot, model: Trace, goal: Target, relays: Relays, wire: Wire, timing: Timing = HOST
    ) -> None:
        """Take the predicted trace, and where the packet should arrive."""
        self._lab, self._model, self._relays, self._wire, self._timing = lab, model, relays, wire, timing
        first = model.ways[0]
        self._header = first.header
        inner = {(way.header.dst, way.header.dport) for then in model.then for way in then.ways}
        endpoints: Iterable[tuple[IPAddress, int]] = sorted(inner, key=str)
        version = self._header.dst.version
        random = secrets.randbits(32)
        self._identity = Identity.of(self._header.protocol, self._header.dport, random, endpoints, version)
        self._lists = LISTS6 if version == 6 else LISTS
        self._goals = goal.arrives | {way.target for way in model.ways if way.target}
        self._translated = goal.address if goal.of_service and not goal.is_endpoint(goal.address) else None
        self._request = request(lab, goal, self._identity) if goal.proxied else b""
        self._taps: dict[tuple[str, int], tuple[Place, str]] = {}  # by node and number: the place, its namespace
        self._heard = {node: Heard() for node in relays.streams}
        self._raws: list[Raw] = []
        self._facts = {node.name: node.facts for node in lab.nodes}
        self._outcome, self._answered, self._over = "", False, False
        self._sent = False

    def run(self) -> Trace:
        """Return the trace of the packet; raise where a node is lost or a signal comes before it is sent."""
        began = time.monotonic()
        self._listen()
        listening = time.monotonic()
        self._send()
        answered = time.monotonic()
        self._relays.streams[self._sender].do({"do": "echo", "id": ECHO})
        self._ask_for_rules()
        lacking = self._lacking()
        for stream in self._relays.streams.values():
            stream.finish()
        self._drain()
        seconds = time.monotonic() - began - (answered - listening)
        observed = replace(self._observed(), lacking=lacking, seconds=round(seconds, 2))
        return compare.compared(self._model, observed, self._goals)

    # --- what listens ---

    def _listen(self) -> None:
        filter_ = self._identity.filter(self._carriers())
        for node, stream in self._relays.streams.items():
            stream.do({"do": "extend", "text": PROGRAM})
            for number, (place, netns) in enumerate(self._places(node)):
                self._taps[node, number] = (place, netns)
                stream.do({"do": "tap", "id": number, "netns": netns, "filter": filter_})
            if node != HERE:
                stream.do({"do": "report", "id": REPORT})
                stream.start(NFT, "", nft_trace.HOLDER, nft_trace.commands(self._identity.rules()))
                stream.do({"do": "trace", "id": TRACEFS, "protocols": self._protocols()})
                stream.do(COUNT)
            stream.do({"do": "echo", "id": ECHO})
        deadline = self._timing.deadline(READY_S)
        while not all(self._ready(node, patient=deadline.left() > 0) for node in self._heard):
            self._read(min(0.5, deadline.left() or 0.01))
            self._relays.require_all()

    def _places(self, node: str) -> list[tuple[Place, str]]:
        """Return the namespaces of a host to listen in."""
        if node == HERE:
            return [(WIRE, self._wire.netns)]
        hops = [hop.place for hop in self._predicted()]
        ends = [way.target for trace in (self._model, *self._model.then) for way in trace.ways if way.target]
        wanted = {*hops, *ends, *self._goals, *self._named()}
        pods = [
            (Place("pod", str(pod)), pod.netns)
            for pod in self._lab.pods
            if pod.node.name == node and Place("pod", str(pod)) in wanted
        ]
        return [(Place("node", node), ""), *pods]

    def _predicted(self) -> Iterator[Hop]:
        """Yield the hops of all ways that the packet, and the request that a proxy passes on, may take."""
        for trace in (self._model, *self._model.then):
            for way in trace.ways:
                yield from (*way.there, *way.back)

    def _protocols(self) -> list[int]:
        """Return the protocols of Ethernet of the packets that are on the way: what carries one may be of another."""
        return sorted({ETHERNET[hop.header.dst.version] for hop in self._predicted()})

    def _named(self) -> Iterable[Place]:
        """Yield the pods that have its destination, or that of the request that a proxy passes on."""
        wanted = {self._header.dst, *(address for address, _ in self._identity.endpoints)}
        return (Place("pod", str(pod)) for pod in self._lab.pods if {pod.api.address, pod.api.address6} & wanted)

    def _carriers(self) -> frozenset[int]:
        """Return the ports of packets that carry others encrypted."""
        found = set()
        for node in self._lab.nodes:
            for peer in known_or(node.facts, WIREGUARD, ()):
                _, _, port = peer.endpoint.rpartition(":")
                found |= {int(port)} if port.isdecimal() else set()
        return frozenset(found)

    def _ready(self, node: str, *, patient: bool) -> bool:
        heard = self._heard[node]
        if not heard.echoes:
            return not patient
        if node == HERE or not patient:
            return True
        rules = nft_trace.made(heard.reports) or NFT in heard.ended or NFT in heard.said
        return rules and (node_program.LISTENS in heard.events or TRACEFS in heard.ended)

    def _lacking(self) -> tuple[str, ...]:
        """Return what does not report, with the reason."""
        return tuple(text for node, heard in self._heard.items() for text in heard.lacking(node))

    # --- the packet ---

    @property
    def _sender(self) -> str:
        source = self._model.ways[0].source
        if source == OUTSIDE:
            return HERE
        return source.name if source.kind == "node" else self._pod(source).node.name

    def _pod(self, place: Place) -> Any:
        return next(pod for pod in self._lab.pods if str(pod) == place.name)

    def _send(self) -> None:
        source = self._model.ways[0].source
        netns = self._wire.netns if source == OUTSIDE else self._pod(source).netns if source.kind == "pod" else ""
        payload = self._request or self._identity.payload()
        message = {
            "do": "send",
            "id": SEND,
            "netns": netns,
            "protocol": self._header.protocol,
            "dst": str(self._header.dst),
            "port": 0 if self._header.protocol in PORTLESS else self._header.dport,
            "sequence": self._identity.value,
            "payload": payload.hex(),
        }
        self._relays.streams[self._sender].do(message)
        deadline = self._timing.deadline(ANSWER_S)
        quiet_since = time.monotonic()
        while deadline.left() > 0:
            known = len(self._raws)
            self._read(min(0.05, deadline.left()))
            self._relays.require_all()
            if len(self._raws) != known:
                quiet_since = time.monotonic()
            if self._over and time.monotonic() - quiet_since > SETTLE_S:
                return
            if not self._over and self._one_way and self._at_goal() and time.monotonic() - quiet_since > 2 * SETTLE_S:
                break
        if not self._over:
            self._outcome = self._outcome or "no answer"

    @property
    def _one_way(self) -> bool:
        return self._header.protocol == "udp" and self._header.dport != DNS_PORT

    def _at_goal(self) -> bool:
        return any(raw.place in self._goals and raw.kind != sightings.OUTGOING for raw in self._raws)

    def _ask_for_rules(self) -> None:
        """Wait until each node that reported rules has told the handles of all."""
        asked = [node for node, heard in self._heard.items() if nft_trace.parse(heard.reports)]
        for node, stream in self._relays.streams.items():
            if node != HERE and not self._answered:
                stream.do(COUNT)  # answered before the next one
            if node in asked:
                stream.do({"do": "rules", "id": RULES})
        deadline = self._timing.deadline(READY_S)
        while deadline.left() > 0 and any(self._heard[node].rules is None for node in asked):
            self._read(min(0.5, deadline.left()))
            if not all(self._relays.streams[node].open for node in asked):
                return
        self._list_again([node for node in asked if self._unknown_drop(node)])

    def _unknown_drop(self, node: str) -> bool:
        """Return whether a rule drops the packet that was not there when the lab was looked at."""
        met = texts(self._heard[node], self._facts[node])
        return any(hit.drops and text.startswith(nft_trace.UNKNOWN) for hit, text in met)

    def _list_again(self, nodes: Sequence[str]) -> None:
        """List the rules of nodes anew."""
        for node in nodes:
            for number, fact in self._lists.items():
                self._relays.streams[node].start(number, "", ["sh", "-c", fact.command])
        deadline = self._timing.deadline(READY_S)
        while deadline.left() > 0 and any(not self._lists.keys() <= self._heard[node].ended for node in nodes):
            self._read(min(0.5, deadline.left()))
            if not all(self._relays.streams[node].open for node in nodes):
                return
        for node in nodes:
            printed = self._heard[node].printed
            found = {fact.name: Output(0, printed.get(number, "")) for number, fact in self._lists.items()}
            self._facts[node] = Facts(node, found)

    def _drain(self) -> None:
        deadline = self._timing.deadline(READY_S)
        while deadline.left() > 0 and any(stream.open for stream in self._relays.streams.values()):
            self._read(min(0.5, deadline.left()))

    # --- what is heard ---

    def _read(self, timeout: float) -> None:
        for stream, frame in self._relays.read(timeout):
            self._take(stream, frame)

    def _take(self, stream: NodeStream, frame: Frame) -> None:
        heard = self._heard[stream.name]
        if frame.kind == node_program.SIGHTED:
            self._raws.append(self._raw(stream, frame))
        elif frame.kind == node_program.REPORT:
            heard.reports.append(frame.payload)
        elif frame.kind == relay.PACKETS:
            text = frame.payload.decode(errors="replace")
            heard.printed[frame.number] = heard.printed.get(frame.number, "") + text
        elif frame.kind == relay.SAID:
            heard.said[frame.number] = heard.said.get(frame.number, "") + frame.payload.decode(errors="replace")
        elif frame.kind == relay.ENDED:
            heard.ended.add(frame.number)
        elif frame.kind == node_program.TOLD:
            self._told(heard, frame.number, json.loads(frame.payload))

    def _raw(self, stream: NodeStream, frame: Frame) -> Raw:
        moment, kind, size = node_program.SIGHTING.unpack_from(frame.payload)
        at = node_program.SIGHTING.size
        dev = frame.payload[at : at + size].decode()
        place, _ = self._taps[stream.name, frame.number]
        if place == WIRE and dev == self._wire.bridge:
            place = OUTSIDE
        return Raw(place, dev, kind, moment - stream.offset.ahead, len(self._raws), frame.payload[at + size :])

    def _told(self, heard: Heard, number: int, told: dict[str, Any]) -> None:
        heard.told.append(told)
        if number == RULES:
            heard.rules = told["rules"]
        elif number == COUNTS:
            heard.counters.append(told["counters"])
        elif number == ECHO:
            heard.echoes += 1
            heard.mono_ahead = told["mono"] - told["real"]
        elif number == SEND:
            what = told["what"]
            self._sent = self._sent or what == "sent"
            if what == "failed":
                self._outcome = told["why"]
                self._answered = self._sent and told["code"] in REFUSALS[:1]
                self._over = True
            elif what == "connected":
                self._outcome, self._answered, self._over = "connected", True, not self._request
            elif what == "answer":
                self._over = self._answered = True
                self._outcome = f"answer: {told['text'].splitlines()[0]}" if self._request else "answer"

    # --- what was observed ---

    def _observed(self) -> Observed:
        seen = sightings.read(self._raws, self._identity)
        pods = {Place("pod", str(pod)): Place("node", pod.node.name) for pod in self._lab.pods}
        bridges = {
            Place("node", node.name): {link.name: link.master for link in node.facts[LINKS] if link.master}
            for node in self._lab.nodes
        }
        nodes = (node for node in self._heard if node != HERE)
        rules = (rule_hits(node, self._heard[node], self._facts[node], seen) for node in nodes)
        found: dict[Place, list[Drop]] = {}
        lookups: dict[Place, list[Lookup]] = {}
        for node, heard in self._heard.items():
            ahead = heard.mono_ahead + self._relays.streams[node].offset.ahead
            for listed in drops.parse(heard.events):
                event = replace(listed, time=listed.time - ahead)
                if isinstance(event, Drop):
                    found.setdefault(Place("node", node), []).append(event)
                else:
                    lookups.setdefault(Place("node", node), []).append(event)
        return Observed(
            seen,
            self._outcome,
            self._answered,
            tuple(chain.from_iterable(rules)),
            {place: tuple(listed) for place, listed in found.items()},
            {place: tuple(listed) for place, listed in lookups.items()},
            {Place("node", node): heard.counted for node, heard in self._heard.items() if node != HERE},
            pods,
            bridges,
            self._translated,
            self._one_way,
        )


def send(
    lab: Snapshot,
    model: Trace,
    goal: Target,
    hosts: Mapping[str, Sequence[str]],
    wire: Wire,
    unreachable: Unreachable,
    stop: Stop,
    *,
    timing: Timing = HOST,
    say: Callable[[str], None] = lambda _text: None,
) -> Trace:
    """Send the packet that a model traced, and return its real trace; ``hosts`` are commands that start relays."""
    with Relays(hosts, unreachable, stop, timing) as relays:
        say("listening")
        relays.look({}, links=False)
        return LiveTrace(lab, model, goal, relays, wire, timing).run()
