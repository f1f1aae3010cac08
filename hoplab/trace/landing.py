"""What the walk of a packet ends with, and a packet in another one; pure."""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.netfilter.packet import Packet
from hoplab.trace.model import End, Header, Place
from hoplab.trace.topology import Space


class Ended(Exception):
    """The packet does not arrive."""

    def __init__(self, end: End) -> None:
        super().__init__(end.why)
        self.end = end


@dataclass(frozen=True)
class Connection:
    """A connection in a table of a node: its packet as it came, and as it went on."""

    came: Header
    went: Header

    def has_reply(self, packet: Packet) -> bool:
        went = self.went
        return (went.dst, went.dport, went.src) == (packet.src, packet.sport, packet.dst)


@dataclass(frozen=True)
class Carried:
    """A packet in another one."""

    packet: Packet
    how: str  # "VXLAN, VNI 1", "IPIP", "WireGuard"
    kind: str  # of the interface that unwraps it
    sender: Space
    vni: int = 0
    mac: str = ""  # VXLAN: the inner frame's destination


@dataclass(frozen=True)
class Landing:
    """Where a packet was delivered."""

    place: Place
    packet: Packet
    space: Space | None = None  # None: outside
