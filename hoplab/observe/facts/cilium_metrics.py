"""What Cilium's programs counted, by reason: ``cilium-dbg bpf metrics list -o json``. Looked at where lessons ask."""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.observe.facts import Fact
from hoplab.observe.facts._cilium import in_agent
from hoplab.observe.facts._json import Item, gather_listed

DENIED = "Policy denied"


@dataclass(frozen=True)
class Counter:
    reason: str  # "Policy denied", "Success", ...
    direction: str  # "ingress", "egress", ...
    packets: int


def parse(text: str) -> tuple[Counter, ...]:
    return gather_listed(text, "metrics", lambda item: (_counter(item),))


def _counter(item: Item) -> Counter:
    return Counter(item.text("reason"), item.text("direction").lower(), item.number("packets"))


CILIUM_METRICS = Fact("cilium_metrics", in_agent("cilium-dbg bpf metrics list -o json"), parse, frozenset())
