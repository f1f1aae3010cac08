"""Peers of WireGuard interfaces, with endpoints and allowed addresses: ``wg show all``.

Public keys are no secrets; these two listings of `wg show` do not contain the private key.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact


@dataclass(frozen=True)
class Peer:
    """One peer of one interface."""

    dev: str  # "flannel-wg"
    key: str  # its public key
    endpoint: str  # "192.168.77.21:51820": destination of its packets; "" when not known
    allowed: tuple[IPv4Network | IPv6Network, ...]  # allowed IPs: destinations behind it, and permitted sources

    def __str__(self) -> str:
        ranges = ", ".join(map(str, self.allowed)) or "none"
        return f"peer {self.key[:8]}... of {self.dev}, endpoint {self.endpoint or 'none'}, allowed ips {ranges}"


NONE = "(none)"


def parse(text: str) -> tuple[Peer, ...]:
    """Parse two listings with an empty line between them: interface, key and ranges; interface, key and endpoint.

    A node without WireGuard prints the empty line alone.
    """
    ranges, _, endpoints = text.partition("\n\n")
    known = {(dev, key): value for dev, key, value in map(_columns, endpoints.splitlines())}
    return tuple(
        Peer(dev, key, known.get((dev, key), "").replace(NONE, ""), _networks(value))
        for dev, key, value in map(_columns, ranges.strip("\n").splitlines())
    )


def _columns(line: str) -> tuple[str, str, str]:
    columns = line.split("\t")
    if len(columns) != 3:
        raise FactError(f"{line!r} is not an interface, a key and a value", remedy="look at `wg show all` on the node")
    return columns[0], columns[1], columns[2]


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(network) for network in text.split() if network != NONE)
    except ValueError:
        raise FactError(f"{text!r} are no ranges", remedy="look at `wg show all` on the node") from None


WIREGUARD = Fact("wireguard", "wg show all allowed-ips; echo; wg show all endpoints", parse)
