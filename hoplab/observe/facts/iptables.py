"""iptables as ``iptables-save -c`` prints it: tables, chains with policies, rules with parsed matches and counters.

iptables-nft (Debian's default) and iptables-legacy print the same text, and so does ip6tables.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, ip_network

from hoplab.core.errors import FactError
from hoplab.core.ip import IPNetwork
from hoplab.observe.facts import Fact


@dataclass(frozen=True)
class Option:
    """One option of a match or target: ``! --dport 53`` is Option("--dport", ("53",), negated=True)."""

    name: str
    values: tuple[str, ...] = ()
    negated: bool = False
    members: tuple[IPNetwork, ...] | None = field(default=None, compare=False)  # of its ipset, where known

    def words(self) -> list[str]:
        return [*(["!"] if self.negated else []), self.name, *self.values]


@dataclass(frozen=True)
class Rule:
    """One rule. ``str(rule)`` is its line without the counters."""

    chain: str
    matches: tuple[Option, ...] = ()
    target: str = ""  # "" for a rule without a target, which only counts
    goto: bool = False  # -g: after the target chain the evaluation continues in the caller's caller
    target_options: tuple[Option, ...] = ()
    packets: int = field(default=0, compare=False)
    bytes: int = field(default=0, compare=False)

    def match(self, name: str) -> Option | None:
        """Return the match option of that name: rule.match("--dport")."""
        return next((option for option in self.matches if option.name == name), None)

    def value(self, name: str) -> str:
        """Return the first value of a match or target option that is not negated, or ""."""
        for option in (*self.matches, *self.target_options):
            if option.name == name and option.values and not option.negated:
                return option.values[0]
        return ""

    @property
    def comment(self) -> str:
        return self.value("--comment")

    @property
    def comments(self) -> tuple[str, ...]:
        """Return all comments: Felix gives each rule a digest, then its purpose."""
        return tuple(option.values[0] for option in self.matches if option.name == "--comment")

    @property
    def source(self) -> IPv4Network | None:
        return IPv4Network(text) if (text := self.value("-s")) else None

    @property
    def destination(self) -> IPv4Network | None:
        return IPv4Network(text) if (text := self.value("-d")) else None

    def __str__(self) -> str:
        words = ["-A", self.chain]
        for option in self.matches:
            words += option.words()
        if self.target:
            words += ["-g" if self.goto else "-j", self.target]
        for option in self.target_options:
            words += option.words()
        return " ".join(_quoted(word) for word in words)


@dataclass(frozen=True)
class Chain:
    """A chain; a built-in chain has a policy."""

    name: str
    policy: str  # "ACCEPT", "DROP"; "" for a user-defined chain
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Iptables:
    """All tables of one network namespace."""

    tables: Mapping[str, Mapping[str, Chain]]

    def rules(self, table: str, chain: str) -> tuple[Rule, ...]:
        """Return the rules of a chain; none where the chain does not exist."""
        found = self.tables.get(table, {}).get(chain)
        return found.rules if found else ()

    def chains(self, table: str) -> Mapping[str, Chain]:
        return self.tables.get(table, {})


_CHAIN = re.compile(r":(\S+) (\S+)(?: \[\d+:\d+\])?")
_RULE = re.compile(r"(?:\[(\d{1,20}):(\d{1,20})\] )?-A (.+)")
_NETWORK_OPTIONS = ("-s", "-d")


def parse(text: str) -> Iptables:
    tables: dict[str, dict[str, tuple[str, list[Rule]]]] = {}
    chains: dict[str, tuple[str, list[Rule]]] | None = None
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("*"):
            chains = tables.setdefault(line[1:].strip(), {})
        elif line == "COMMIT":
            chains = None
        elif chains is None:
            raise _unreadable(line, "is outside of a table")
        elif found := _CHAIN.fullmatch(line):
            chains[found[1]] = ("" if found[2] == "-" else found[2], [])
        elif found := _RULE.fullmatch(line):
            rule = _rule(line, found[3], int(found[1] or 0), int(found[2] or 0))
            if rule.chain not in chains:
                raise _unreadable(line, "is in a chain that is not declared")
            chains[rule.chain][1].append(rule)
        else:
            raise _unreadable(line, "is neither chain nor rule")
    return Iptables(
        {
            table: {name: Chain(name, policy, tuple(rules)) for name, (policy, rules) in found.items()}
            for table, found in tables.items()
        }
    )


def _rule(line: str, text: str, packets: int, size: int) -> Rule:
    try:
        chain, *words = shlex.split(text)
    except ValueError:
        raise _unreadable(line, "has an open quote or no chain") from None
    options = list(_options(line, words))
    at = next((index for index, option in enumerate(options) if option.name in ("-j", "-g")), None)
    if at is None:
        rule = Rule(chain, tuple(options), packets=packets, bytes=size)
    else:
        jump = options[at]
        if len(jump.values) != 1:
            raise _unreadable(line, "names no target")
        rule = Rule(
            chain, tuple(options[:at]), jump.values[0], jump.name == "-g", tuple(options[at + 1 :]), packets, size
        )
    for option in rule.matches:
        if option.name in _NETWORK_OPTIONS and not _is_network(option.values):
            raise _unreadable(line, f"has a {option.name} that is no range")
    return rule


def _options(line: str, words: list[str]) -> Iterator[Option]:
    """Group words into options: a name begins with a dash, "!" before it negates it, the rest are its values."""
    name, values, negated, bang = "", list[str](), False, False
    for word in words:
        if word.startswith("-") and (len(word) > 1 and not word[1].isdigit()) and name != "--comment":
            if name:
                yield Option(name, tuple(values), negated)
            name, values, negated, bang = word, [], bang, False
        elif word == "!" and name != "--comment":
            bang = True
        elif not name or bang:
            raise _unreadable(line, f"has a stray {word!r}")
        else:
            values.append(word)
            if name == "--comment":  # exactly one value, even one with a leading dash
                yield Option(name, tuple(values), negated)
                name, values, negated = "", [], False
    if bang:
        raise _unreadable(line, "ends in `!`")
    if name:
        yield Option(name, tuple(values), negated)


def _is_network(values: tuple[str, ...]) -> bool:
    try:
        return len(values) == 1 and bool(ip_network(values[0]))
    except ValueError:
        return False


def _quoted(word: str) -> str:
    """Return a value as iptables-save prints it: in double quotes only where needed."""
    if word and re.fullmatch(r"[^\s\"'\\]+", word):
        return word
    return '"' + re.sub(r'(["\\])', r"\\\1", word) + '"'


def _unreadable(line: str, why: str) -> FactError:
    return FactError(f"the line {line!r} of iptables-save {why}", remedy="run `iptables-save -c` on the node and look")


IPTABLES = Fact("iptables", "iptables-save -c", parse)
IP6TABLES = Fact("ip6tables", "ip6tables-save -c", parse, ipv6=True)
