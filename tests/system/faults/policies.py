"""Faults of network policies."""

from __future__ import annotations

from tests.system.faults.commands import on_node
from tests.system.faults.fault import FLANNEL, Fault

QUEUED = {"policy": "kube-network-policies"}
DECIDES = "a_program_decides_about_queued_packets"
END_PROGRAM = "kill $(pidof kube-network-policies)"  # its container starts again, and writes the table

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
        needs={**FLANNEL, "policies": False},
    ),
    Fault(
        "the table of policies is gone",
        on_node("nft delete table inet kube-network-policies", END_PROGRAM),
        (DECIDES,),
        "there is no table inet kube-network-policies on {node} with a chain postrouting",
        needs=QUEUED,
    ),
    Fault(
        "nobody reads the queue of policies",
        on_node(f"kill -STOP $(pidof kubelet); {END_PROGRAM}", "kill -CONT $(pidof kubelet)"),
        (DECIDES,),
        "no program on {node} reads queue 98",
        needs=QUEUED,
    ),
)
