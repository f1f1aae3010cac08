"""A packet, and the outcomes of the rules that it traverses; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Generic, Protocol, TypeVar


@dataclass(frozen=True)
class Packet:
    """The fields of a packet that rules match, and the conntrack state of its connection."""

    src: IPv4Address | IPv6Address
    dst: IPv4Address | IPv6Address
    protocol: str = "tcp"
    dport: int = 80  # 0: an ephemeral one, as the destination of a reply
    mark: int = 0
    in_dev: str = ""
    out_dev: str = ""
    dst_is_local: bool = False  # the destination is an address of this host
    src_is_local: bool = False  # ... and the source
    state: str = "NEW"
    status: str = ""  # "dnat": of a connection whose destination was translated
    known: bool = False  # a set or list of recent clients may hold its sender
    sport: int = 0  # 0: an ephemeral one
    port_in: str = ""  # the port of a bridge by which it arrived, where a bridge passes it on
    port_out: str = ""  # ... and leaves
    reverse_path: bool | None = None  # the route to its source leads by ``in_dev``; None: not looked at
    connmark: int = 0  # of its connection
    icmp_type: int | None = None  # 8 and 128 echo requests, 0 and 129 their replies; None: not known

    @property
    def ipv6(self) -> bool:
        return self.dst.version == 6

    @property
    def tracked(self) -> bool:
        """Return whether it belongs to a connection: before conntrack has seen it, it does not."""
        return self.state not in ("INVALID", "UNTRACKED")

    @property
    def bridged(self) -> bool:
        """Return whether it goes from one port of a bridge to another one."""
        return bool(self.port_in and self.port_out) and self.in_dev == self.out_dev


ECHO_REPLIES = {8: 0, 128: 129}  # types of ICMP and ICMPv6
UNKNOWN = "UNKNOWN"  # the verdict of a rule that cannot be read, or whose target is not known
QUEUED = "QUEUE"  # the verdict of a rule that leaves the packet to a program
EPHEMERAL = range(32768, 61000)  # ports of clients: Linux' default for net.ipv4.ip_local_port_range


def port_in(ports: range, port: int) -> bool | None:
    """Return whether a port is in a range; of an ephemeral one (0), whether all are, or None where only some are."""
    if port:
        return port in ports
    if EPHEMERAL.start in ports and EPHEMERAL.stop - 1 in ports:
        return True
    apart = ports.stop <= EPHEMERAL.start or EPHEMERAL.stop <= ports.start
    return False if apart else None


def any_of(answers: Iterable[bool | None]) -> bool | None:
    """Return whether one of the answers is True; None where that is not known."""
    found = set(answers)
    return True if True in found else None if None in found else False


class InChain(Protocol):
    """A rule, of iptables or of nftables."""

    @property
    def chain(self) -> str: ...


R_co = TypeVar("R_co", bound=InChain, covariant=True)


@dataclass(frozen=True)
class Outcome(Generic[R_co]):
    """One possible outcome of a packet in the rules."""

    verdict: str  # "ACCEPT", "DNAT", "MASQUERADE", "REJECT", ...; the policy when no rule decided; UNKNOWN
    path: tuple[R_co, ...]  # the rules that matched, in order
    packet: Packet  # with the mark it has in the end
    to: str = ""  # "10.244.1.2:8080": where a translated packet goes
    probability: float = 1.0  # of this outcome among equal packets, as far as rules draw random numbers
    unsure: tuple[R_co, ...] = ()  # rules whose match is unknown, and on which this outcome depends
    by_policy: bool = False  # no rule decided

    @property
    def last(self) -> R_co | None:
        return self.path[-1] if self.path else None

    @property
    def chains(self) -> tuple[str, ...]:
        """Return the chains on its path, without repetition, in order."""
        return tuple(dict.fromkeys(rule.chain for rule in self.path))


R = TypeVar("R", bound=InChain)


def continued(before: Outcome[R], after: Outcome[R]) -> Outcome[R]:
    """Return the outcome of the later rules with the path to them."""
    if not before.path and not before.unsure and before.probability == 1:
        return after
    return replace(
        after,
        path=(*before.path, *after.path),
        probability=before.probability * after.probability,
        unsure=tuple(dict.fromkeys((*before.unsure, *after.unsure))),
    )


def merged(outcomes: Iterable[Outcome[R]]) -> list[Outcome[R]]:
    """Return outcomes with one for each packet among the unsure ones: rules treat equal packets equally.

    This bounds the walk: without it, every rule whose match is unknown would double the number of outcomes.
    """
    found: list[Outcome[R]] = []
    seen: set[tuple[Any, ...]] = set()
    for outcome in outcomes:
        key = (outcome.packet, outcome.verdict, outcome.to)
        if outcome.unsure and key in seen:
            continue
        seen.add(key)
        found.append(outcome)
    return found
