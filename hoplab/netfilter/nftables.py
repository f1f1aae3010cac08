"""A packet evaluated against parsed nftables rules in the kernel's order; pure. The counterpart of netfilter.iptables.

A random number (``numgen random mod 2``) gives several outcomes, each with its probability; so does a lookup by a value
that is not in the packet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

from hoplab.netfilter.iptables import MAX_DEPTH
from hoplab.netfilter.packet import Outcome, Packet
from hoplab.observe.facts.nft_expressions import (
    Counter,
    Element,
    Expression,
    Lookup,
    Mark,
    Match,
    Nat,
    Other,
    Reject,
    Remember,
    Verdict,
    Vmap,
)
from hoplab.observe.facts.nftables import Rule, Table

DRAWN = "numgen random mod "
BACK = ""  # no verdict: the calling chain continues
AFFINITY = "affinity-"  # prefix of kube-proxy's sets of clients, one for each endpoint


def walk(table: Table, chain: str, packet: Packet) -> tuple[Outcome[Rule], ...]:
    """Return every outcome of a packet that enters a chain; without a verdict the base chain's policy decides."""
    found = table.chains.get(chain)
    policy = (found.policy if found else "") or "accept"
    return tuple(
        replace(outcome, verdict=policy.upper()) if outcome.verdict == BACK else outcome
        for outcome in _chain(table, chain, packet, 0)
    )


def _chain(table: Table, name: str, packet: Packet, depth: int) -> Iterator[Outcome[Rule]]:
    if depth > MAX_DEPTH:
        yield Outcome(BACK, (), packet)
        return
    yield from _rules(table, table.rules(name), packet, depth)


def _rules(table: Table, rules: tuple[Rule, ...], packet: Packet, depth: int) -> Iterator[Outcome[Rule]]:
    if not rules:
        yield Outcome(BACK, (), packet)
        return
    rule, rest = rules[0], rules[1:]
    for step in _expressions(table, rule, rule.expressions, packet, depth):
        if step.verdict != NEXT:
            yield step
            continue
        for after in _rules(table, rest, step.packet, depth):
            yield replace(after, path=(*step.path, *after.path), probability=step.probability * after.probability)


NEXT = "next"  # no verdict: the next rule is evaluated


def _expressions(
    table: Table, rule: Rule, expressions: tuple[Expression, ...], packet: Packet, depth: int
) -> Iterator[Outcome[Rule]]:
    """Yield the outcomes of the rest of one rule; a rule without a verdict is on the path when all of it matched."""
    if not expressions:
        yield Outcome(NEXT, (rule,), packet)
        return
    first, rest = expressions[0], expressions[1:]
    match first:
        case Match() | Other():  # whether an unknown expression matches is open
            holds = matches(table, first, packet) if isinstance(first, Match) else None
            if holds is not True:
                yield Outcome(NEXT, (), packet)
            if holds is not False:
                yield from _expressions(table, rule, rest, packet, depth)
        case Mark():
            yield from _expressions(table, rule, rest, replace(packet, mark=_marked(first, packet.mark)), depth)
        case Counter() | Remember():
            yield from _expressions(table, rule, rest, packet, depth)
        case Verdict():
            yield from _verdict(table, rule, first, packet, depth)
        case Vmap():
            yield from _looked_up(table, rule, first, packet, depth)
        case Nat():
            yield from _translated(table, rule, first, packet)
        case Reject():
            yield Outcome("REJECT", (rule,), packet)


def _looked_up(table: Table, rule: Rule, vmap: Vmap, packet: Packet, depth: int) -> Iterator[Outcome[Rule]]:
    for element, probability in _found(table, vmap, packet):
        if element is None or not isinstance(element.value, Verdict):
            yield Outcome(NEXT, (), packet, probability=probability)
            continue
        for outcome in _verdict(table, rule, element.value, packet, depth):
            yield replace(outcome, probability=outcome.probability * probability)


def _verdict(table: Table, rule: Rule, verdict: Verdict, packet: Packet, depth: int) -> Iterator[Outcome[Rule]]:
    if verdict.kind in ("jump", "goto"):
        for outcome in _chain(table, verdict.chain, packet, depth + 1):
            back = NEXT if verdict.kind == "jump" else BACK  # goto: on to the caller's caller
            yield replace(
                outcome, verdict=back if outcome.verdict == BACK else outcome.verdict, path=(rule, *outcome.path)
            )
    elif verdict.kind == "return":
        yield Outcome(BACK, (rule,), packet)
    elif verdict.kind == "continue":
        yield Outcome(NEXT, (rule,), packet)
    else:
        yield Outcome(verdict.kind.upper(), (rule,), packet)


