"""A packet evaluated against parsed nftables rules in the kernel's order; pure. The counterpart of netfilter.iptables.

A random number (``numgen random mod 2``) gives several outcomes, each with its probability; so does a lookup by a value
that is not in the packet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from hoplab.netfilter.extensions import TARGETS, Effect
from hoplab.netfilter.iptables import MAX_DEPTH
from hoplab.netfilter.nft_values import applies, is_key, matches, value
from hoplab.netfilter.packet import QUEUED, UNKNOWN, Outcome, Packet, continued, merged
from hoplab.observe.facts.nft_expressions import (
    Counter,
    Element,
    Expression,
    Lookup,
    Mark,
    Match,
    Nat,
    Other,
    Queue,
    Reject,
    Remember,
    Verdict,
    Vmap,
)
from hoplab.observe.facts.nftables import Rule, Table

__all__ = ["matches", "walk"]

DRAWN = re.compile(r"numgen (?:random|inc) mod ([1-9]\d{0,4})")
BACK = ""  # no verdict: the calling chain continues
NEXT = "next"  # no verdict: the next rule is evaluated

# Statements that hoplab does not evaluate, by their key in nft's JSON
PASSING = frozenset(  # the next expression is evaluated in any case
    {"log", "mangle", "notrack", "dup", "flow", "ct helper", "ct timeout", "ct expectation", "secmark", "last"}
    | {"set", "map", "counter", "tproxy"}
)
CONDITIONS = frozenset({"limit", "quota", "ct count", "meter", "match"})  # the rest of the rule depends on it
# The others (fwd, synproxy, a target of iptables) may decide


def walk(table: Table, chain: str, packet: Packet) -> tuple[Outcome[Rule], ...]:
    """Return every outcome of a packet that enters a chain; without a verdict the base chain's policy decides."""
    found = table.chains.get(chain)
    policy = (found.policy if found else "") or "accept"
    return tuple(
        replace(outcome, verdict=policy.upper(), by_policy=True) if outcome.verdict == BACK else outcome
        for outcome in _chain(table, chain, packet, 0)
    )


def _chain(table: Table, name: str, packet: Packet, depth: int) -> Iterator[Outcome[Rule]]:
    here: list[Outcome[Rule]] = [Outcome(BACK, (), packet)]  # those that go on to the next rule
    for rule in table.rules(name) if depth <= MAX_DEPTH else ():
        going: list[Outcome[Rule]] = []
        for so_far in here:
            for outcome in _rule(table, rule, so_far.packet, depth):
                whole = continued(so_far, outcome)
                if outcome.verdict == NEXT:
                    going.append(replace(whole, verdict=BACK))
                else:
                    yield whole
        here = merged(going)
    yield from here


def _rule(table: Table, rule: Rule, packet: Packet, depth: int) -> list[Outcome[Rule]]:
    """Return the outcomes of one rule. Where conditions are unknown and make no difference, it is one."""
    found = list(_expressions(table, rule, rule.expressions, packet, depth))
    if any(outcome.unsure for outcome in found) and all(
        outcome.verdict == NEXT and outcome.packet == packet and set(outcome.unsure) <= {rule} for outcome in found
    ):
        return [Outcome(NEXT, (), packet)]
    return found


def _expressions(
    table: Table, rule: Rule, expressions: tuple[Expression, ...], packet: Packet, depth: int
) -> Iterator[Outcome[Rule]]:
    """Yield the outcomes of the rest of one rule; a rule without a verdict is on the path when all of it matched."""
    if not expressions:
        yield Outcome(NEXT, (rule,), packet)
        return
    first, rest = expressions[0], expressions[1:]
    match first:
        case Match():
            holds = matches(table, first, packet)
            yield from _conditionally(table, rule, rest, packet, depth, holds=holds)
        case Other():
            yield from _other(table, rule, first, rest, packet, depth)
        case Mark():
            yield from _expressions(table, rule, rest, replace(packet, mark=first.applied(packet.mark)), depth)
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
        case Queue():
            yield Outcome(QUEUED, (rule,), packet)


