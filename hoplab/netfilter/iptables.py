"""A packet walked through parsed iptables rules, the way the kernel does it; pure.

Lessons ask "where would this packet end?" instead of looking for a rule that is written in one particular way. A rule
with a match that is decided by chance or by things a packet alone does not tell (statistic, recent, ...) may or may not
match, so a walk has several possible ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Generic, Protocol, TypeVar

from hoplab.observe.facts.ipset import IpSet
from hoplab.observe.facts.iptables import Chain, Option, Rule


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
class End(Generic[R_co]):
    """One possible end of a walk."""

    verdict: str  # "ACCEPT", "DNAT", "MASQUERADE", "REJECT", ...; the policy when no rule decided
    path: tuple[R_co, ...]  # the rules that matched, in order
    packet: Packet  # with the mark it has in the end
    to: str = ""  # "10.244.1.2:8080": where a translated packet goes
    share: float = 1.0  # of all packets like this one, as far as rules throw dice

    @property
    def last(self) -> R_co | None:
        return self.path[-1] if self.path else None

    @property
    def chains(self) -> tuple[str, ...]:
        """The chains it went through, each once, in order."""
        return tuple(dict.fromkeys(rule.chain for rule in self.path))


PASS_ON = frozenset({"", "LOG", "NFLOG", "TRACE", "CT", "TCPMSS"})  # targets after which the next rule is looked at
MAX_DEPTH = 50  # chains can't call themselves in the kernel; a text may say so


def walk(chains: Mapping[str, Chain], chain: str, packet: Packet) -> tuple[End[Rule], ...]:
    """Every possible end of a packet that enters a chain; a built-in chain's policy decides what no rule does."""
    ends = []
    for end in _walk(chains, chain, packet, 0):
        found = chains.get(chain)
        ends.append(end if end.verdict else replace(end, verdict=(found.policy if found else "") or "ACCEPT"))
    return tuple(ends)


def _walk(chains: Mapping[str, Chain], name: str, packet: Packet, depth: int) -> Iterator[End[Rule]]:
    """Ends with the verdict "" are returns: the caller goes on with its next rule."""
    found = chains.get(name)
    if found is None or depth > MAX_DEPTH:
        yield End("", (), packet)
        return
    yield from _rules(chains, found.rules, packet, depth)


def _rules(chains: Mapping[str, Chain], rules: tuple[Rule, ...], packet: Packet, depth: int) -> Iterator[End[Rule]]:
    for index, rule in enumerate(rules):
        verdict = matches(rule, packet)
        if verdict is False:
            continue
        rest = rules[index + 1 :]
        chance = _chance(rule)
        for end in _taken(chains, rule, rest, packet, depth):
            yield replace(end, share=end.share * chance)
        if verdict is None:  # it may also not match
            for end in _rules(chains, rest, packet, depth):
                yield replace(end, share=end.share * (1 - chance if chance < 1 else 1))
        return
    yield End("", (), packet)


def _chance(rule: Rule) -> float:
    """How often a rule matches that throws dice; 1 for others, also where it is not known."""
    return float(rule.value("--probability") or 1)


def _taken(
    chains: Mapping[str, Chain], rule: Rule, rest: tuple[Rule, ...], packet: Packet, depth: int
) -> Iterator[End[Rule]]:
    if rule.target == "RETURN":
        yield End("", (rule,), packet)
    elif rule.target in chains:
        for end in _walk(chains, rule.target, packet, depth + 1):
            if end.verdict or rule.goto:
                yield replace(end, path=(rule, *end.path))
            else:  # it came back: the next rule here
                for after in _rules(chains, rest, end.packet, depth):
                    yield replace(after, path=(rule, *end.path, *after.path), share=end.share * after.share)
    elif rule.target == "MARK" or rule.target in PASS_ON:
        for after in _rules(chains, rest, replace(packet, mark=_marked(rule, packet.mark)), depth):
            yield replace(after, path=(rule, *after.path))
    else:
        yield End(rule.target, (rule,), packet, rule.value("--to-destination"))


def matches(rule: Rule, packet: Packet) -> bool | None:
    """Whether the rule matches; None: it depends on more than the packet."""
    unsure = False
    for option in rule.matches:
        test = _TESTS.get(option.name)
        if option.name in _SILENT:
            continue
        if option.name == "--rcheck":  # session affinity: of the module recent
            if packet.known:
                unsure = True
            elif not option.negated:
                return False
            continue
        if test is None or (option.name == "--match-set" and option.members is None):
            unsure = True
        elif test(option, packet) == option.negated:
            return False
    return None if unsure else True


def names_sets(chains: Mapping[str, Chain]) -> bool:
    return any(rule.match("--match-set") for chain in chains.values() for rule in chain.rules)


def with_sets(chains: Mapping[str, Chain], sets: Iterable[IpSet]) -> dict[str, Chain]:
    """Chains whose rules know the members of the ipsets they name, those of plain addresses and ranges."""
    known = {
        each.name: tuple(ip_network(member.element) for member in each.members)
        for each in sets
        if each.kind in ("hash:ip", "hash:net")
        if not any("nomatch" in member.options for member in each.members)
    }

    def option(each: Option) -> Option:
        return replace(each, members=known.get(each.values[0])) if each.name == "--match-set" else each

    return {
        name: replace(
            chain, rules=tuple(replace(rule, matches=tuple(map(option, rule.matches))) for rule in chain.rules)
        )
        for name, chain in chains.items()
    }


def _in_set(option: Option, packet: Packet) -> bool:
    """``--match-set NAME src``: the packet's source is in the set."""
    address = {"src": packet.src, "dst": packet.dst}[option.values[1]]
    return any(address in member for member in option.members or ())


def _in_network(option: Option, address: IPv4Address | IPv6Address) -> bool:
    return address in ip_network(option.values[0])


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
    "--match-set": _in_set,
    "--mark": lambda option, packet: _masked(option, packet.mark),
    "--dst-type": lambda option, packet: option.values[0] == "LOCAL" and packet.dst_is_local,
    "--src-type": lambda option, packet: option.values[0] == "LOCAL" and packet.src_is_local,
    "--ctstate": lambda option, packet: packet.state in option.values[0].split(","),
}
# they name a module, say something, count or write something down: decide nothing
_SILENT = frozenset(
    {"-m", "--comment", "--nfacct-name", "--set", "--seconds", "--reap", "--name", "--mask", "--rsource", "--mode"}
)


def _marked(rule: Rule, mark: int) -> int:
    """The mark after a MARK target. iptables-save writes every kind as --set-xmark or --xor-mark VALUE/MASK."""
    for option in rule.target_options:
        if option.name in ("--set-xmark", "--xor-mark", "--or-mark"):
            value, _, mask = option.values[0].partition("/")
            bits = int(value, 16)
            cleared = int(mask, 16) if mask else (0xFFFFFFFF if option.name == "--set-xmark" else 0)
            return (mark | bits) if option.name == "--or-mark" else (mark & ~cleared) ^ bits
    return mark
