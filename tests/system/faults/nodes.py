"""Faults of what the API knows of nodes."""

from __future__ import annotations

from tests.system.faults.fault import Fault
from tests.system.faults.objects import not_ready

FAULTS = (
    Fault(
        "a node is not Ready",
        not_ready,
        ("nodes_are_ready_with_a_range_each",),
        "{node} is not Ready: broken by hand",
        alone=True,
    ),
)
