"""Faults of network policies."""

from __future__ import annotations

from tests.system.faults.commands import on_node
from tests.system.faults.fault import FLANNEL, Fault

FAULTS = (
    Fault(
        "something stops what the policy denies",
        on_node("iptables -I FORWARD -s {pod_address} -j DROP", "iptables -D FORWARD -s {pod_address} -j DROP"),
        (),
        "does not answer {pod}",
        traffic=("a_policy_that_nobody_enforces_stops_nothing",),
        needs=FLANNEL,
    ),
)
