"""Addresses and ranges of IPv4 and IPv6; any other text raises FactError with the place of that text."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Generic, TypeVar

from hoplab.core.errors import FactError

Address = TypeVar("Address", IPv4Address, IPv6Address)
Network = TypeVar("Network", IPv4Network, IPv6Network)

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

REMEDY = "the tool that printed it may be of a version that hoplab does not support"


@dataclass(frozen=True)
class Family(Generic[Address, Network]):
    """One of the two address families."""

    name: str
    key: str  # as `ip -j` calls it
    of_address: type[Address]
    of_network: type[Network]
    everything: Network  # what `default` stands for

    def address(self, text: str, what: str) -> Address:
        try:
            return self.of_address(text)
        except ValueError:
            raise FactError(f"{what}: {text!r} is not an {self.name} address", remedy=REMEDY) from None

    def network(self, text: str, what: str) -> Network:
        """Return a CIDR range; an address without a prefix length is a range of one, `default` is everything."""
        try:
            return self.everything if text == "default" else self.of_network(text)
        except ValueError:
            raise FactError(f"{what}: {text!r} is not an {self.name} range", remedy=REMEDY) from None

    def around(self, text: str, prefix: int, what: str) -> Network:
        """Return the range of an address with this prefix length."""
        try:
            return self.of_network(f"{text}/{prefix}", strict=False)
        except ValueError:
            raise FactError(f"{what}: {text}/{prefix} is not an {self.name} address", remedy=REMEDY) from None

    def has(self, text: str) -> bool:
        """Return whether an address or a range, as text, is of this family."""
        return (":" in text) == (self.key == "inet6")


V4 = Family("IPv4", "inet", IPv4Address, IPv4Network, IPv4Network("0.0.0.0/0"))
V6 = Family("IPv6", "inet6", IPv6Address, IPv6Network, IPv6Network("::/0"))


def with_port(address: IPAddress | str | None, port: int | str) -> str:
    """Return address, or the name of a host, and port as in a URL.

    >>> with_port(IPv4Address("10.244.1.2"), 8080), with_port("fd00:244:0:1::2", 8080)
    ('10.244.1.2:8080', '[fd00:244:0:1::2]:8080')
    """
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
