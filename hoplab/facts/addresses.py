"""IPv4 addresses of interfaces: ``ip -4 -j address``."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from hoplab.facts import Fact
from hoplab.facts._json import interface, listed


@dataclass(frozen=True)
class Address:
    """One address of one interface."""

    dev: str
    address: IPv4Address
    network: IPv4Network  # the range its prefix length makes of it
    broadcast: IPv4Address | None
    scope: str  # "global", "link", "host"

    def __str__(self) -> str:
        return f"{self.address}/{self.network.prefixlen} dev {self.dev}"


def parse(text: str) -> tuple[Address, ...]:
    found = []
    for link in listed(text, "addresses"):
        for item in link.items("addr_info"):
            if item.text("family") == "inet":
                both = interface(item.text("local"), item.number("prefixlen"), "addresses")
                found.append(
                    Address(link.text("ifname"), both.ip, both.network, item.address("broadcast"), item.text("scope"))
                )
    return tuple(found)


ADDRESSES = Fact("addresses", "ip -4 -j address show", parse, frozenset({"node", "pod"}))
