"""Connections in the kernel's conntrack table, with the translation of their replies: ``conntrack -L``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact


@dataclass(frozen=True)
class Direction:
    """One direction of a connection."""

    src: str
    dst: str
    sport: int = 0
    dport: int = 0

    def __str__(self) -> str:
        return f"{self.src}:{self.sport} -> {self.dst}:{self.dport}" if self.dport else f"{self.src} -> {self.dst}"


@dataclass(frozen=True)
class Flow:
    """One connection: the tuple of its first packet, and the tuple of its replies."""

    protocol: str
    state: str  # TCP's, "ESTABLISHED"
    original: Direction
    reply: Direction
    flags: frozenset[str] = frozenset()  # "ASSURED"; "UNREPLIED": no reply was seen; "OFFLOAD": it bypasses the rules
    zones: tuple[int, int] = (0, 0)  # of the original direction, and of the replies; tables apart from each other

    @property
    def replied(self) -> bool:
        """Return whether a reply was seen."""
        return "UNREPLIED" not in self.flags

    @property
    def offloaded(self) -> bool:
        """Return whether a flowtable forwards its packets past the rules, in software or in hardware."""
        return bool(self.flags & {"OFFLOAD", "HW_OFFLOAD"})

    @property
    def source_translated(self) -> bool:
        """Return whether SNAT or MASQUERADE applies: replies go to another address than the client's."""
        return self.reply.dst != self.original.src

    @property
    def destination_translated(self) -> bool:
        """Return whether DNAT applies: replies come from another address than the client's destination."""
        return self.reply.src != self.original.dst

    def __str__(self) -> str:
        return f"{self.protocol} {self.original}, replies {self.reply}"


_DIRECTION = re.compile(r"src=(\S+) dst=(\S+)(?: sport=(\d{1,5}) dport=(\d{1,5}))?")
_FLAG = re.compile(r"\[([A-Z][A-Z_]+)\]")
_ZONE = re.compile(r"(?<=\s)zone(-orig|-reply)?=(\d{1,5})(?!\S)")


def parse(text: str) -> tuple[Flow, ...]:
    """Parse flows: ``tcp 6 119 TIME_WAIT src=10.244.1.2 dst=... sport=... dport=... src=... [ASSURED] zone=1``"""
    flows = []
    for line in text.splitlines():
        directions = [
            Direction(src, dst, int(sport or 0), int(dport or 0)) for src, dst, sport, dport in _DIRECTION.findall(line)
        ]
        words = line.split()
        if len(directions) != 2:  # original and reply
            raise FactError(f"{line!r} is not a conntrack entry", remedy="run `conntrack -L` on the node")
        state = next((word for word in words if re.fullmatch(r"[A-Z][A-Z_]+\d?", word)), "")
        flows.append(Flow(words[0], state, directions[0], directions[1], *_marks(line)))
    return tuple(flows)


def _marks(line: str) -> tuple[frozenset[str], tuple[int, int]]:
    """Return the flags and the zones of an entry."""
    zones = {which: int(number) for which, number in _ZONE.findall(line)}
    both = zones.get("", 0)
    return frozenset(_FLAG.findall(line)), (zones.get("-orig", both), zones.get("-reply", both))


CONNTRACK = Fact("conntrack", "conntrack -L -f ipv4", parse)
