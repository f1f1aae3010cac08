"""Each requirement of each lesson, taken out: some negative control has to notice."""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT
from hoplab.observe import capture
from hoplab.verify import observations
from hoplab.verify.claims import Claim
from tests.support.edited import (
    calico,
    cilium,
    dns,
    filters,
    flannel,
    flannel_requirements,
    hosts,
    ingress_classes,
    ipv6,
    machines,
    nftables,
    queues,
    tls,
    wireguard,
)
from tests.support.imaginary import (
    cilium_ingress,
    cilium_traffic,
    gateway,
    ingress,
    policies,
    queued_policies,
    traffic,
    traffic_faults,
)
from tests.support.imaginary import ipv6 as ipv6_traffic
from tests.support.imaginary import wireguard as wireguard_traffic
from tests.support.lesson_functions import applies, lessons, read_only

pytestmark = pytest.mark.mutation

ON_RECORDINGS = (
    *flannel.FAULTS,
    *flannel_requirements.MORE,
    *filters.FAULTS,
    *machines.FAULTS,
    *dns.FAULTS,
    *tls.FAULTS,
    *hosts.FAULTS,
    *ingress_classes.FAULTS,
    *nftables.FAULTS,
    *calico.FAULTS,
    *calico.MORE,
    *cilium.FAULTS,
    *ipv6.FAULTS,
    *wireguard.FAULTS,
    *queues.FAULTS,
)
LESSONS = sorted((PROJECT / "tests" / "lessons").glob("test_*.py"))
WORLDS: tuple[tuple[Any, Sequence[tuple[str, Any, tuple[str, ...], str]]], ...] = (
    (traffic, traffic_faults.FAULTS),
    (ingress, ingress.FAULTS),
    (gateway, gateway.FAULTS),
    (policies, policies.FAULTS),
    (queued_policies, queued_policies.FAULTS),
    (ipv6_traffic, ipv6_traffic.FAULTS),
    (wireguard_traffic, wireguard_traffic.FAULTS),
    (cilium_traffic, cilium_traffic.FAULTS),
    (cilium_ingress, cilium_ingress.FAULTS),
)
DEMANDS = ("require", "each_met")


def demands(tree: ast.AST) -> list[ast.Call]:
    """The calls of claim.require and claim.each_met in a piece of code."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in DEMANDS
    ]


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.removeprefix("test_") in lessons():
            yield node


def without(path: Path, name: str, number: int) -> Callable[..., None]:
    """A lesson that does not demand one of the things it demands."""
    tree = ast.parse(path.read_text())
    function = next(node for node in functions(tree) if node.name == name)
    demand = demands(function)[number]
    assert isinstance(demand.func, ast.Attribute)
    demand.args[0] = ast.Constant(True) if demand.func.attr == "require" else ast.List([], ast.Load())
    module = types.ModuleType(path.stem)
    exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), vars(module))
    found: Callable[..., None] = getattr(module, name)
    return found


def says(lesson: Callable[..., None], **given: Any) -> str:
    """Why the lesson fails; "" where it holds."""
    try:
        lesson(**{name: value for name, value in given.items() if name in inspect.signature(lesson).parameters})
    except (AssertionError, LabError, TypeError, ValueError, LookupError) as error:  # what is missing may also be used
        return str(error) or type(error).__name__
    return ""


def controls(
    lesson: str, careless: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str, bool]]:
    """What the careless lesson says on each of its negative controls, what it should, and whether this is its own."""
    if lesson in read_only():
        for fault in ON_RECORDINGS:
            if lesson in fault.caught_by:
                yield says(careless, lab=fault.broken(), claim=Claim()), fault.says, fault.caught_by[0] == lesson
    for place, faults in WORLDS:
        monkeypatch.setattr(observations, "SETTLE_DEADLINE", place.PATIENCE)
        for switch, value, caught_by, wanted in faults:
            if lesson in caught_by:
                world = place.World()
                if not applies(lesson, place.RECORDED):
                    world.lab = traffic.NFTABLES
                setattr(world, switch, value)
                monkeypatch.setattr(capture, "read", world.read)
                lab = getattr(world, "lab", place.RECORDED)
                yield says(careless, lab=lab, session=world.session(), claim=Claim()), wanted, caught_by[0] == lesson


CASES = [
    pytest.param(path, function.name, number, id=f"{function.name}-{ast.unparse(demand.args[0])[:40]}")
    for path in LESSONS
    for function in functions(ast.parse(path.read_text()))
    for number, demand in enumerate(demands(function))
]


@pytest.mark.parametrize(("path", "name", "number"), CASES)
def test_a_requirement_that_is_left_out_is_missed(
    path: Path, name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    careless = without(path, name, number)
    found = controls(name.removeprefix("test_"), careless, monkeypatch)
    assert any(not why or (own and wanted not in why) for why, wanted, own in found), (
        "every negative control of the lesson still fails as it should"
    )
