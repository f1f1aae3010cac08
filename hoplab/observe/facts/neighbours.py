"""MAC addresses of neighbours, from ARP and neighbour discovery: ``ip -4 -j neigh``, ``ip -6 -j neigh``."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Generic

from hoplab.core.errors import FactError
from hoplab.core.ip import REMEDY, V4, V6, Address, Family, Network
from hoplab.observe.facts import NODES_AND_PODS, Fact
from hoplab.observe.facts._json import Entries, Item, gather_listed


@dataclass(frozen=True)
class NeighbourOf(Generic[Address]):
    """``192.168.77.1 dev eth0 lladdr 52:54:00:.. REACHABLE``; no MAC without an answer."""

    address: Address
    dev: str
    mac: str
    states: tuple[str, ...]  # "REACHABLE", "STALE", "PERMANENT", "FAILED", ...

    def __str__(self) -> str:
        return " ".join([str(self.address), "dev", self.dev, *(["lladdr", self.mac] if self.mac else []), *self.states])


Neighbour = NeighbourOf[IPv4Address]
Neighbour6 = NeighbourOf[IPv6Address]


def parse(text: str) -> Entries[Neighbour]:
    return gather_listed(text, "neighbours", lambda item: (_neighbour(item, V4),))


def parse6(text: str) -> Entries[Neighbour6]:
    return gather_listed(text, "neighbours", lambda item: (_neighbour(item, V6),))


def _neighbour(item: Item, family: Family[Address, Network]) -> NeighbourOf[Address]:
    address = item.read("dst", family.address)
    if address is None:
        raise FactError("a neighbour without an address", remedy=REMEDY)
    return NeighbourOf(address, item.text("dev"), item.text("lladdr"), item.texts("state"))


NEIGHBOURS = Fact("neighbours", "ip -4 -j neigh show", parse, NODES_AND_PODS)
NEIGHBOURS6 = Fact("neighbours6", "ip -6 -j neigh show", parse6, NODES_AND_PODS, ipv6=True)
