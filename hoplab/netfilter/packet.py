"""The packet that rules are applied to, and the outcomes of its way through them; pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, Protocol, TypeVar


@dataclass(frozen=True)
class Packet:
    """What rules look at."""

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
    known: bool = False  # its sender may be remembered from an earlier connection


class InChain(Protocol):
    """A rule, of iptables or of nftables."""

    @property
    def chain(self) -> str: ...


R_co = TypeVar("R_co", bound=InChain, covariant=True)


@dataclass(frozen=True)
class Outcome(Generic[R_co]):
    """One possible end of a walk."""

    verdict: str  # "ACCEPT", "DNAT", "MASQUERADE", "REJECT", ...; the policy when no rule decided
    path: tuple[R_co, ...]  # the rules that matched, in order
    packet: Packet  # with the mark it has in the end
    to: str = ""  # "10.244.1.2:8080": where a translated packet goes
    probability: float = 1.0  # of all packets like this one, as far as rules throw dice

    @property
    def last(self) -> R_co | None:
        return self.path[-1] if self.path else None

    @property
    def chains(self) -> tuple[str, ...]:
        """The chains it went through, each once, in order."""
        return tuple(dict.fromkeys(rule.chain for rule in self.path))
