"""Entries of iptables, nftables and ipsets: tables, chains, rules, sets and their elements; pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from hoplab.observe.facts.base_chains import BaseChain
from hoplab.observe.facts.ipset import IpSet
from hoplab.observe.facts.iptables import Iptables, Option, Rule
from hoplab.observe.facts.nft_expressions import Counter, Remember
from hoplab.observe.facts.nft_ruleset import OF_IPTABLES
from hoplab.observe.facts.nftables import Nftables, Set, Table
from hoplab.observe.facts.nftables import Rule as NftRule
from hoplab.verify.changes.entry import Entry

RULE = "rule"
_SIZES = re.compile(r" ?\b(?:hashsize|bucketsize|initval) \S+")  # of the hash table, which the kernel chooses
TARGET, COMMENT = "-j", "--comment"
_DIGEST = re.compile(r"cali:[\w-]{16}")


def iptables(program: str) -> Callable[[Iptables], Iterator[Entry]]:
    """Return the function that yields the chains and rules of one program: "iptables", "ip6tables-legacy"."""

    def entries(found: Iptables) -> Iterator[Entry]:
        for table, chains in found.tables.items():
            within = f"{program} {table}"
            for chain in chains.values():
                rules = [rule_of(rule, within, rank) for rank, rule in enumerate(chain.rules)]
                policy = {"policy": chain.policy}
                words = " ".join(rule.text for rule in rules)
                names = frozenset({chain.name})
                key = (within, chain.name)
                yield Entry("chain", key, policy, chain.name, "", within, names=names, words=words)
                yield from rules

    return entries


def rule_of(rule: Rule, within: str, rank: int) -> Entry:
    """Return a rule of iptables: its options are its fields, so that a change of one of them is said as such."""
    fields: dict[str, str] = {}
    for option in rule.matches:
        if is_digest(option):
            continue
        words = " ".join((*(["!"] if option.negated else []), *option.values))
        fields[option.name] = f"{fields[option.name]} {words}" if option.name in fields else words
    fields[TARGET] = f"goto {rule.target}" if rule.goto else rule.target
    for option in rule.target_options:
        fields[option.name] = " ".join(option.values)
    text = str(rule)
    key = (within, rule.chain, rule.target, fields.get(COMMENT, ""), text if rule.unread else "")
    return Entry(RULE, key, fields, text, within=within, rank=rank)


def is_digest(option: Option) -> bool:
    """Return whether a match is Felix's digest of a rule, which changes with the rules before it."""
    return option.name == COMMENT and all(map(_DIGEST.fullmatch, option.values))


def base_chains(found: Iterable[BaseChain]) -> Iterator[Entry]:
    """Yield base chains. iptables makes its own when they are first used, and says what is in them itself."""
    for chain in found:
        momentary = chain.table in OF_IPTABLES and chain.family in ("ip", "ip6")
        fields = {"hook": chain.hook, "priority": str(chain.priority)}
        key = (chain.family, chain.table, chain.chain)
        within = f"nftables {chain.family} {chain.table}"
        yield Entry("base chain", key, fields, str(chain), " ".join(key), within, momentary)


def nftables(found: Nftables) -> Iterator[Entry]:
    for table in found.tables:
        yield from _table(table)


def _table(table: Table) -> Iterator[Entry]:
    within = f"nftables {table.family} {table.name}"
    yield Entry("table", (within,), {}, f"{table.family} {table.name}", names=frozenset({within}))
    for chain in table.chains.values():
        fields = {
            "type": chain.kind,
            "hook": chain.hook,
            "priority": str(chain.priority) if chain.hook else "",
            "policy": chain.policy,
            "devices": ", ".join(chain.devices),
        }
        rules = [_nft_rule(rule, within, rank) for rank, rule in enumerate(chain.rules)]
        words = " ".join(rule.text for rule in rules)
        names = frozenset({chain.name})
        yield Entry("chain", (within, chain.name), fields, chain.name, "", within, names=names, words=words)
        yield from rules
    for named in table.sets.values():
        yield from _set(named, within, _remembered(table))


def _nft_rule(rule: NftRule, within: str, rank: int) -> Entry:
    """Return a rule of nftables. Its counters are left out."""
    words = [str(one) for one in rule.expressions if not (isinstance(one, Counter) and not one.name)]
    words += [f'comment "{rule.comment}"'] if rule.comment else []
    text = " ".join(words)
    part = f"{within}, chain {rule.chain}"
    return Entry(RULE, (within, rule.chain, rule.comment), {RULE: text}, text, f"of {part}", part, rank=rank)


def _remembered(table: Table) -> frozenset[str]:
    """Return the sets whose elements come from packets."""
    return frozenset(
        expression.set
        for chain in table.chains.values()
        for rule in chain.rules
        for expression in rule.expressions
        if isinstance(expression, Remember)
    )


def _set(named: Set, within: str, remembered: frozenset[str]) -> Iterator[Entry]:
    kind = "map" if named.value_type else "set"
    types = {"type": " . ".join(named.key_type), "data": named.value_type, "timeout": str(named.timeout or "")}
    yield Entry(kind, (within, named.name), types, named.name, "", within, names=frozenset({named.name}))
    moves = bool(named.timeout) or named.name in remembered
    for element in named.elements:
        key = (within, named.name, *element.key)
        part = f"{within}, {kind} {named.name}"
        value = {"element": str(element)}
        yield Entry("element", key, value, str(element), " . ".join(element.key), part, momentary=moves)


def ipsets(found: Iterable[IpSet]) -> Iterator[Entry]:
    for one in found:
        names = frozenset({one.name})
        options = _SIZES.sub("", one.options).strip()
        yield Entry("ipset", (one.name,), {"type": one.kind, "options": options}, one.name, names=names)
        for member in one.members:
            key, within = (one.name, member.element), f"ipset {one.name}"
            moves = "timeout" in member.options
            options = "" if moves else member.options
            yield Entry("element", key, {"options": options}, str(member), member.element, within, momentary=moves)


def moved(before: Iterable[Entry], after: Iterable[Entry]) -> tuple[Entry, Entry] | None:
    """Return the first rule of one chain that comes before another one now, and that one; None where none does.

    Both lists have the same rules. Two rules of which no packet can match both may be in any order: kube-proxy writes
    its services in that of a map of Go.
    """
    then = {_identity(entry): rank for rank, entry in enumerate(before)}
    now = list(after)
    ranks = [then.get(_identity(entry), -1) for entry in now]
    if ranks == sorted(ranks):
        return None
    for index, entry in enumerate(now):
        for later in range(index + 1, len(now)):
            if ranks[later] < ranks[index] and not apart(entry, now[later]):
                return entry, now[later]
    return None


def _identity(entry: Entry) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    return entry.key, tuple(entry.fields.items())


# Matches with one exact value, of which a packet has only one
_EXACT = ("-p", "-i", "-o", "--dport", "--sport")
_HOSTS = ("-s", "-d")


def apart(one: Entry, other: Entry) -> bool:
    """Return whether no packet can match both rules: they want another port, interface or host."""
    for name in (*_EXACT, *_HOSTS):
        mine, others = one.fields.get(name, ""), other.fields.get(name, "")
        if not mine or not others or mine == others or mine.startswith("!") or others.startswith("!"):
            continue
        if name in _HOSTS and not (_is_host(mine) and _is_host(others)):
            continue
        if any(sign in mine + others for sign in (":", "+", ",")) and name not in _HOSTS:
            continue
        return True
    return False


def _is_host(text: str) -> bool:
    return text.endswith(("/32", "/128"))
