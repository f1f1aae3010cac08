"""iptables as ``iptables-save -c`` prints it: tables, chains with policies, rules with parsed matches and counters.

iptables-nft (Debian's default) and iptables-legacy print the same text, and so does ip6tables. A rule that cannot be
read is kept with the reason (``Rule.unread``): it is there, and its effect is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from ipaddress import IPv4Network, ip_address

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact
from hoplab.observe.facts.ipset import IpSet


@dataclass(frozen=True)
class Option:
    """One option of a match or target: ``! --dport 53`` is Option("--dport", ("53",), negated=True)."""

    name: str
    values: tuple[str, ...] = ()
    negated: bool = False
    module: str = field(default="", compare=False)  # of a match: "multiport" for ``-m multiport --dports 53``
    sets: tuple[IpSet, ...] | None = field(default=None, compare=False)  # its ipset, or those of a list, where known

    def words(self) -> list[str]:
        return [*(["!"] if self.negated else []), self.name, *self.values]


MATCH_SET = "--match-set"


@dataclass(frozen=True)
class Rule:
    """One rule. ``str(rule)`` is its line without the counters.

    Where ``unread`` is set, ``matches`` are those that could be read: without them the rule does nothing.
    """

    chain: str
    matches: tuple[Option, ...] = ()
    target: str = ""  # "" for a rule without a target, which only counts
    goto: bool = False  # -g: after the target chain the evaluation continues in the caller's caller
    target_options: tuple[Option, ...] = ()
    packets: int = field(default=0, compare=False)
    bytes: int = field(default=0, compare=False)
    unread: str = field(default="", compare=False)  # why it could not be read: "names no target"
    line: str = ""  # of a rule that could not be read

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
    def of_another_version(self) -> bool:
        """Return whether iptables itself cannot print what it does: a rule that another version has written."""
        return bool(self.unread) and UNSUPPORTED[0] in self.line

    @property
    def comment(self) -> str:
        return self.value("--comment")

    @property
    def comments(self) -> tuple[str, ...]:
        """Return all comments: Felix gives each rule a digest, then its purpose."""
        return tuple(option.values[0] for option in self.matches if option.name == "--comment")

    @property
    def source(self) -> IPv4Network | None:
        return _range(self.value("-s"))

    @property
    def destination(self) -> IPv4Network | None:
        return _range(self.value("-d"))

    def __str__(self) -> str:
        if self.line:
            return self.line
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

    @cached_property
    def names_sets(self) -> bool:
        """Return whether a rule refers to an ipset."""
        return any(rule.match(MATCH_SET) for rule in self.rules)


@dataclass(frozen=True)
class Iptables:
    """All tables of one network namespace, of iptables-nft or of iptables-legacy."""

    tables: Mapping[str, Mapping[str, Chain]]
    incompatible: tuple[str, ...] = ()  # tables with rules that only `nft` can list
    legacy: bool = False  # printed by iptables-legacy
    legacy_beside: bool = False  # printed by iptables-nft, beside tables of iptables-legacy

    def rules(self, table: str, chain: str) -> tuple[Rule, ...]:
        """Return the rules of a chain; none where the chain does not exist."""
        found = self.tables.get(table, {}).get(chain)
        return found.rules if found else ()

    def chains(self, table: str) -> Mapping[str, Chain]:
        return self.tables.get(table, {})

    @property
    def unread(self) -> tuple[tuple[str, Rule], ...]:
        """Return the rules that could not be read, each with its table."""
        return tuple(
            (table, rule)
            for table, chains in self.tables.items()
            for chain in chains.values()
            for rule in chain.rules
            if rule.unread
        )


_CHAIN = re.compile(r":(\S+) (\S+)(?: \[\d+:\d+\])?")
_RULE = re.compile(r"(?:\[(\d{1,20}):(\d{1,20})\] )?-A (.+)")
_INCOMPATIBLE = re.compile(r"# Table [`'\"](\S+)' is incompatible\b.*")
_LEGACY_BESIDE = re.compile(r"# Warning: \S+-legacy tables present\b.*")
_GENERATED = re.compile(r"# Generated by ip6?tables(-legacy)?-save v\S+ on .*")  # iptables-nft adds "(nf_tables)"
_WORD = re.compile(r'"((?:\\.|[^"\\])*)"|(\[unsupported revision\]|[^\s"]+)|(")')
UNSUPPORTED = ("[unsupported revision]", False)  # a word printed for a match or target of another version
_NETWORK_OPTIONS = ("-s", "-d")
# take one value, even one with a leading dash, which iptables-save does not always quote
_TEXT_OPTIONS = frozenset(
    {"--comment", "--string", "--hex-string", "--log-prefix", "--nflog-prefix", "--ulog-prefix", "--prefix"}
    | {
        "--name",
        "--helper",
        "--label",
        "--nfacct-name",
        "--hashlimit-name",
        "--u32",
        "--bytecode",
        "--path",
        "-i",
        "-o",
    }
)


class _Unread(Exception):
    """A rule that cannot be read, and why."""


def parse(text: str) -> Iptables:
    """Parse the tables; raise FactError for a text that is not of iptables-save. A rule that cannot be read is kept."""
    tables: dict[str, dict[str, tuple[str, list[Rule]]]] = {}
    chains: dict[str, tuple[str, list[Rule]]] | None = None
    lines = text.splitlines()
    for line in lines:
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
            rule = _rule(found[3], int(found[1] or 0), int(found[2] or 0))
            if rule.chain not in chains:
                raise _unreadable(line, "is in a chain that is not declared")
            chains[rule.chain][1].append(rule)
        else:
            raise _unreadable(line, "is neither chain nor rule")
    return Iptables(
        {
            table: {name: Chain(name, policy, tuple(rules)) for name, (policy, rules) in found.items()}
            for table, found in tables.items()
        },
        incompatible=tuple(dict.fromkeys(found[1] for line in lines if (found := _INCOMPATIBLE.fullmatch(line)))),
        legacy=any(map(_GENERATED.fullmatch, lines)),
        legacy_beside=any(map(_LEGACY_BESIDE.fullmatch, lines)),
    )


def _rule(text: str, packets: int, size: int) -> Rule:
    """Return the rule of a line after ``-A``; one that cannot be read has the reason."""
    chain = next(iter(text.split()), "")
    try:
        words = list(_words(text))[1:]
        whole = [word for word in words if word != UNSUPPORTED]
        options = tuple(_options(whole))
        at = next((index for index, option in enumerate(options) if option.name in ("-j", "-g")), len(options))
        matches, jump, after = options[:at], options[at : at + 1], options[at + 1 :]
        if jump and len(jump[0].values) != 1:
            raise _Unread("names no target")
        for option in matches:
            if option.name in _NETWORK_OPTIONS and not _is_network(option.values):
                raise _Unread(f"has a {option.name} that is no range")
    except _Unread as error:
        return Rule(chain, packets=packets, bytes=size, unread=str(error), line=f"-A {text}")
    rule = Rule(chain, matches, jump[0].values[0] if jump else "", bool(jump) and jump[0].name == "-g", after)
    if len(whole) < len(words):
        why = f"was written by another version of iptables than the one that printed it: {UNSUPPORTED[0]}"
        return replace(rule, packets=packets, bytes=size, unread=why, line=f"-A {text}")
    return replace(rule, packets=packets, bytes=size)


def _words(text: str) -> Iterator[tuple[str, bool]]:
    """Yield words as iptables-restore splits a line, each with whether it is quoted: then it is no option."""
    for found in _WORD.finditer(text):
        if found[3]:
            raise _Unread("has an open quote")
        quoted = found[2] is None
        yield re.sub(r"\\(.)", r"\1", found[1]) if quoted else found[2], quoted


def _options(words: list[tuple[str, bool]]) -> Iterator[Option]:
    """Group words into options: a name begins with a dash, "!" before it negates it, the rest are its values."""
    name, values, negated, bang, module = "", list[str](), False, False, ""
    for word, quoted in words:
        if name in _TEXT_OPTIONS and not values:
            values.append(word)
        elif not quoted and re.match(r"-[^\d]", word):
            if name:
                yield Option(name, tuple(values), negated, module)
            if name == "-m" and values:
                module = values[0]
            name, values, negated, bang = word, [], bang, False
            module = "" if name in _BASIC else module
        elif word == "!" and not quoted:
            bang = True
        elif not name or bang or (name in _SINGLE and values):
            raise _Unread(f"has a stray {word!r}")
        else:
            values.append(word)
    if bang:
        raise _Unread("ends in `!`")
    if name:
        yield Option(name, tuple(values), negated, module)


_BASIC = frozenset({"-s", "-d", "-p", "-i", "-o", "-f", "-m", "-j", "-g"})  # of no module
_SINGLE = frozenset({"-s", "-d", "-p", "-i", "-o", "-m", *_TEXT_OPTIONS})  # have one value


@lru_cache(maxsize=4096)
def address_and_mask(text: str) -> tuple[int, int, int]:
    """Return the IP version, address and mask as numbers of ``10.0.0.0/8`` or ``10.0.0.0/255.0.255.0``.

    Raise ValueError for another text.
    """
    address, _, mask = text.partition("/")
    found = ip_address(address)
    ones = 2**found.max_prefixlen - 1
    if not mask:
        return found.version, int(found), ones
    if not mask.isdecimal():
        return found.version, int(found), int(type(found)(mask))
    if int(mask) > found.max_prefixlen:
        raise ValueError(f"{text!r} has a prefix that is too long")
    return found.version, int(found), ones ^ (ones >> int(mask))


def _is_network(values: tuple[str, ...]) -> bool:
    try:
        return len(values) == 1 and bool(address_and_mask(values[0]))
    except ValueError:
        return False


def _range(text: str) -> IPv4Network | None:
    """Return a range of IPv4; None where there is none, or its mask is no prefix."""
    try:
        return IPv4Network(text) if text else None
    except ValueError:
        return None


def _quoted(word: str) -> str:
    """Return a value as iptables-save prints it: in double quotes only where needed."""
    if word and re.fullmatch(r"[^\s\"'\\]+", word):
        return word
    return '"' + re.sub(r"([\"'\\])", r"\\\1", word) + '"'


def _unreadable(line: str, why: str) -> FactError:
    return FactError(f"the line {line!r} of iptables-save {why}", remedy="run `iptables-save -c` on the node and look")


IPTABLES = Fact("iptables", "iptables-save -c", parse)
IP6TABLES = Fact("ip6tables", "ip6tables-save -c", parse, ipv6=True)
