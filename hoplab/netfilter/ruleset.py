"""The outcome of a packet at a hook of a host: rules of iptables and nftables together, in the kernel's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from hoplab.netfilter import iptables, nftables
from hoplab.netfilter.packet import UNKNOWN, Outcome, Packet, continued
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


class HasFacts(Protocol):
    """A node, or the facts of one: parsed facts by their descriptor."""

    def __getitem__(self, fact: Fact[T], /) -> T: ...


def prerouting(host: HasFacts, packet: Packet) -> tuple[Outcome[Rule], ...]:
    """Return every possible outcome of a new connection's first packet where destinations are translated."""
    return tuple(run_chains(base_chains_at(host, "nat", "prerouting", packet), packet))


def postrouting(host: HasFacts, packet: Packet) -> tuple[Outcome[Rule], ...]:
    """Return the same where sources are translated."""
    return tuple(run_chains(base_chains_at(host, "nat", "postrouting", packet), packet))


def filtered(host: HasFacts, hook: str, packet: Packet) -> tuple[Outcome[Rule], ...]:
    """Return the same at the filters of a hook: "input", "forward" or "output"."""
    return tuple(run_chains(base_chains_at(host, "filter", hook, packet), packet))


Walk = Callable[[Packet], tuple[Outcome[Rule], ...]]  # of a base chain


def base_chains_at(host: HasFacts, kind: str, hook: str, packet: Packet) -> list[Walk]:
    """Return the base chains of a kind at a hook, in the order of their priorities, for packets of this family."""
    old, new = (IPTABLES, NFTABLES) if packet.dst.version == 4 else (IP6TABLES, NFTABLES6)
    at: list[tuple[int, Walk]] = []
    chains = host[old].chains(kind)
    if iptables.names_sets(chains):
        chains = iptables.with_sets(chains, host[ipset.IPSET])
    if kind in host[old].incompatible:
        rule = iptables.unlisted(kind)
        at.append((PRIORITIES[kind, hook], lambda packet: (Outcome(UNKNOWN, (rule,), packet, unsure=(rule,)),)))
    if hook.upper() in chains:
        at.append((PRIORITIES[kind, hook], lambda packet: iptables.walk(chains, hook.upper(), packet)))
    for table in host[new].tables:
        at += [(chain.priority, _walk(table, chain.name)) for chain in table.hooked(hook) if chain.kind == kind]
    return [walk for _, walk in sorted(at, key=lambda entry: entry[0])]


def _walk(table: Table, chain: str) -> Walk:
    return lambda packet: nftables.walk(table, chain, packet)


def run_chains(walks: list[Walk], packet: Packet) -> Iterator[Outcome[Rule]]:
    """Yield the outcomes of base chains in turn: after ACCEPT the next one is evaluated, any other verdict is final."""
    if not walks:
        yield Outcome("ACCEPT", (), packet)
        return
    for outcome in walks[0](packet):
        if outcome.verdict != "ACCEPT":
            yield outcome
            continue
        for after in run_chains(walks[1:], outcome.packet):
            yield continued(outcome, after)
