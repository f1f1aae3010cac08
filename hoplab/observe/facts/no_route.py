"""The kernel's error in a network namespace without a route: an experiment."""

from __future__ import annotations

from hoplab.observe.facts import Fact


def parse(text: str) -> str:
    return text.strip()


# 198.51.100.0/24 is for documentation: no host has it.
NO_ROUTE = Fact("unreachable", "! unshare --net ip route get 198.51.100.1 2>&1", parse, constant=True)
