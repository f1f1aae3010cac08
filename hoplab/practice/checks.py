"""The sentences that exercises share: each grades one thing, and knows the usual near misses; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface

from hoplab.netfilter.iptables import walk
from hoplab.netfilter.packet import Packet
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.iptables import Iptables, Rule
from hoplab.observe.facts.links import LINKS, Link
from hoplab.practice import Grade, Request, Seen

_ANSWER = re.compile(r"(\S+) was asked by (\S+)")


def grade(holds: object, so: str, missing: str, *seen: object) -> Grade:
    """What is so when it holds; otherwise what is missing, and what is there instead."""
    return Grade(True, so) if holds else Grade(False, missing, tuple(str(each) for each in seen))


def link(seen: Seen, namespace: str, name: str) -> Link | None:
    return next((each for each in seen[namespace][LINKS] if each.name == name), None)


def link_there(seen: Seen, namespace: str, name: str, kind: str) -> Grade:
    """A namespace has an interface of that name and kind."""
    found = link(seen, namespace, name)
    if found:
        so = f"{namespace} has the {kind} {name}"
        return grade(found.kind == kind, so, f"{name} of {namespace} is a {found.kind or 'device'}, not a {kind}")
    if any(each.name == name for each in seen.node_links):
        return Grade(False, f"{name} is on the node itself, not in {namespace}: it was made there, and never moved")
    for other, facts in seen.places.items():
        if any(each.name == name for each in facts[LINKS]):
            return Grade(False, f"{name} is in {other}, not in {namespace}")
    return Grade(False, f"{namespace} has no interface {name}", shown(seen[namespace][LINKS]))


def link_up(seen: Seen, namespace: str, name: str) -> Grade:
    found = link(seen, namespace, name)
    if not found:
        return Grade(False, f"{namespace} has no interface {name} that is up")
    return grade(found.up, f"{name} of {namespace} is up", f"{name} of {namespace} is down", *shown([found]))


def has_address(seen: Seen, namespace: str, name: str, wanted: IPv4Interface) -> Grade:
    """An interface has the address, with the right prefix length."""
    found = seen[namespace][ADDRESSES]
    same = [each for each in found if each.address == wanted.ip]
    if any(each.dev == name and each.network == wanted.network for each in same):
        return Grade(True, f"{name} of {namespace} has the address {wanted}")
    for each in same:
        if each.dev != name:
            return Grade(False, f"{wanted.ip} is on {each.dev} of {namespace}, not on {name}")
        prefix = wanted.network.prefixlen
        return Grade(False, f"{name} of {namespace} has the right address, but not the prefix /{prefix}", (str(each),))
    return Grade(False, f"{namespace} has no interface with the address {wanted}", tuple(str(each) for each in found))


def answered(seen: Seen, request: Request, *, by: str, sees: IPv4Address) -> Grade:
    """A real packet found its way there and back, and the server saw the address that it should."""
    output = seen.answers[request]
    answer = _ANSWER.fullmatch(output.out.strip())
    if not answer:
        why = output.err.strip() or "what answers is no server of this exercise"
        return Grade(False, f"{request.source} gets no answer from {request}: {why}")
    if answer[1] != by:
        return Grade(False, f"{answer[1]} answers {request.source} on {request}, not {by}")
    return grade(
        answer[2] == str(sees),
        f"{request.source} asks {request} and gets an answer: {by} saw {sees}",
        f"{request.source} gets an answer from {request}, but {by} saw {answer[2]}, not {sees}",
    )


def shown(links: Iterable[Link]) -> tuple[str, ...]:
    """Interfaces without what is different each time (index, MAC)."""
    return tuple(
        " ".join(
            word
            for word in (each.name, each.kind, "up" if each.up else "down", each.master and f"master {each.master}")
            if word
        )
        for each in links
    )


def deciding(found: Iptables, table: str, chain: str, packet: Packet, targets: Iterable[str]) -> Rule | None:
    """The rule by which a packet that enters a chain meets one of the targets."""
    ends = walk(found.chains(table), chain, packet)
    return next((end.last for end in ends if end.verdict in targets), None)


def counted(rule: Rule) -> str:
    """
    >>> counted(Rule("FORWARD", target="DROP", packets=3))
    '[3 packets] -A FORWARD -j DROP'
    """
    return f"[{rule.packets} packet{'' if rule.packets == 1 else 's'}] {rule}"
