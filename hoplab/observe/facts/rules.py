"""Policy rules, which select the routing table: ``ip -j rule``."""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Item, listed


@dataclass(frozen=True)
class PolicyRule:
    """``32766: from all lookup main``"""

    priority: int
    source: str  # "all", "10.244.0.0/16"
    table: str  # "" for a rule with an action
    destination: str = ""
    mark: str = ""  # "0x1", "0x1/0xff"
    negated: bool = False  # `not`: applies to packets that do not match
    action: str = ""  # "blackhole", "goto 32766", ... in place of a table
    others: tuple[str, ...] = ()  # further selectors: "iif eth0", "ipproto tcp"

    def __str__(self) -> str:
        words = [
            f"{self.priority}:",
            "not" if self.negated else "",
            f"from {self.source}",
            f"to {self.destination}" if self.destination else "",
            f"fwmark {self.mark}" if self.mark else "",
            *self.others,
            f"lookup {self.table}" if self.table else self.action,
        ]
        return " ".join(word for word in words if word)


def parse(text: str) -> tuple[PolicyRule, ...]:
    return tuple(_rule(item) for item in listed(text, "rules"))


_KNOWN = frozenset(["priority", "not", "src", "srclen", "dst", "dstlen", "fwmark", "fwmask", "table", "action", "goto"])


def _rule(item: Item) -> PolicyRule:
    target = item.text("goto")
    return PolicyRule(
        priority=item.number("priority"),
        source=_with(item, "src", "srclen"),
        table=item.text("table"),
        destination=_with(item, "dst", "dstlen"),
        mark=_with(item, "fwmark", "fwmask"),
        negated="not" in item.raw,
        action=f"goto {target}" if target else item.text("action"),
        others=tuple(f"{key} {value}" for key, value in item.raw.items() if key not in _KNOWN),
    )


def _with(item: Item, key: str, length: str) -> str:
    """Return ``10.244.0.0`` and ``16`` as one prefix."""
    return f"{item.text(key)}/{item.text(length)}" if length in item.raw else item.text(key)


RULES = Fact("rules", "ip -4 -j rule show", parse)
