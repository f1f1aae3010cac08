"""A packet evaluated against parsed iptables rules in the kernel's order; pure.

Lessons check where a packet would end, not whether a rule is written in one particular way. Matches that depend on
chance or on state outside the packet (statistic, limit, ...) may or may not match: then there are several outcomes.
``netfilter.extensions`` has the matches and targets that are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from hoplab.netfilter.address_sets import names_sets, with_sets
from hoplab.netfilter.extensions import TARGETS, Effect, chance, matches
from hoplab.netfilter.packet import UNKNOWN, Outcome, Packet, continued, merged
from hoplab.observe.facts.iptables import Chain, Rule

__all__ = ["MAX_DEPTH", "matches", "names_sets", "walk", "with_sets"]

MAX_DEPTH = 50  # the kernel refuses loops of chains; a text may have one
BACK = ""  # no verdict: the caller continues with its next rule


def walk(chains: Mapping[str, Chain], chain: str, packet: Packet) -> tuple[Outcome[Rule], ...]:
    """Return every outcome of a packet that enters a chain; without a verdict a built-in chain's policy decides."""
    found = chains.get(chain)
    policy = (found.policy if found else "") or "ACCEPT"
    return tuple(
        outcome if outcome.verdict else replace(outcome, verdict=policy, by_policy=True)
        for outcome in _walk(chains, chain, packet, 0)
    )


def unlisted(table: str) -> Rule:
    """Return what stands for the rules of a table that iptables cannot list."""
    why = "is in a table that only `nft` can list"
    return Rule("", unread=why, line=f"# Table `{table}' is incompatible, use 'nft' tool.")


def _walk(chains: Mapping[str, Chain], name: str, packet: Packet, depth: int) -> Iterator[Outcome[Rule]]:
    """Yield outcomes; the verdict "" means a return: the caller continues with its next rule."""
    here: list[Outcome[Rule]] = [Outcome(BACK, (), packet)]  # those that go on to the next rule
    found = chains.get(name)
    for rule in found.rules if found and depth <= MAX_DEPTH else ():
        going: list[Outcome[Rule]] = []
        for so_far in here:
            for outcome, ends in _rule(chains, rule, so_far.packet, depth):
                whole = continued(so_far, outcome)
                if ends:
                    yield whole
                else:
                    going.append(whole)
        here = merged(going)
    yield from here


def _rule(chains: Mapping[str, Chain], rule: Rule, packet: Packet, depth: int) -> Iterator[tuple[Outcome[Rule], bool]]:
    """Yield the outcomes of one rule, each with whether it ends the chain; otherwise the next rule is evaluated."""
    verdict = matches(rule, packet)
    if verdict is False:
        yield Outcome(BACK, (), packet), False
        return
    drawn = chance(rule)
    unsure = (rule,) if verdict is None and drawn is None else ()
    share = 1.0 if drawn is None else drawn
    taken = list(_taken(chains, rule, packet, depth))
    if unsure and all(not ends and outcome.packet == packet for outcome, ends in taken):
        yield Outcome(BACK, (), packet), False  # whether it matches makes no difference
        return
    if verdict and drawn is None:
        yield from taken
        return
    for outcome, ends in taken:
        yield replace(outcome, probability=outcome.probability * share, unsure=(*unsure, *outcome.unsure)), ends
    if verdict is None:  # it may also not match
        yield Outcome(BACK, (), packet, probability=1 if drawn is None else 1 - share, unsure=unsure), False


def _taken(chains: Mapping[str, Chain], rule: Rule, packet: Packet, depth: int) -> Iterator[tuple[Outcome[Rule], bool]]:
    """Yield the outcomes of a rule that matches."""
    effect = TARGETS.get(rule.target, Effect.OPEN)
    if rule.unread:
        yield Outcome(UNKNOWN, (rule,), packet, unsure=(rule,)), True
        yield Outcome(BACK, (rule,), packet, unsure=(rule,)), False
    elif rule.target == "RETURN":
        yield Outcome(BACK, (rule,), packet), True
    elif rule.target in chains:
        for outcome in _walk(chains, rule.target, packet, depth + 1):
            yield replace(outcome, path=(rule, *outcome.path)), bool(outcome.verdict) or rule.goto
    elif effect is Effect.CONTINUES:
        yield Outcome(BACK, (rule,), _changed(rule, packet)), False
    elif effect is Effect.ENDS:
        yield Outcome(rule.target, (rule,), packet, _translated(rule)), True
    else:
        yield Outcome(UNKNOWN, (rule,), packet, unsure=(rule,)), True


def _translated(rule: Rule) -> str:
    """Return the new address and port of a packet that the rule translates: "10.244.1.2:8080", ":15001"."""
    address = rule.value("--to-destination") or rule.value("--to-source") or rule.value("--to") or rule.value("--on-ip")
    port = rule.value("--to-ports") or rule.value("--on-port")
    return f"{address}:{port}" if port else address


def _changed(rule: Rule, packet: Packet) -> Packet:
    """Return the packet after a target that does not end the walk."""
    if rule.target == "NOTRACK" or (rule.target == "CT" and any(o.name == "--notrack" for o in rule.target_options)):
        return replace(packet, state="UNTRACKED")
    if rule.target == "MARK":
        return replace(packet, mark=_marked(rule, packet.mark))
    if rule.target == "CONNMARK":
        names = {option.name for option in rule.target_options}
        if "--save-mark" in names:
            return replace(packet, connmark=packet.mark)
        if "--restore-mark" in names:
            return replace(packet, mark=packet.connmark) if packet.state == "NEW" else packet
        return replace(packet, connmark=_marked(rule, packet.connmark))
    return packet


def _marked(rule: Rule, mark: int) -> int:
    """Return the mark after a MARK target. iptables-save writes every kind as --set-xmark or --xor-mark VALUE/MASK."""
    for option in rule.target_options:
        if option.name in ("--set-xmark", "--xor-mark", "--or-mark", "--and-mark", "--set-mark") and option.values:
            value, _, mask = option.values[0].partition("/")
            try:
                bits = int(value, 16)
                cleared = int(mask, 16) if mask else 0xFFFFFFFF
            except ValueError:
                return mark
            match option.name:
                case "--or-mark":
                    return mark | bits
                case "--and-mark":
                    return mark & bits
                case "--xor-mark" if not mask:
                    return mark ^ bits
                case _:
                    return (mark & ~cleared) ^ bits
    return mark
