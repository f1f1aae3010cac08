"""What a server of the Gateway API does with the rules of an HTTPRoute, as its configuration says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HttpRoute:
    """An HTTPRoute, as far as a configuration shows it."""

    name: str  # with its namespace: "hoplab-verify/way"
    host: str
    rules: Sequence[Mapping[str, Any]]  # of its spec

    def rule_name(self, number: int) -> str:
        return f"{self.name}/{number}"


@dataclass(frozen=True)
class ServedMatch:
    """Where requests go that a rule is for."""

    number: int  # of the rule in its route
    rule: str  # its name: "hoplab-verify/way/0"
    place: str  # where the configuration has it: "location = /login"
    endpoints: tuple[str, ...]  # "10.244.1.3:8080"

    def __str__(self) -> str:
        return f"{self.rule}: {self.place} -> {', '.join(self.endpoints) or 'nothing'}"
