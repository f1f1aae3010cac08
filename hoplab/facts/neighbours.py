"""The ARP table: which MAC an address on a link has, ``ip -4 -j neigh``."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from hoplab.facts import Fact, FactError
from hoplab.facts._json import REMEDY, listed


@dataclass(frozen=True)
class Neighbour:
    """``192.168.77.1 dev eth0 lladdr 52:54:00:.. REACHABLE``; no MAC when nobody answered."""

    address: IPv4Address
    dev: str
    mac: str
    states: tuple[str, ...]  # "REACHABLE", "STALE", "PERMANENT", "FAILED", ...

    def __str__(self) -> str:
        return " ".join([str(self.address), "dev", self.dev, *(["lladdr", self.mac] if self.mac else []), *self.states])


def parse(text: str) -> tuple[Neighbour, ...]:
    found = []
    for item in listed(text, "neighbours"):
        address = item.address("dst")
        if address is None:
            raise FactError("a neighbour without an address", remedy=REMEDY)
        found.append(Neighbour(address, item.text("dev"), item.text("lladdr"), item.texts("state")))
    return tuple(found)


NEIGHBOURS = Fact("neighbours", "ip -4 -j neigh show", parse, frozenset({"node", "pod"}))
