"""Causes and consequences among the claims that fail: what a claim rests on is a marker of its lesson.

    @pytest.mark.rests_on("a_pod_hangs_on_a_veth_pair")
    @pytest.mark.rests_on("nodes_are_ready_with_a_range_each", anywhere=True)
    def test_the_host_end_is_a_port_of_the_bridge(lab, claim): ...

A failed claim is a consequence where a claim that it rests on, directly or by way of others, fails too and names the
same node, pod or service; failures that name different ones are separate causes. ``anywhere=True`` is for what one
node sees of the others, such as their ranges. Packets cross nodes, so for a lesson that sends them any node counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hoplab.verify.claims import counted
from hoplab.verify.places import Named, Places
from hoplab.verify.remedies import Remedy, commands

RESTS_ON, REMEDY = "rests_on", "remedy"  # names of the markers


class Mark(Protocol):
    """A marker as pytest keeps it."""

    @property
    def name(self) -> str: ...
    @property
    def args(self) -> tuple[Any, ...]: ...
    @property
    def kwargs(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Basis:
    """What a lesson's markers say of its failures."""

    rests_on: Mapping[str, bool] = field(default_factory=dict)  # a claim: whether its failures anywhere count
    remedies: tuple[Remedy, ...] = ()


Graph = Mapping[str, Basis]  # by the claim: a lesson's name without "test_"


def basis(marks: Iterable[Mark], *, sends_packets: bool = False) -> Basis:
    """Return what the markers of a lesson say, those of the function before those of its module."""
    rests_on: dict[str, bool] = {}
    remedies = []
    for mark in marks:
        if mark.name == RESTS_ON:
            rests_on |= {str(name): sends_packets or bool(mark.kwargs.get("anywhere")) for name in mark.args}
        elif mark.name == REMEDY:
            remedies.append(Remedy(*mark.args, **mark.kwargs))
    return Basis(rests_on, tuple(remedies))


@dataclass(frozen=True)
class Cause:
    """A failed claim that no other failed claim explains, and the failed claims that it explains."""

    name: str  # of the lesson, as pytest calls it: "test_nodes_forward"
    why: str
    shows: str = ""  # the command that shows it
    mends: str = ""  # the one that mends it, where it is safe
    consequences: tuple[str, ...] = ()  # names of lessons, first those that rest on fewest others


def headline(causes: Iterable[Cause]) -> str:
    """
    >>> headline([Cause("test_x", "why", consequences=("test_y", "test_z"))])
    '1 cause, 2 claims fail because of it'
    """
    found = list(causes)
    number = sum(len(cause.consequences) for cause in found)
    text = counted(len(found), "cause")
    if not number:
        return text
    return f"{text}, {counted(number, 'claim')} {'fails' if number == 1 else 'fail'} because of " + (
        "it" if len(found) == 1 else "them"
    )


def claim_of(name: str) -> str:
    """Return the claim of a test.

    >>> claim_of("test_nodes_forward"), claim_of("test_the_kubelet_runs[worker1]")
    ('nodes_forward', 'the_kubelet_runs')
    """
    return name.partition("[")[0].removeprefix("test_")


def find(failed: Mapping[str, str], graph: Graph, places: Places) -> tuple[Cause, ...]:
    """Return the causes among failed lessons, given by name with the reason: first what most others fail of."""
    named = {name: places.named(f"{why} {name.partition('[')[2].rstrip(']')}") for name, why in failed.items()}
    above = {claim_of(name): ancestors(claim_of(name), graph) for name in failed}
    rests_on = {name: [other for other in failed if _explains(other, name, named, above)] for name in failed}
    consequences: dict[str, list[str]] = {name: [] for name in failed if not rests_on[name]}
    for name in sorted(failed, key=lambda name: len(rests_on[name])):
        if rests_on[name]:
            consequences[_root(name, rests_on)].append(name)
    causes = [
        Cause(
            name,
            failed[name],
            *commands(graph.get(claim_of(name), Basis()).remedies, failed[name], named[name], places),
            tuple(others),
        )
        for name, others in consequences.items()
    ]
    return tuple(sorted(causes, key=lambda cause: -len(cause.consequences)))


def _root(name: str, rests_on: Mapping[str, Sequence[str]]) -> str:
    """Return the cause of a failed lesson: one that explains it itself, before one that explains what explains it."""
    while upper := rests_on[name]:
        name = next((other for other in upper if not rests_on[other]), upper[0])
    return name


def _explains(cause: str, name: str, named: Mapping[str, Named], above: Mapping[str, Mapping[str, bool]]) -> bool:
    """Return whether a failed lesson explains another one."""
    upper, lower = claim_of(cause), claim_of(name)
    if upper not in above[lower] or lower in above[upper]:  # claims that rest on each other explain nothing
        return False
    return above[lower][upper] or named[cause].may_be_of(named[name])


def ancestors(claim: str, graph: Graph) -> dict[str, bool]:
    """Return every claim that this one rests on, also by way of others: whether its failures anywhere count."""
    found: dict[str, bool] = {}
    todo = [(claim, False)]
    while todo:
        lower, anywhere = todo.pop()
        for upper, wide in graph.get(lower, Basis()).rests_on.items():
            reach = anywhere or wide
            if upper not in found or (reach and not found[upper]):
                found[upper] = reach
                todo.append((upper, reach))
    return found


def problems(graph: Graph) -> list[str]:
    """Return what is wrong with the dependencies of lessons: names that no lesson has, and cycles."""
    unknown = [
        f"{lower} rests on {upper}, which is no lesson"
        for lower, found in graph.items()
        for upper in found.rests_on
        if upper not in graph
    ]
    return unknown + [f"{claim} rests on itself" for claim in graph if claim in ancestors(claim, graph)]
