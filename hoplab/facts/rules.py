"""Policy rules: which routing table is asked when, ``ip -j rule``."""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.facts import Fact
from hoplab.facts._json import listed


@dataclass(frozen=True)
class PolicyRule:
    """``32766: from all lookup main``"""

    priority: int
    source: str
    table: str


def parse(text: str) -> tuple[PolicyRule, ...]:
    return tuple(
        PolicyRule(item.number("priority"), item.text("src"), item.text("table")) for item in listed(text, "rules")
    )


RULES = Fact("rules", "ip -4 -j rule show", parse)
