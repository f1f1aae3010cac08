"""Checks that exercises share. Each is pure and names common errors in its message."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface

from hoplab.netfilter.iptables import walk
from hoplab.netfilter.packet import Packet
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.iptables import Iptables, Rule
from hoplab.observe.facts.links import LINKS, Link
from hoplab.practice import CheckResult, Inspection, Request

_ANSWER = re.compile(r"(\S+) was asked by (\S+)")


def result(holds: object, message: str, missing: str, *evidence: object) -> CheckResult:
    """Return a passed check with ``message``, or a failed one with ``missing`` and the evidence."""
    return CheckResult(True, message) if holds else CheckResult(False, missing, tuple(map(str, evidence)))


def link(inspection: Inspection, namespace: str, name: str) -> Link | None:
    """Return the interface of that name in a namespace."""
    return next((link for link in inspection[namespace][LINKS] if link.name == name), None)


def link_there(inspection: Inspection, namespace: str, name: str, kind: str) -> CheckResult:
    """Check that a namespace has an interface of that name and kind."""
    found = link(inspection, namespace, name)
    if found:
        message = f"{namespace} has the {kind} {name}"
        return result(found.kind == kind, message, f"{name} of {namespace} is a {found.kind or 'device'}, not a {kind}")
    if any(link.name == name for link in inspection.node_links):
        return CheckResult(
            False, f"{name} is on the node itself, not in {namespace}: it was made there, and never moved"
        )
    for other, facts in inspection.places.items():
        if any(link.name == name for link in facts[LINKS]):
            return CheckResult(False, f"{name} is in {other}, not in {namespace}")
    return CheckResult(False, f"{namespace} has no interface {name}", shown(inspection[namespace][LINKS]))


def link_up(inspection: Inspection, namespace: str, name: str) -> CheckResult:
    """Check that an interface is up."""
    found = link(inspection, namespace, name)
    if not found:
        return CheckResult(False, f"{namespace} has no interface {name} that is up")
    return result(found.up, f"{name} of {namespace} is up", f"{name} of {namespace} is down", *shown([found]))


def has_address(inspection: Inspection, namespace: str, name: str, wanted: IPv4Interface) -> CheckResult:
    """Check that an interface has the address with the right prefix length."""
    found = inspection[namespace][ADDRESSES]
    same = [address for address in found if address.address == wanted.ip]
    if any(address.dev == name and address.network == wanted.network for address in same):
        return CheckResult(True, f"{name} of {namespace} has the address {wanted}")
    for address in same:
        if address.dev != name:
            return CheckResult(False, f"{wanted.ip} is on {address.dev} of {namespace}, not on {name}")
        prefix = wanted.network.prefixlen
        return CheckResult(
            False, f"{name} of {namespace} has the right address, but not the prefix /{prefix}", (str(address),)
        )
    return CheckResult(False, f"{namespace} has no interface with the address {wanted}", tuple(map(str, found)))


def answered(inspection: Inspection, request: Request, *, by: str, sees: IPv4Address) -> CheckResult:
    """Check that a request was answered by the right server, and that the server saw the right source address."""
    output = inspection.answers[request]
    answer = _ANSWER.fullmatch(output.out.strip())
    if not answer:
        why = output.err.strip() or "what answers is no server of this exercise"
        return CheckResult(False, f"{request.source} gets no answer from {request}: {why}")
    if answer[1] != by:
        return CheckResult(False, f"{answer[1]} answers {request.source} on {request}, not {by}")
    return result(
        answer[2] == str(sees),
        f"{request.source} asks {request} and gets an answer: {by} saw {sees}",
        f"{request.source} gets an answer from {request}, but {by} saw {answer[2]}, not {sees}",
    )


def shown(links: Iterable[Link]) -> tuple[str, ...]:
    """Return interfaces as text without index and MAC, which differ in every run."""
    return tuple(
        " ".join(
            word
            for word in (link.name, link.kind, "up" if link.up else "down", link.master and f"master {link.master}")
            if word
        )
        for link in links
    )


def deciding(found: Iptables, table: str, chain: str, packet: Packet, targets: Iterable[str]) -> Rule | None:
    """Return the rule that applies one of the targets to a packet in the chain."""
    ends = walk(found.chains(table), chain, packet)
    return next((end.last for end in ends if end.verdict in targets), None)


def counted(rule: Rule) -> str:
    """Return a rule with its packet counter.

    >>> counted(Rule("FORWARD", target="DROP", packets=3))
    '[3 packets] -A FORWARD -j DROP'
    """
    return f"[{rule.packets} packet{'' if rule.packets == 1 else 's'}] {rule}"
