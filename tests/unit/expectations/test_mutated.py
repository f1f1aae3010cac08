"""Each value of each expectation, changed or left out: a healthy recording or some negative control has to notice.

What lessons expect is data (hoplab/cni, hoplab/proxy). A wrong value fails a lesson on a healthy lab. One that is left
out asks for less, so a healthy lab does not mind; but then something broken is not noticed any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from ipaddress import IPv4Address, IPv4Network
from types import ModuleType
from typing import Any

import pytest

from hoplab.expectations import cni, proxy
from hoplab.expectations.cni import flannel
from hoplab.expectations.proxy import iptables
from hoplab.observe.snapshot import Snapshot
from tests.support.edited.flannel import FAULTS
from tests.support.edited.flannel_requirements import MORE
from tests.support.edits import FIRST, HEALTHY
from tests.support.lesson_functions import failures, lessons, read_only

pytestmark = pytest.mark.mutation

Path = tuple[int | str, ...]  # the way to a value: ("routes", 0, "dev")
Change = Callable[[Any], Any]

# What an expectation is about, with the nodes of endpoints; and affinity, whose lesson needs a younger service than
# this recording has.
NOT_EXPECTED = {"service", "external_policy", "node", "affinity"}
ON_THE_WIRE = {"filter", "encrypted", "vni_per_packet"}  # what packets are asked for; test_cni has it
ONLY_FROM_OUTSIDE = {"node_port", "external_chain"}


def left_out(values: Any) -> Any:
    return type(values)()


def other(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case IPv4Network():
            return IPv4Network((int(value.network_address) ^ value.num_addresses, value.prefixlen))
        case IPv4Address():
            return value + 1
        case None:
            return IPv4Address("192.0.2.1")
    raise AssertionError(f"what else could {value!r} be?")


def mutants(value: Any) -> Iterator[tuple[Path, Change]]:
    """Every way to get one thing wrong in it."""
    if is_dataclass(value):
        parts: Iterator[tuple[int | str, Any]] = ((field.name, getattr(value, field.name)) for field in fields(value))
    elif isinstance(value, Mapping):
        parts = iter(value.items())
    elif isinstance(value, (tuple, frozenset)):
        parts = iter(enumerate(value)) if isinstance(value, tuple) else iter(())
        if value:
            yield (), left_out
    else:
        yield (), other
        return
    for key, part in parts:
        for path, change in mutants(part):
            yield (key, *path), change


def mutated(value: Any, path: Path, change: Change) -> Any:
    """The same with one thing wrong; where that is not there, as it is."""
    if not path:
        return change(value)
    key, *rest = path
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{str(key): mutated(getattr(value, str(key)), tuple(rest), change)})
    if isinstance(value, Mapping):
        return {name: mutated(part, tuple(rest), change) if name == key else part for name, part in value.items()}
    return tuple(mutated(part, tuple(rest), change) if index == key else part for index, part in enumerate(value))


@cache
def controls() -> tuple[tuple[Snapshot, frozenset[str]], ...]:
    """Every broken lab, with the lessons that fail there."""
    labs = [fault.broken() for fault in (*FAULTS, *MORE)]
    return tuple((lab, frozenset(failing(lab))) for lab in labs)


def failing(lab: Snapshot) -> set[str]:
    """The read-only lessons that fail, also by stumbling over an expectation that makes no sense."""
    found = set()
    for name in read_only():
        try:
            found |= set(failures([name], lab))
        except (LookupError, TypeError, ValueError):
            found.add(name)
    return found


def noticed() -> bool:
    return bool(failing(HEALTHY)) or any(failing(lab) != found for lab, found in controls())


def cases(value: Any, skipped: set[str] = frozenset()) -> list[Any]:  # type: ignore[assignment]
    return [
        pytest.param(path, change, id=f"{'.'.join(map(str, path)) or 'all'}-{change.__name__}")
        for path, change in mutants(value)
        if not skipped & set(map(str, path))
    ]


@pytest.mark.parametrize(("path", "change"), cases(cni.expectations(HEALTHY)[FIRST.name], ON_THE_WIRE))
def test_what_a_cni_has_to_leave(path: Path, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    controls()
    real = cni.expectations
    monkeypatch.setattr(cni, "expectations", lambda lab: mutated(real(lab), (FIRST.name, *path), change))
    assert noticed()


def open_to_all(service: proxy.ServiceExpectation) -> bool:
    """Whether rules are told what to do with its node port; with the policy Local packets are sent to see."""
    return bool(service.node_port) and service.external_policy == "Cluster"


SERVICES = [
    pytest.param(service.service, *case.values, id=f"{service.service}-{case.id}")
    for service in proxy.expectations(HEALTHY)
    for case in cases(service, NOT_EXPECTED | (set() if open_to_all(service) else ONLY_FROM_OUTSIDE))
]


@pytest.mark.parametrize(("service", "path", "change"), SERVICES)
def test_what_kube_proxy_has_to_leave(
    service: str, path: Path, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    controls()
    real = proxy.expectations
    monkeypatch.setattr(
        proxy,
        "expectations",
        lambda lab: tuple(mutated(found, path, change) if found.service == service else found for found in real(lab)),
    )
    assert noticed()


def _constants() -> Iterator[Any]:
    named: list[tuple[ModuleType, str]] = [
        (proxy, "MASQUERADE_MARK"),
        *((iptables, name) for name in ("CHAINS", "HOOKS", "GONE")),
        *((flannel, name) for name in ("CONFIG_FILE", "PLUGINS")),
    ]
    for module, name in named:
        for case in cases(getattr(module, name)):
            yield pytest.param(module, name, *case.values, id=f"{name}-{case.id}")


@pytest.mark.parametrize(("module", "name", "path", "change"), list(_constants()))
def test_what_is_always_so(
    module: ModuleType, name: str, path: Path, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    controls()
    monkeypatch.setattr(module, name, mutated(getattr(module, name), path, change))
    assert noticed()


THERE = lessons()["tables_are_called_in_their_order"].function.__globals__


@pytest.mark.parametrize(
    ("name", "path", "change"),
    [
        pytest.param(name, *case.values, id=f"{name}-{case.id}")
        for name in ("BUILT_IN", "PRIORITIES", "AFTER_ROUTING")
        for case in cases(THERE[name])
    ],
)
def test_what_a_kernel_does(name: str, path: Path, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    controls()
    monkeypatch.setitem(THERE, name, mutated(THERE[name], path, change))
    assert noticed()
