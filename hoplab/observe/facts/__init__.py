"""Facts: what a host, a pod's network namespace or the Kubernetes API says about itself, as frozen typed records.

One fact is one command and one pure parser, in one file of this folder; there is no list to edit. A parser takes the
command's output as text and does not depend on how it was fetched. Facts of one place are read like this::

    node[ROUTES]      # tuple[Route, ...], parsed on first use
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from hoplab.core.errors import FactError, UnavailableError
from hoplab.observe.script import Output
from hoplab.spec.parts import Parts

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Where = Literal["node", "pod", "api"]
NODES_AND_PODS: frozenset[Where] = frozenset({"node", "pod"})


@dataclass(frozen=True)
class Fact(Generic[T_co]):
    """A command and its parser: on a node, inside a pod's network namespace, or of the Kubernetes API."""

    name: str  # "routes"
    command: str  # a shell command; for "api" the path of a GET request
    parse: Callable[[str], T_co]  # text in, records out; it raises FactError only
    where: frozenset[Where] = frozenset({"node"})
    ipv6: bool = False  # only collected in labs that have IPv6
    constant: bool = False  # an experiment with the kernel alone, which later looks need not repeat
    of_parts: Callable[[Parts], str] | None = None  # the command, where it depends on the known parts
    reduce: Callable[[str], str] | None = None  # of an answer with secrets: what is kept of it, before anything else

    def command_for(self, parts: Parts) -> str:
        """Return the command that collects it, given all known parts."""
        return self.of_parts(parts) if self.of_parts else self.command


@dataclass(frozen=True)
class Facts:
    """The facts of one place; each is parsed on first access."""

    place: str  # "worker1", "worker1 cni-1b4e..." (a pod's namespace) or "api"
    outputs: Mapping[str, Output]
    _parsed: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    unavailable: str = ""  # why the place could not be looked at; "" where it was

    def __getitem__(self, fact: Fact[T]) -> T:
        """Return the parsed fact; raise FactError when it is missing, its command failed or its text is malformed.

        Raise UnavailableError when it is missing because the place could not be looked at.
        """
        if fact.name not in self._parsed:
            output = self.outputs.get(fact.name)
            if output is None and self.unavailable:
                raise UnavailableError(self.unavailable)
            if output is None:
                raise FactError(f"{fact.name} was not looked at on {self.place}", remedy="record the lab again")
            if output.code != 0:
                raise FactError(
                    f"`{fact.command}` ended with {output.code} on {self.place}: {output.err.strip()}",
                    remedy=f"run it by hand on {self.place.split()[0]}",
                )
            try:
                self._parsed[fact.name] = fact.parse(output.out)
            except FactError as error:
                raise FactError(f"{fact.name} on {self.place}: {error.message}", remedy=error.remedy) from None
        parsed: T = self._parsed[fact.name]
        return parsed


def discover(where: Where) -> tuple[Fact[Any], ...]:
    """Return every fact of this folder that can be collected in that kind of place, sorted by name."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
                if isinstance(value, Fact) and where in value.where:
                    found[value.name] = value
    return tuple(found[name] for name in sorted(found))
