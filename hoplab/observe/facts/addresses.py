"""Addresses of interfaces: ``ip -4 -j address``, and with ``-6`` in a lab that has both families."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Generic

from hoplab.core import ip as family
from hoplab.core.ip import V4, V6, Family
from hoplab.observe.facts import NODES_AND_PODS, Fact
from hoplab.observe.facts._json import Entries, Item, gather_listed


@dataclass(frozen=True)
class AddressOf(Generic[family.Address, family.Network]):
    """One address of one interface."""

    dev: str
    address: family.Address
    network: family.Network  # the range that the prefix length defines; of a point-to-point link around the peer
    broadcast: family.Address | None  # IPv6 has none
    scope: str  # "global", "link", "host"
    peer: family.Address | None = None  # the other end of a point-to-point link

    def __str__(self) -> str:
        peer = f" peer {self.peer}" if self.peer else ""
        return f"{self.address}{peer}/{self.network.prefixlen} dev {self.dev}"


Address = AddressOf[IPv4Address, IPv4Network]
Address6 = AddressOf[IPv6Address, IPv6Network]


def parse(text: str) -> Entries[Address]:
    return _parsed(text, V4)


def parse6(text: str) -> Entries[Address6]:
    return _parsed(text, V6)


def _parsed(
    text: str, of: Family[family.Address, family.Network]
) -> Entries[AddressOf[family.Address, family.Network]]:
    return gather_listed(text, "addresses", lambda link: _of_link(link, of))


def _of_link(
    link: Item, of: Family[family.Address, family.Network]
) -> Iterator[AddressOf[family.Address, family.Network]]:
    for item in link.items("addr_info"):
        if item.text("family") == of.key:
            address, peer = of.address(item.text("local"), "addresses"), item.read("address", of.address)
            yield AddressOf(
                link.text("ifname"),
                address,
                of.around(str(peer or address), item.number("prefixlen"), "addresses"),
                item.read("broadcast", of.address),
                item.text("scope"),
                peer,
            )


def source6(own: Iterable[Address6], dst: IPv6Address, dev: str) -> IPv6Address | None:
    """Return the source address that Linux gives a packet of IPv6 (RFC 6724); None where none has its scope.

    One of the outgoing interface comes before others, then the one that has most leading bits of the destination.
    """
    scope = "link" if dst.is_link_local else "host" if dst.is_loopback else "global"

    def rank(address: Address6) -> tuple[bool, int]:
        return address.dev != dev, (int(address.address) ^ int(dst)).bit_length()

    found = min((address for address in own if address.scope == scope), key=rank, default=None)
    return found.address if found else None


ADDRESSES = Fact("addresses", "ip -4 -j address show", parse, NODES_AND_PODS)
ADDRESSES6 = Fact("addresses6", "ip -6 -j address show", parse6, NODES_AND_PODS, ipv6=True)