def _conditionally(
    table: Table,
    rule: Rule,
    rest: tuple[Expression, ...],
    packet: Packet,
    depth: int,
    *,
    holds: bool | None,
) -> Iterator[Outcome[Rule]]:
    """Yield the outcomes of a rule after a condition that holds, does not, or of which that is not known."""
    unsure = (rule,) if holds is None else ()
    if holds is not True:
        yield Outcome(NEXT, (), packet, unsure=unsure)
    if holds is not False:
        for outcome in _expressions(table, rule, rest, packet, depth):
            yield replace(outcome, unsure=tuple(dict.fromkeys((*unsure, *outcome.unsure))))


def _other(
    table: Table, rule: Rule, statement: Other, rest: tuple[Expression, ...], packet: Packet, depth: int
) -> Iterator[Outcome[Rule]]:
    """Yield the outcomes of a statement that is kept as JSON."""
    effect = TARGETS.get(statement.target, Effect.OPEN)
    if statement.kind == "notrack":
        yield from _expressions(table, rule, rest, replace(packet, state="UNTRACKED"), depth)
    elif statement.kind in PASSING or (statement.target and effect is Effect.CONTINUES):
        yield from _expressions(table, rule, rest, packet, depth)
    elif statement.target and effect is Effect.ENDS:
        yield Outcome(statement.target, (rule,), packet)
    elif rest or statement.kind in CONDITIONS:
        yield from _conditionally(table, rule, rest, packet, depth, holds=None)
    else:
        yield Outcome(UNKNOWN, (rule,), packet, unsure=(rule,))
        yield Outcome(NEXT, (rule,), packet, unsure=(rule,))


def _looked_up(table: Table, rule: Rule, vmap: Vmap, packet: Packet, depth: int) -> Iterator[Outcome[Rule]]:
    for element, share, unsure in _found(table, rule, vmap, packet):
        if element is None or not isinstance(element.value, Verdict):
            yield Outcome(NEXT, (), packet, probability=share, unsure=unsure)
            continue
        for outcome in _verdict(table, rule, element.value, packet, depth):
            yield replace(outcome, probability=outcome.probability * share, unsure=(*unsure, *outcome.unsure))


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
        yield Outcome(kind, (rule,), packet, _joined(nat.address, nat.port))
        return
    for element, share, unsure in _found(table, rule, nat.chosen, packet):
        if element is None or not isinstance(element.value, tuple):
            yield Outcome(NEXT, (), packet, probability=share, unsure=unsure)
        else:
            yield Outcome(kind, (rule,), packet, _joined(*element.value[:2]), share, unsure)


def _joined(address: str, port: str = "") -> str:
    """Return "10.244.1.2:8080", "[fd00::2]:8080", ":8080", "10.244.1.2"."""
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _found(
    table: Table, rule: Rule, lookup: Lookup, packet: Packet
) -> Iterator[tuple[Element | None, float, tuple[Rule, ...]]]:
    """Yield the elements that a lookup may find, each with its probability and the rule where it is not sure.

    None stands for a lookup that finds nothing.
    """
    held = table.sets.get(lookup.map)
    elements = held.elements if held else lookup.elements
    if numbered := DRAWN.fullmatch(lookup.key[0]):
        modulus = int(numbered[1])
        for drawn in range(modulus):
            key = (str(drawn),)
            yield next((element for element in elements if is_key(key, element.key, key)), None), 1 / modulus, ()
        return
    if not all(applies(part, packet) for part in lookup.key):
        yield None, 1.0, ()
        return
    values = [value(part, packet) for part in lookup.key]
    possible = []
    for element in elements:
        holds = is_key(lookup.key, element.key, values)
        if holds is not False:
            possible.append(element)
        if holds:
            break
    else:
        if possible or not _elements_known(table, lookup):
            yield None, 1.0, (rule,)
        else:
            yield None, 1.0, ()
    unsure = (rule,) if len(possible) != 1 or not is_key(lookup.key, possible[0].key, values) else ()
    for element in possible:
        yield element, 1.0, unsure


def _elements_known(table: Table, lookup: Lookup) -> bool:
    """Return whether the elements of a lookup are known: a named map has to be in the table."""
    return not lookup.map or lookup.map in table.sets
