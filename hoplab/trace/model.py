"""The records of a trace: hops of a packet, what was done to it there, and where it ends; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hoplab.core.ip import IPAddress, with_port
from hoplab.netfilter.packet import Packet

Kind = Literal["pod", "node", "outside", "wire"]
Direction = Literal["in", "out"]
ICMP6 = "ipv6-icmp"  # as ip6tables and nftables name the protocol
PORTLESS = frozenset({"icmp", ICMP6, "ipencap"})  # protocols without ports
PROTOCOL_NAMES = {ICMP6: "ICMPv6"}  # of those that are not written in capitals alone
INFERRED = "inferred"  # the evidence of a hop or an event that follows from facts
SEEN = "seen"  # ... that a capture, a report of nftables or a tracepoint shows
UNPREDICTED = "seen, not predicted"
OTHERWISE = "seen, otherwise"  # with other addresses than predicted
MAPS = "maps of Cilium"  # where an event is decided that no rule is behind
NOT_SEEN = "not seen"  # predicted, and seen neither there nor farther on the way


@dataclass(frozen=True)
class Place:
    """A network namespace that a packet crosses."""

    kind: Kind
    name: str = ""  # "hoplab-verify/echo-lm2p5", "worker1"; "" for the outside

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


OUTSIDE = Place("outside")


@dataclass(frozen=True)
class Header:
    """The addresses and ports of a packet; a port 0 is an ephemeral one."""

    src: IPAddress
    dst: IPAddress
    protocol: str  # "tcp", "udp", "icmp", "ipv6-icmp", "ipencap"
    sport: int = 0
    dport: int = 0

    @classmethod
    def of(cls, packet: Packet) -> Header:
        """Return the header of a packet, without ports where its protocol has none."""
        if packet.protocol in PORTLESS:
            return cls(packet.src, packet.dst, packet.protocol)
        return cls(packet.src, packet.dst, packet.protocol, packet.sport, packet.dport)

    @property
    def protocol_name(self) -> str:
        """Return the protocol as people write it: "TCP", "ICMPv6"."""
        return PROTOCOL_NAMES.get(self.protocol, self.protocol.upper())

    def __str__(self) -> str:
        ends = [
            str(address) if self.protocol in PORTLESS else with_port(address, port or "*")
            for address, port in ((self.src, self.sport), (self.dst, self.dport))
        ]
        return " > ".join(ends)


@dataclass(frozen=True)
class Event:
    """One thing that happens to a packet at a hop."""

    kind: str  # "route", "rule", "dnat", "snat", "restored", "neighbour", "fdb", "peer", "wrapped", "program", ...
    text: str  # the rule, route or entry as its tool prints it
    where: str = ""  # of a rule: table and chains, "iptables nat, PREROUTING > KUBE-SERVICES"
    result: str = ""  # of a translation: "10.102.196.103:80 becomes 10.244.0.3:8080"
    evidence: str = INFERRED


@dataclass(frozen=True)
class Hop:
    """A packet at one interface of one namespace."""

    place: Place
    interface: str
    direction: Direction
    header: Header
    port: str = ""  # the port of a bridge by which it comes or goes; where a program took it that hands it over there
    inner: Header | None = None  # the packet that this one carries
    wrapped: str = ""  # how: "VXLAN, VNI 1", "IPIP", "WireGuard"
    events: tuple[Event, ...] = ()
    evidence: str = INFERRED


@dataclass(frozen=True)
class End:
    """Where and why a packet does not arrive."""

    last: Place  # the last place that it reaches
    missing: str  # the first place that it does not reach: "pod hoplab-verify/echo-lm2p5", "the outside"
    kind: str  # "rule", "route", "translation", "neighbour", "fdb", "peer", "link", "sysctl", "socket", "program", ...
    cause: str  # the rule, route, entry, interface or sysctl that ends it, as its tool prints it; or what lacks
    why: str  # a sentence
    at: Place  # the place whose cause it is
    reply: bool = False  # the packet arrived; its reply does not
    evidence: str = INFERRED  # SEEN where the kernel reports that it drops the packet there


@dataclass(frozen=True)
class Way:
    """One connection: its first packet there, and the reply back."""

    source: Place
    header: Header  # as its sender sends it
    there: tuple[Hop, ...]
    back: tuple[Hop, ...] = ()
    end: End | None = None  # None: it arrives, and the reply returns
    target: Place | None = None  # where it arrives
    share: float = 1.0  # of connections that take this way, as far as rules draw random numbers
    bends: tuple[str, ...] = ()  # what it meets that it should not: a pod's packet that is masqueraded

    @property
    def arrives(self) -> bool:
        return self.target is not None


@dataclass(frozen=True)
class Sent:
    """A packet that was sent in a running lab, and how its way compares with the predicted one."""

    what: str  # became of it, as its sender knows: "connected", "refused: reset", "no answer in 2.5 s"
    hops: int  # of the way that it took
    seen: int = 0  # ... that were seen
    predicted: int = 0  # ... that the model predicted and that were seen
    wrong: tuple[str, ...] = ()  # what the model predicted otherwise, in sentences
    lacking: tuple[str, ...] = ()  # what could not be looked at: "worker1: nftables: ..."
    seconds: float = 0.0  # from the first step to the end of clean-up, without the look at the lab


@dataclass(frozen=True)
class Trace:
    """The ways that a packet may take from one place to another."""

    source: str  # as the user named it
    target: str
    ways: tuple[Way, ...]  # one a possible endpoint; the first one is shown
    then: tuple[Trace, ...] = ()  # the connection that a proxy at the end opens: an ingress controller's
    notes: tuple[str, ...] = field(default=())  # what the recording lacks, and what was assumed
    sent: Sent | None = None  # where a real packet was sent: ``ways`` is the one that it took

    @property
    def shown(self) -> Way:
        """Return the first way that ends early or bends; the first one where none does."""
        return next((way for way in self.ways if way.end), next((way for way in self.ways if way.bends), self.ways[0]))

    @property
    def complete(self) -> bool:
        """Return whether the packet arrives and its reply returns, whatever endpoint is drawn."""
        return all(way.end is None for way in self.ways) and all(trace.complete for trace in self.then)
