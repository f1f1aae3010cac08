"""A packet walked through parsed iptables rules, the way the kernel does it; pure.

Lessons ask "where would this packet end?" instead of looking for a rule that is written in one particular way. A rule
with a match that is decided by chance or by things a packet alone does not tell (statistic, recent, ...) may or may not
match, so a walk has several possible ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from hoplab.facts.iptables import Chain, Option, Rule


@dataclass(frozen=True)
class Packet:
    """What rules look at."""

    src: IPv4Address
    dst: IPv4Address
    protocol: str = "tcp"
    dport: int = 80
    mark: int = 0
    in_dev: str = ""
    out_dev: str = ""
    dst_is_local: bool = False  # the destination is an address of this host
    state: str = "NEW"


@dataclass(frozen=True)
class End:
    """One possible end of a walk."""

    verdict: str  # "ACCEPT", "DNAT", "MASQUERADE", "REJECT", ...; the policy when no rule decided
    path: tuple[Rule, ...]  # the rules that matched, in order
    packet: Packet  # with the mark it has in the end

    @property
    def last(self) -> Rule | None:
        return self.path[-1] if self.path else None

    @property
    def chains(self) -> tuple[str, ...]:
        """The chains it went through, each once, in order."""
        return tuple(dict.fromkeys(rule.chain for rule in self.path))


PASS_ON = frozenset({"", "LOG", "NFLOG", "TRACE", "CT", "TCPMSS"})  # targets after which the next rule is looked at
MAX_DEPTH = 50  # chains can't call themselves in the kernel; a text may say so


def walk(chains: Mapping[str, Chain], chain: str, packet: Packet) -> tuple[End, ...]:
    """Every possible end of a packet that enters a chain; a built-in chain's policy decides what no rule does."""
    ends = []
    for end in _walk(chains, chain, packet, 0):
        found = chains.get(chain)
        ends.append(end if end.verdict else replace(end, verdict=(found.policy if found else "") or "ACCEPT"))
    return tuple(ends)


def _walk(chains: Mapping[str, Chain], name: str, packet: Packet, depth: int) -> Iterator[End]:
    """Ends with the verdict "" are returns: the caller goes on with its next rule."""
    found = chains.get(name)
    if found is None or depth > MAX_DEPTH:
        yield End("", (), packet)
        return
    yield from _rules(chains, found.rules, packet, depth)


def _rules(chains: Mapping[str, Chain], rules: tuple[Rule, ...], packet: Packet, depth: int) -> Iterator[End]:
    for index, rule in enumerate(rules):
        verdict = matches(rule, packet)
        if verdict is False:
            continue
        rest = rules[index + 1 :]
        yield from _taken(chains, rule, rest, packet, depth)
        if verdict is None:  # it may also not match
            yield from _rules(chains, rest, packet, depth)
        return
    yield End("", (), packet)


def _taken(
    chains: Mapping[str, Chain], rule: Rule, rest: tuple[Rule, ...], packet: Packet, depth: int
) -> Iterator[End]:
    if rule.target == "RETURN":
        yield End("", (rule,), packet)
    elif rule.target in chains:
        for end in _walk(chains, rule.target, packet, depth + 1):
            if end.verdict or rule.goto:
                yield End(end.verdict, (rule, *end.path), end.packet)
            else:  # it came back: the next rule here
                for after in _rules(chains, rest, end.packet, depth):
                    yield End(after.verdict, (rule, *end.path, *after.path), after.packet)
    elif rule.target == "MARK" or rule.target in PASS_ON:
        for after in _rules(chains, rest, replace(packet, mark=_marked(rule, packet.mark)), depth):
            yield End(after.verdict, (rule, *after.path), after.packet)
    else:
        yield End(rule.target, (rule,), packet)


def matches(rule: Rule, packet: Packet) -> bool | None:
    """Whether the rule matches; None: it depends on more than the packet."""
    unsure = False
    for option in rule.matches:
        test = _TESTS.get(option.name)
        if option.name in _SILENT:
            continue
        if test is None:
            unsure = True
        elif test(option, packet) == option.negated:
            return False
    return None if unsure else True


def _in_network(option: Option, address: IPv4Address) -> bool:
    return address in IPv4Network(option.values[0])


def _masked(option: Option, mark: int) -> bool:
    """``--mark 0x4000/0x4000``: the bits of the mask have the value's bits."""
    value, _, mask = option.values[0].partition("/")
    return mark & int(mask or "0xffffffff", 16) == int(value, 16)


def _device(option: Option, name: str) -> bool:
    wanted = option.values[0]
    return name.startswith(wanted[:-1]) if wanted.endswith("+") else name == wanted


def _port(option: Option, port: int) -> bool:
    for part in option.values[0].split(","):
        low, _, high = part.partition(":")
        if int(low or 0) <= port <= int(high or low or 0):
            return True
    return False


_TESTS: Mapping[str, Callable[[Option, Packet], bool]] = {
    "-s": lambda option, packet: _in_network(option, packet.src),
    "-d": lambda option, packet: _in_network(option, packet.dst),
    "-p": lambda option, packet: option.values[0] in (packet.protocol, "all"),
    "-i": lambda option, packet: _device(option, packet.in_dev),
    "-o": lambda option, packet: _device(option, packet.out_dev),
    "--dport": lambda option, packet: _port(option, packet.dport),
    "--dports": lambda option, packet: _port(option, packet.dport),
    "--mark": lambda option, packet: _masked(option, packet.mark),
    "--dst-type": lambda option, packet: option.values[0] == "LOCAL" and packet.dst_is_local,
    "--ctstate": lambda option, packet: packet.state in option.values[0].split(","),
}
_SILENT = frozenset({"-m", "--comment", "--nfacct-name"})  # they name a module, say something or count: decide nothing


def _marked(rule: Rule, mark: int) -> int:
    """The mark after a MARK target. iptables-save writes every kind as --set-xmark or --xor-mark VALUE/MASK."""
    for option in rule.target_options:
        if option.name in ("--set-xmark", "--xor-mark", "--or-mark"):
            value, _, mask = option.values[0].partition("/")
            bits = int(value, 16)
            cleared = int(mask, 16) if mask else (0xFFFFFFFF if option.name == "--set-xmark" else 0)
            return (mark | bits) if option.name == "--or-mark" else (mark & ~cleared) ^ bits
    return mark
