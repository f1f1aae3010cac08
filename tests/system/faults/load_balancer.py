"""Faults of announced addresses."""

from __future__ import annotations

from tests.system.faults.commands import on_announcer, on_node, on_silent
from tests.system.faults.fault import Fault

FAULTS = (
    Fault(
        "what came to an announced address of a Local service is masked too",
        on_node(
            "iptables -t nat -I POSTROUTING -s {gateway} -p tcp --dport 8080 -j MASQUERADE",
            "iptables -t nat -D POSTROUTING -s {gateway} -p tcp --dport 8080 -j MASQUERADE",
        ),
        (),
        "not {gateway}",
        traffic=("a_local_service_is_announced_where_its_pod_is",),
        needs={"load_balancer": "metallb"},
    ),
    Fault(
        "two nodes answer ARP for a balancer's address",  # one by its kernel: an interface has it
        on_silent("ip address add {announced}/32 dev lo", "ip address del {announced}/32 dev lo"),
        ("the_load_balancer_gives_addresses_of_its_pool",),
        "{announced} of hoplab-verify/announced is the address of lo of",
        traffic=("one_node_answers_arp_for_a_balancers_address",),
        needs={"load_balancer": "metallb"},
    ),
    Fault(
        "what comes to a balancer's address is dropped",
        on_announcer(
            "iptables -t raw -I PREROUTING -d {announced} -j DROP",
            "iptables -t raw -D PREROUTING -d {announced} -j DROP",
        ),
        ("nothing_drops_what_comes_in_by_a_load_balancer",),
        "`-A PREROUTING -d {announced}/32 -j DROP` in iptables raw, chain PREROUTING, of",
        traffic=("an_announced_address_reaches_the_pods",),
        needs={"load_balancer": "metallb"},
    ),
    Fault(
        "the speaker of the only node with a pod stands still",
        on_node("kill -STOP $(pidof metallb-speaker)", "kill -CONT $(pidof metallb-speaker)"),
        (),
        "no node answers ARP for",
        traffic=("a_local_service_is_announced_where_its_pod_is",),
        needs={"load_balancer": "metallb"},
    ),
)
