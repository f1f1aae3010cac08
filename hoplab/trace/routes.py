"""The routing decision of a namespace on a packet, with the first of its next hops; pure."""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.core.ip import IPAddress
from hoplab.netfilter.packet import Packet
from hoplab.observe import routing
from hoplab.trace.model import Event
from hoplab.trace.topology import Space

LOCAL = frozenset({"local", "anycast"})  # kinds of routes whose packets are for this host


@dataclass(frozen=True)
class Decided:
    """Where a namespace sends a packet."""

    dev: str  # the interface; "" where it goes nowhere, or stays here
    via: IPAddress | None
    local: bool
    event: Event
    source: IPAddress | None = None  # the route's, for a packet of this namespace
    refusal: str = ""  # the route that refuses it: "blackhole 10.244.1.0/26"

    @classmethod
    def bridged(cls, dev: str) -> Decided:
        """Return the decision of a bridge, which looks up no route."""
        return cls(dev, None, False, Event("bridge", dev))


def decide(space: Space, packet: Packet, in_dev: str = "") -> Decided:
    """Return where a namespace sends a packet that came in by an interface, "" for one of its own."""
    flow: routing.Flow[IPAddress] = routing.Flow(  # type: ignore[type-var]
        packet.dst,
        packet.src,
        iif=in_dev,
        mark=packet.mark,
        protocol=packet.protocol,
        sport=packet.sport,
        dport=packet.dport,
    )
    found = routing.decide_on(space.facts, flow)  # type: ignore[type-var]
    text = str(found)
    table = f"table {found.table}" if found.table not in ("", "main", "local") else ""
    if found.verdict in LOCAL:
        return Decided("", None, True, Event("route", text, table))
    if not found.hops:
        refused = found.way if found.route or found.rule else ""
        return Decided("", None, False, Event("route", text, table), refusal=refused)
    hop = found.hops[0]
    return Decided(hop.dev, hop.via, False, Event("route", text, table), found.route.source if found.route else None)
