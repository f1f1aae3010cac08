"""Faults of network policies."""

from __future__ import annotations

from tests.system.faults.commands import on_node
from tests.system.faults.fault import FLANNEL, Fault

FAULTS = (
    Fault(
        "something stops what the policy denies",
        on_node(
            "iptables -I FORWARD -s {pod_address} -m conntrack --ctstate NEW -j DROP",
            "iptables -D FORWARD -s {pod_address} -m conntrack --ctstate NEW -j DROP",
        ),
        (
            "nothing_on_the_way_drops_it_on_one_node",
            "nothing_on_the_way_drops_it_between_nodes",
            "nothing_drops_what_a_pod_sends_to_the_outside",
        ),
        "`-A FORWARD -s {pod_address}/32 -m conntrack --ctstate NEW -j DROP` in iptables filter, chain FORWARD, of "
        "{node} drops",
        traffic=("a_policy_that_nobody_enforces_stops_nothing",),
        needs=FLANNEL,
    ),
)
