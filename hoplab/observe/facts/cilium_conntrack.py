"""Connections in Cilium's maps: ``cilium-dbg bpf ct list``. No snapshot has them; lessons look when they have sent.

    TCP OUT 10.244.0.85:41234 -> 10.244.1.2:8080 expires=... Packets=0 Bytes=0 ... RevNAT=7 SourceSecurityID=28371 ...

A connection to a service has two entries: SVC from the client to the service's address, and OUT from the client to the
backend. A third is for ICMP errors about it, and the node of the backend has one from the client IN. Packets are not
counted: Cilium does so with ``bpf-conntrack-accounting`` only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hoplab.core.ip import IPAddress, with_port
from hoplab.observe.facts import Fact
from hoplab.observe.facts._cilium import address, in_agent, matched


@dataclass(frozen=True)
class Tracked:
    """An entry."""

    protocol: str  # "tcp"
    kind: str  # "SVC", "OUT" or "IN"
    src: IPAddress
    sport: int
    dst: IPAddress
    dport: int
    service: int  # the number of the service whose address replies get; 0: none

    def __str__(self) -> str:
        ends = f"{with_port(self.src, self.sport)} -> {with_port(self.dst, self.dport)}"
        return f"{self.protocol.upper()} {self.kind} {ends}" + (f" RevNAT={self.service}" if self.service else "")


_LINE = re.compile(
    r"(?P<protocol>\S+) (?P<kind>SVC|OUT|IN) (?P<src>\S+):(?P<sport>\d+) -> (?P<dst>\S+):(?P<dport>\d+) .*"
    r"RevNAT=(?P<service>\d+) .*"
)


def parse(text: str) -> tuple[Tracked, ...]:
    """Return the entries; those of ICMP errors (related) among them."""
    lines = [line for line in text.splitlines() if " -> " in line]
    return tuple(_tracked(matched(_LINE, line, "conntrack map")) for line in lines)


def _tracked(found: re.Match[str]) -> Tracked:
    return Tracked(
        found["protocol"].lower(),
        found["kind"],
        address(found["src"], "conntrack map"),
        int(found["sport"]),
        address(found["dst"], "conntrack map"),
        int(found["dport"]),
        int(found["service"]),
    )


CILIUM_CONNTRACK = Fact("cilium_conntrack", in_agent("cilium-dbg bpf ct list"), parse, frozenset())
