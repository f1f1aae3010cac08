"""The base chains of a host at a hook, of iptables and nftables together, in the order of their priorities; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from hoplab.netfilter import iptables, nftables
from hoplab.netfilter.packet import UNKNOWN, Outcome, Packet
from hoplab.netfilter.ruleset import HasFacts, Rule
from hoplab.observe.facts.ipset import IPSET
from hoplab.observe.facts.iptables import IP6TABLES, IPTABLES, Chain, Iptables
from hoplab.observe.facts.iptables_legacy import IP6TABLES_LEGACY, IPTABLES_LEGACY
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.facts.nftables import Table

__all__ = ["BaseChainAt", "Rule", "base_chains"]

# Where the kernel calls the built-in chains of iptables: the table's priority at every hook, and at those that differ
PRIORITIES: Mapping[str, int] = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 150}
AFTER_ROUTING = 100  # of nat at input and postrouting
SECURITY_LEGACY = 50


@dataclass(frozen=True)
class BaseChainAt:
    """A base chain at one hook, and the walk of a packet through it."""

    layer: str  # "ip", "bridge", "netdev": whose hooks
    table: str  # "iptables filter", "iptables-legacy filter", "nftables inet firewalld"
    name: str
    kind: str  # "filter", "nat", "route"
    priority: int
    walk: Callable[[Packet], tuple[Outcome[Rule], ...]]
    devices: tuple[str, ...] = ()  # at ingress and egress: those it is called for

    def is_for(self, packet: Packet, hook: str) -> bool:
        """Return whether the kernel calls it for the packet's interfaces."""
        here = (packet.port_in, packet.in_dev) if hook == "ingress" else (packet.port_out, packet.out_dev)
        return not self.devices or bool(set(self.devices) & set(here))


def base_chains(host: HasFacts, ipv6: bool, layer: str, hook: str) -> list[BaseChainAt]:
    """Return the base chains at a hook, in the kernel's order; raise FactError where the host lacks a fact."""
    found = list(_of_nftables(host, ipv6, layer, hook))
    if layer == "ip":  # bridges and interfaces have no tables of iptables
        found += _of_iptables(host, ipv6, hook)
    return sorted(found, key=lambda chain: chain.priority)


def _of_iptables(host: HasFacts, ipv6: bool, hook: str) -> Iterator[BaseChainAt]:
    listed = {table.name for table in host[NFT_RULESET].tables if table.family == ("ip6" if ipv6 else "ip")}
    for program, tables in _saved(host, ipv6):
        for table in tables.incompatible:
            if table not in listed:
                where = f"{program} {table}"
                yield BaseChainAt("ip", where, hook.upper(), "filter", PRIORITIES.get(table, 0), unlisted(table))
        for table, chains in tables.tables.items():
            if hook.upper() in chains:
                yield _base_chain(host, program, table, chains, hook)


def _saved(host: HasFacts, ipv6: bool) -> Iterator[tuple[str, Iptables]]:
    """Yield the tables of iptables-nft and of iptables-legacy; ``iptables`` may be either."""
    default, legacy = (IP6TABLES, IP6TABLES_LEGACY) if ipv6 else (IPTABLES, IPTABLES_LEGACY)
    if not host[default].legacy:
        yield default.name, host[default]
    yield f"{default.name}-legacy", host[legacy]


def _base_chain(host: HasFacts, program: str, table: str, chains: Mapping[str, Chain], hook: str) -> BaseChainAt:
    priority = PRIORITIES.get(table, 0)
    if table == "nat" and hook in ("input", "postrouting"):
        priority = AFTER_ROUTING
    elif table == "security" and program.endswith("-legacy"):
        priority = SECURITY_LEGACY
    known = iptables.with_sets(chains, host[IPSET]) if iptables.names_sets(chains) else chains
    return BaseChainAt(
        "ip",
        f"{program} {table}",
        hook.upper(),
        "nat" if table == "nat" else "filter",
        priority,
        lambda packet: iptables.walk(known, hook.upper(), packet),
    )


def _of_nftables(host: HasFacts, ipv6: bool, layer: str, hook: str) -> Iterator[BaseChainAt]:
    saved = host[IP6TABLES if ipv6 else IPTABLES]
    for table in host[NFT_RULESET].tables:
        if table.family not in _FAMILIES[layer, ipv6]:
            continue
        if table.family in ("ip", "ip6") and not saved.legacy and table.name in saved.tables:
            continue  # iptables-nft made and printed it
        for chain in table.hooked(hook):
            yield BaseChainAt(
                layer,
                f"nftables {table.family} {table.name}",
                chain.name,
                chain.kind,
                chain.priority,
                _walk(table, chain.name, somewhere=layer == "netdev" and not chain.devices),
                chain.devices,
            )


_FAMILIES: Mapping[tuple[str, bool], tuple[str, ...]] = {
    ("ip", False): ("ip", "inet"),
    ("ip", True): ("ip6", "inet"),
    ("bridge", False): ("bridge",),
    ("bridge", True): ("bridge",),
    ("netdev", False): ("netdev", "inet"),  # inet has ingress too
    ("netdev", True): ("netdev", "inet"),
}


def _walk(table: Table, chain: str, *, somewhere: bool) -> Callable[[Packet], tuple[Outcome[Rule], ...]]:
    """Return the walk through a base chain; of one whose interface is not listed, every decision is unsure."""

    def walk(packet: Packet) -> tuple[Outcome[Rule], ...]:
        found = nftables.walk(table, chain, packet)
        if not somewhere or all(outcome.verdict == "ACCEPT" for outcome in found):
            return found
        passed: Outcome[Rule] = Outcome("ACCEPT", (), packet)
        return (*(replace(outcome, unsure=(*outcome.unsure, *outcome.path[-1:])) for outcome in found), passed)

    return walk


def unlisted(table: str) -> Callable[[Packet], tuple[Outcome[Rule], ...]]:
    """Return the walk through a table that iptables cannot list: nothing is known of it."""
    rule = iptables.unlisted(table)
    return lambda packet: (Outcome(UNKNOWN, (rule,), packet, unsure=(rule,)),)
