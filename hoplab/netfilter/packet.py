"""A packet, and the outcomes of the rules that it traverses; pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, Protocol, TypeVar


@dataclass(frozen=True)
class Packet:
    """The fields of a packet that rules match, and the conntrack state of its connection."""

    src: IPv4Address | IPv6Address
    dst: IPv4Address | IPv6Address
    protocol: str = "tcp"
    dport: int = 80
    mark: int = 0
    in_dev: str = ""
    out_dev: str = ""
    dst_is_local: bool = False  # the destination is an address of this host
    src_is_local: bool = False  # ... and the source
    state: str = "NEW"
    status: str = ""  # "dnat": of a connection whose destination was translated
    known: bool = False  # a set or list of recent clients may hold its sender


class InChain(Protocol):
    """A rule, of iptables or of nftables."""

    @property
    def chain(self) -> str: ...


R_co = TypeVar("R_co", bound=InChain, covariant=True)


@dataclass(frozen=True)
class Outcome(Generic[R_co]):
    """One possible outcome of a packet in the rules."""

    verdict: str  # "ACCEPT", "DNAT", "MASQUERADE", "REJECT", ...; the policy when no rule decided
    path: tuple[R_co, ...]  # the rules that matched, in order
    packet: Packet  # with the mark it has in the end
    to: str = ""  # "10.244.1.2:8080": where a translated packet goes
    probability: float = 1.0  # of this outcome among equal packets, as far as rules draw random numbers

    @property
    def last(self) -> R_co | None:
        return self.path[-1] if self.path else None

    @property
    def chains(self) -> tuple[str, ...]:
        """Return the chains on its path, without repetition, in order."""
        return tuple(dict.fromkeys(rule.chain for rule in self.path))
