"""A packet evaluated against parsed iptables rules in the kernel's order; pure.

Lessons check where a packet would end, not whether a rule is written in one particular way. Matches that depend on
chance or on state outside the packet (statistic, recent, ...) may or may not match: then there are several outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_network

from hoplab.netfilter.packet import Outcome, Packet
from hoplab.observe.facts.ipset import IpSet
from hoplab.observe.facts.iptables import Chain, Option, Rule

PASS_ON = frozenset({"", "LOG", "NFLOG", "TRACE", "CT", "TCPMSS"})  # targets after which the next rule is evaluated
MAX_DEPTH = 50  # the kernel refuses loops of chains; a text may have one


def walk(chains: Mapping[str, Chain], chain: str, packet: Packet) -> tuple[Outcome[Rule], ...]:
    """Return every outcome of a packet that enters a chain; without a verdict a built-in chain's policy decides."""
    outcomes = []
    for outcome in _walk(chains, chain, packet, 0):
        found = chains.get(chain)
        outcomes.append(
            outcome if outcome.verdict else replace(outcome, verdict=(found.policy if found else "") or "ACCEPT")
        )
    return tuple(outcomes)


def _walk(chains: Mapping[str, Chain], name: str, packet: Packet, depth: int) -> Iterator[Outcome[Rule]]:
    """Yield outcomes; the verdict "" means a return: the caller continues with its next rule."""
    found = chains.get(name)
    if found is None or depth > MAX_DEPTH:
        yield Outcome("", (), packet)
        return
    yield from _rules(chains, found.rules, packet, depth)


def _rules(chains: Mapping[str, Chain], rules: tuple[Rule, ...], packet: Packet, depth: int) -> Iterator[Outcome[Rule]]:
    for index, rule in enumerate(rules):
        verdict = matches(rule, packet)
        if verdict is False:
            continue
        rest = rules[index + 1 :]
        chance = _chance(rule)
        for outcome in _taken(chains, rule, rest, packet, depth):
            yield replace(outcome, probability=outcome.probability * chance)
        if verdict is None:  # it may also not match
            for outcome in _rules(chains, rest, packet, depth):
                yield replace(outcome, probability=outcome.probability * (1 - chance if chance < 1 else 1))
        return
    yield Outcome("", (), packet)


def _chance(rule: Rule) -> float:
    """Return the probability of a match of the module statistic; 1 for other rules, also where it is unknown."""
    return float(rule.value("--probability") or 1)


def _taken(
    chains: Mapping[str, Chain], rule: Rule, rest: tuple[Rule, ...], packet: Packet, depth: int
) -> Iterator[Outcome[Rule]]:
    if rule.target == "RETURN":
        yield Outcome("", (rule,), packet)
    elif rule.target in chains:
        for outcome in _walk(chains, rule.target, packet, depth + 1):
            if outcome.verdict or rule.goto:
                yield replace(outcome, path=(rule, *outcome.path))
            else:  # it came back: the next rule here
                for after in _rules(chains, rest, outcome.packet, depth):
                    yield replace(
                        after,
                        path=(rule, *outcome.path, *after.path),
                        probability=outcome.probability * after.probability,
                    )
    elif rule.target == "MARK" or rule.target in PASS_ON:
        for after in _rules(chains, rest, replace(packet, mark=_marked(rule, packet.mark)), depth):
            yield replace(after, path=(rule, *after.path))
    else:
        yield Outcome(rule.target, (rule,), packet, rule.value("--to-destination"))


def matches(rule: Rule, packet: Packet) -> bool | None:
    """Return whether the rule matches; None when that depends on more than the packet."""
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
    """Return whether a rule refers to an ipset."""
    return any(rule.match("--match-set") for chain in chains.values() for rule in chain.rules)


def with_sets(chains: Mapping[str, Chain], sets: Iterable[IpSet]) -> dict[str, Chain]:
    """Return the chains with the members of the ipsets that rules name, of those of plain addresses and ranges."""
    known = {
        ipset.name: tuple(ip_network(member.element) for member in ipset.members)
        for ipset in sets
        if ipset.kind in ("hash:ip", "hash:net")
        if not any("nomatch" in member.options for member in ipset.members)
    }

    def with_members(option: Option) -> Option:
        return replace(option, members=known.get(option.values[0])) if option.name == "--match-set" else option

    return {
        name: replace(
            chain, rules=tuple(replace(rule, matches=tuple(map(with_members, rule.matches))) for rule in chain.rules)
        )
        for name, chain in chains.items()
    }


def _in_set(option: Option, packet: Packet) -> bool:
    """Return whether ``--match-set NAME src`` holds: the packet's source is in the set."""
    address = {"src": packet.src, "dst": packet.dst}[option.values[1]]
    return any(address in member for member in option.members or ())


def _in_network(option: Option, address: IPv4Address | IPv6Address) -> bool:
    return address in ip_network(option.values[0])


def _masked(option: Option, mark: int) -> bool:
    """Return whether ``--mark 0x4000/0x4000`` holds: below the mask, the packet's mark equals the value."""
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
# options that name a module, comment, count or store; they decide nothing
_SILENT = frozenset(
    {"-m", "--comment", "--nfacct-name", "--set", "--seconds", "--reap", "--name", "--mask", "--rsource", "--mode"}
)


def _marked(rule: Rule, mark: int) -> int:
    """Return the mark after a MARK target. iptables-save writes every kind as --set-xmark or --xor-mark VALUE/MASK."""
    for option in rule.target_options:
        if option.name in ("--set-xmark", "--xor-mark", "--or-mark"):
            value, _, mask = option.values[0].partition("/")
            bits = int(value, 16)
            cleared = int(mask, 16) if mask else (0xFFFFFFFF if option.name == "--set-xmark" else 0)
            return (mark | bits) if option.name == "--or-mark" else (mark & ~cleared) ^ bits
    return mark
