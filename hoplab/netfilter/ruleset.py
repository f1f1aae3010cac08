"""What the rules of a host do with a packet, whoever wrote them: iptables and nftables, in the order of the kernel.

Lessons ask "where would this packet end?" and need not know which of the two the answer comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

from hoplab.netfilter import iptables, nftables
from hoplab.netfilter.iptables import End, Packet
from hoplab.observe.facts import Fact, T, ipset
from hoplab.observe.facts.iptables import IP6TABLES, IPTABLES
from hoplab.observe.facts.iptables import Rule as IptablesRule
from hoplab.observe.facts.nftables import NFTABLES, NFTABLES6, Table
from hoplab.observe.facts.nftables import Rule as NftablesRule

Rule = IptablesRule | NftablesRule

# Where the kernel calls the built-in chains of iptables: the table's priority at the hook
PRIORITIES = {
    ("nat", "prerouting"): -100,
    ("nat", "output"): -100,
    ("nat", "postrouting"): 100,
    ("nat", "input"): 100,
    ("filter", "input"): 0,
    ("filter", "forward"): 0,
    ("filter", "output"): 0,
}


class Looked(Protocol):
    """A node, or the facts of one."""

    def __getitem__(self, fact: Fact[T], /) -> T: ...


def arriving(host: Looked, packet: Packet) -> tuple[End[Rule], ...]:
    """Every possible end of a new connection's first packet where destinations are translated."""
    return tuple(_met(_called(host, "nat", "prerouting", packet), packet))


def leaving(host: Looked, packet: Packet) -> tuple[End[Rule], ...]:
    """... where sources are translated, on its way out."""
    return tuple(_met(_called(host, "nat", "postrouting", packet), packet))


def filtered(host: Looked, hook: str, packet: Packet) -> tuple[End[Rule], ...]:
    """... at the filters of a hook, "input", "forward" or "output"."""
    return tuple(_met(_called(host, "filter", hook, packet), packet))


Walk = Callable[[Packet], tuple[End[Rule], ...]]  # of a base chain


def _called(host: Looked, kind: str, hook: str, packet: Packet) -> list[Walk]:
    """The base chains of a kind that the kernel calls at a hook, in its order, for packets of this family."""
    old, new = (IPTABLES, NFTABLES) if packet.dst.version == 4 else (IP6TABLES, NFTABLES6)
    at: list[tuple[int, Walk]] = []
    chains = host[old].chains(kind)
    if iptables.names_sets(chains):
        chains = iptables.with_sets(chains, host[ipset.IPSET])
    if hook.upper() in chains:
        at.append((PRIORITIES[kind, hook], lambda packet: iptables.walk(chains, hook.upper(), packet)))
    for table in host[new].tables:
        at += [(chain.priority, _walk(table, chain.name)) for chain in table.hooked(hook) if chain.kind == kind]
    return [walk for _, walk in sorted(at, key=lambda each: each[0])]


def _walk(table: Table, chain: str) -> Walk:
    return lambda packet: nftables.walk(table, chain, packet)


def _met(walks: list[Walk], packet: Packet) -> Iterator[End[Rule]]:
    """One base chain after the other; who accepts leaves it to the next one, everything else is the end."""
    if not walks:
        yield End("ACCEPT", (), packet)
        return
    for end in walks[0](packet):
        if end.verdict != "ACCEPT":
            yield end
            continue
        for after in _met(walks[1:], end.packet):
            yield replace(after, path=(*end.path, *after.path), share=end.share * after.share)
