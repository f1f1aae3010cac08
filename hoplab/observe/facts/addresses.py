"""Addresses of interfaces: ``ip -4 -j address``, and with ``-6`` in a lab that has both families."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Generic

from hoplab.core import ip as family
from hoplab.core.ip import V4, V6, Family
from hoplab.observe.facts import NODES_AND_PODS, Fact
from hoplab.observe.facts._json import listed


@dataclass(frozen=True)
class AddressOf(Generic[family.Address, family.Network]):
    """One address of one interface."""

    dev: str
    address: family.Address
    network: family.Network  # the range that the prefix length defines
    broadcast: family.Address | None  # IPv6 has none
    scope: str  # "global", "link", "host"

    def __str__(self) -> str:
        return f"{self.address}/{self.network.prefixlen} dev {self.dev}"


Address = AddressOf[IPv4Address, IPv4Network]
Address6 = AddressOf[IPv6Address, IPv6Network]


def parse(text: str) -> tuple[Address, ...]:
    return _parsed(text, V4)


def parse6(text: str) -> tuple[Address6, ...]:
    return _parsed(text, V6)


def _parsed(
    text: str, of: Family[family.Address, family.Network]
) -> tuple[AddressOf[family.Address, family.Network], ...]:
    found = []
    for link in listed(text, "addresses"):
        for item in link.items("addr_info"):
            if item.text("family") == of.key:
                prefix = item.number("prefixlen")
                found.append(
                    AddressOf(
                        link.text("ifname"),
                        of.address(item.text("local"), "addresses"),
                        of.around(item.text("local"), prefix, "addresses"),
                        item.read("broadcast", of.address),
                        item.text("scope"),
                    )
                )
    return tuple(found)


ADDRESSES = Fact("addresses", "ip -4 -j address show", parse, NODES_AND_PODS)
ADDRESSES6 = Fact("addresses6", "ip -6 -j address show", parse6, NODES_AND_PODS, ipv6=True)
