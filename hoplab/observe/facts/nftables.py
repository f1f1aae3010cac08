"""nftables as ``nft -j list table ip kube-proxy`` prints it: chains with their hooks, rules, sets and maps.

Only the tables of the lab's parts are listed; parts that use iptables have none. `nft list ruleset` would also print
the rules of iptables-nft. They are in the fact iptables, as nft prints only the names of their matches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hoplab.core.errors import FactError
from hoplab.core.ip import REMEDY
from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Item, document
from hoplab.observe.facts.nft_expressions import Element, Expression, elements, expression, text
from hoplab.spec.parts import CniPart, Parts, ProxyPart


@dataclass(frozen=True)
class Rule:
    """One rule: the kernel evaluates its expressions from left to right until one does not match."""

    chain: str
    expressions: tuple[Expression, ...]
    comment: str = ""
    handle: int = field(default=0, compare=False)  # `nft delete rule ip kube-proxy services handle 7`

    def __str__(self) -> str:
        comment = f' comment "{self.comment}"' if self.comment else ""
        return " ".join(str(expression) for expression in self.expressions) + comment


@dataclass(frozen=True)
class Chain:
    """A chain; a chain with a hook is a base chain, which the kernel calls."""

    name: str
    kind: str = ""  # "filter", "nat", "route"; like hook and policy "" for a regular chain
    hook: str = ""  # "prerouting"
    priority: int = 0  # at one hook the lowest comes first: -100 dstnat, 0 filter, 100 srcnat
    policy: str = ""
    rules: tuple[Rule, ...] = ()
    devices: tuple[str, ...] = ()  # of a base chain at ingress or egress: those it is called for


@dataclass(frozen=True)
class Set:
    """A named set, or a map, whose elements have values."""

    name: str
    key_type: tuple[str, ...]  # ("ipv4_addr", "inet_proto", "inet_service")
    value_type: str  # "verdict"; "" for a set
    elements: tuple[Element, ...]
    timeout: int = 0  # seconds after which an element expires; 0: never

    def find(self, *key: object) -> Element | None:
        """Return the element with exactly that key: find(address, "udp", 53)."""
        wanted = tuple(str(part) for part in key)
        return next((element for element in self.elements if element.key == wanted), None)


@dataclass(frozen=True)
class Table:
    """One table, with its chains and its sets and maps by name."""

    family: str  # "ip", "ip6", "inet", "bridge", "netdev", "arp"
    name: str
    chains: Mapping[str, Chain]
    sets: Mapping[str, Set]

    def rules(self, chain: str) -> tuple[Rule, ...]:
        """Return the rules of a chain; none where the chain does not exist."""
        found = self.chains.get(chain)
        return found.rules if found else ()

    def hooked(self, hook: str) -> tuple[Chain, ...]:
        """Return the base chains of a hook, in the order the kernel calls them."""
        return tuple(
            sorted((chain for chain in self.chains.values() if chain.hook == hook), key=lambda chain: chain.priority)
        )


@dataclass(frozen=True)
class Nftables:
    """The tables that were listed; none where kube-proxy is not in nftables mode."""

    tables: tuple[Table, ...]

    def table(self, name: str = "kube-proxy", family: str = "ip") -> Table | None:
        return next((table for table in self.tables if (table.family, table.name) == (family, name)), None)


ABSENT = "Error: No such file or directory"  # of a missing table; two lines with the position follow


def parse(listing: str) -> Nftables:
    """Parse one document a line, one for each table that exists."""
    lines = listing.splitlines()
    while ABSENT in lines:
        at = lines.index(ABSENT)
        del lines[at : at + 3]
    try:
        return Nftables(tuple(table for line in lines if line.strip() for table in _tables(line)))
    except RecursionError:
        raise FactError("nftables has an expression nested beyond reason", remedy=REMEDY) from None


def _tables(line: str) -> tuple[Table, ...]:
    return _ruleset(Item(document(line, "nftables"), "nftables"))


def _ruleset(raw: Item) -> tuple[Table, ...]:
    """Return the tables from a list of objects of all kinds: ``{"chain": {"table": "kube-proxy", "name": ...}}``"""
    found: dict[str, list[Item]] = {}
    for entry in raw.items("nftables"):
        for kind in entry.raw:
            found.setdefault(kind, []).append(entry.item(kind))
    return tuple(_table(item, found) for item in found.get("table", []))


def _table(item: Item, found: Mapping[str, list[Item]]) -> Table:
    family, name = item.text("family"), item.text("name")

    def own(kind: str) -> list[Item]:
        return [item for item in found.get(kind, []) if (item.text("family"), item.text("table")) == (family, name)]

    rules: dict[str, list[Rule]] = {}
    for rule in own("rule"):
        rules.setdefault(rule.text("chain"), []).append(_rule(rule))
    return Table(
        family,
        name,
        chains={chain.text("name"): _chain(chain, rules.get(chain.text("name"), [])) for chain in own("chain")},
        sets={named.text("name"): _set(named) for kind in ("set", "map") for named in own(kind)},
    )


def _chain(item: Item, rules: list[Rule]) -> Chain:
    hook, policy = item.text("hook"), item.text("policy")
    named = item.raw.get("dev", [])
    devices = tuple(map(text, named)) if isinstance(named, list) else (text(named),)
    return Chain(item.text("name"), item.text("type"), hook, item.number("prio"), policy, tuple(rules), devices)


def _rule(item: Item) -> Rule:
    expressions = tuple(expression(item.raw) for item in item.items("expr"))
    return Rule(item.text("chain"), expressions, item.text("comment"), item.number("handle"))


def _set(item: Item) -> Set:
    kind = item.raw.get("type")
    key_type = tuple(text(part) for part in kind) if isinstance(kind, list) else (text(kind),)
    return Set(
        item.text("name"),
        key_type,
        text(item.raw.get("map", "")),
        elements(item.raw.get("elem")),
        item.number("timeout"),
    )


def _listing(tables: Iterable[str]) -> str:
    return "".join(f"nft -j list table {table} 2>&1; " for table in tables) + "true"


def _list_ipv4(parts: Parts) -> str:
    return _listing(table for part in _writers(parts) for table in part.nft_tables)


def _list_ipv6(parts: Parts) -> str:
    return _listing(table for part in _writers(parts) for table in part.nft_tables6)


def _writers(parts: Parts) -> tuple[ProxyPart | CniPart, ...]:
    return (*parts.proxy.values(), *parts.cni.values())


NFTABLES = Fact("nftables", "nft -j list ruleset ip", parse, of_parts=_list_ipv4)
NFTABLES6 = Fact("nftables6", "nft -j list ruleset ip6", parse, ipv6=True, of_parts=_list_ipv6)