def _translated(table: Table, rule: Rule, nat: Nat, packet: Packet) -> Iterator[Outcome[Rule]]:
    kind = nat.kind.upper()
    if not nat.chosen:
        yield Outcome(kind, (rule,), packet, ":".join(word for word in (nat.address, nat.port) if word))
        return
    for element, probability in _found(table, nat.chosen, packet):
        if element is None or not isinstance(element.value, tuple):
            yield Outcome(NEXT, (), packet, probability=probability)
        else:
            yield Outcome(kind, (rule,), packet, ":".join(element.value), probability)


def _found(table: Table, lookup: Lookup, packet: Packet) -> Iterator[tuple[Element | None, float]]:
    """Yield the elements that a lookup may find, each with its probability; None where it finds nothing."""
    held = table.sets.get(lookup.map)
    elements = held.elements if held else lookup.elements
    if lookup.key[0].startswith(DRAWN):
        modulus = int(lookup.key[0].removeprefix(DRAWN))
        for drawn in range(modulus):
            yield next((element for element in elements if _holds(element.key[0], str(drawn))), None), 1 / modulus
        return
    key = [_value(part, packet) for part in lookup.key]
    if None in key:
        yield None, 1.0
        for element in elements:
            yield element, 1.0
        return
    yield next((element for element in elements if _is(element.key, key)), None), 1.0


def matches(table: Table, match: Match, packet: Packet) -> bool | None:
    """Return whether the packet matches the expression; None when that depends on more than the packet."""
    if match.values[0].startswith(f"@{AFFINITY}") and not packet.known:
        return match.op == "!="
    key = [_value(part, packet) for part in match.key]
    if None in key or match.op not in ("==", "!=", "in"):
        return None
    hit = False
    for value in match.values:
        if value.startswith("@"):
            named = table.sets.get(value[1:])
            if named is None:
                return None
            if value[1:].startswith(AFFINITY):  # its members change with every connection
                return None
            hit = hit or any(_is(element.key, key) for element in named.elements)
        else:
            hit = hit or (len(key) == 1 and _holds(value, key[0] or ""))
    return hit != (match.op == "!=")


def _value(part: str, packet: Packet) -> str | None:
    """Return the packet's value of a key; None when it is not in the packet."""
    name, _, mask = part.partition(" & ")
    if name == "meta mark":
        return hex(packet.mark & int(mask, 16) if mask else packet.mark)
    if mask or part not in _VALUES:
        return None
    return _VALUES[part](packet)


_VALUES: Mapping[str, Callable[[Packet], str]] = {
    "ip saddr": lambda packet: str(packet.src),
    "ip daddr": lambda packet: str(packet.dst),
    "ip6 saddr": lambda packet: str(packet.src),
    "ip6 daddr": lambda packet: str(packet.dst),
    "ip protocol": lambda packet: packet.protocol,
    "meta l4proto": lambda packet: packet.protocol,
    "th dport": lambda packet: str(packet.dport),
    "tcp dport": lambda packet: str(packet.dport) if packet.protocol == "tcp" else "",
    "udp dport": lambda packet: str(packet.dport) if packet.protocol == "udp" else "",
    "iifname": lambda packet: packet.in_dev,
    "oifname": lambda packet: packet.out_dev,
    "ct state": lambda packet: packet.state.lower(),
    "ct status": lambda packet: packet.status,
    "fib daddr type": lambda packet: "local" if packet.dst_is_local else "unicast",
    "fib saddr type": lambda packet: "local" if packet.src_is_local else "unicast",
}


def _is(key: tuple[str, ...], found: list[str | None]) -> bool:
    return len(key) == len(found) and all(_holds(wanted, value or "") for wanted, value in zip(key, found, strict=True))


def _holds(wanted: str, found: str) -> bool:
    """Return whether a value is the wanted one, or in the wanted range: ``10.244.0.0/16``, ``8000-8080``, ``eth*``."""
    if wanted == found:
        return True
    try:
        if "/" in wanted:
            return ip_address(found) in ip_network(wanted)
        low, dash, high = wanted.partition("-")
        if dash and "." in low:
            return IPv4Address(low) <= IPv4Address(found) <= IPv4Address(high)
        if dash:
            return int(low) <= int(found) <= int(high)
        if wanted.startswith("0x"):
            return int(wanted, 16) == int(found, 16)
    except ValueError:
        return False
    return wanted.endswith("*") and found.startswith(wanted[:-1])


def _marked(change: Mark, mark: int) -> int:
    return {"|": mark | change.value, "&": mark & change.value, "^": mark ^ change.value}.get(change.op, change.value)
