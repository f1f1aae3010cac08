"""Faults of masquerading, and of packets that a node drops."""

from __future__ import annotations

from tests.system.faults.commands import on_node, rules
from tests.system.faults.fault import FLANNEL, Fault

FAULTS = (
    Fault(
        "the MASQUERADE rule is gone",
        rules("nat", "grep -vE -- '-A FLANNEL-POSTRTG -s .* ! -d 224.*MASQUERADE'"),
        ("what_leaves_the_pod_range_is_masqueraded",),
        "to {gateway} ends in ACCEPT, not MASQUERADE",
        traffic=("the_outside_sees_the_nodes_address",),
        needs={**FLANNEL, "cni_nftables": False},
    ),
    Fault(
        "flannel's table of nftables masks nothing",
        on_node(
            "nft list table ip flannel-ipv4 >$saved; "
            "( echo delete table ip flannel-ipv4; sed '/masquerade/d' $saved ) | nft -f -",
            "( echo delete table ip flannel-ipv4; cat $saved ) | nft -f -; rm $saved",
        ),
        ("what_leaves_the_pod_range_is_masqueraded",),
        "to {gateway} ends in ACCEPT, not MASQUERADE",
        traffic=("the_outside_sees_the_nodes_address",),
        needs={**FLANNEL, "cni_nftables": True},
    ),
    Fault(
        "pod to pod is masqueraded",
        on_node(
            "iptables -t nat -I POSTROUTING -s {pods} -d {pods} -j MASQUERADE",
            "iptables -t nat -D POSTROUTING -s {pods} -d {pods} -j MASQUERADE",
        ),
        ("what_leaves_the_pod_range_is_masqueraded",),
        "is translated",
        traffic=("pod_to_pod_is_never_translated", "a_cluster_ip_is_a_pod_chosen_per_connection"),
    ),
    Fault(
        "DNS is dropped",
        on_node("iptables -I FORWARD -p udp --dport 53 -j DROP", "iptables -D FORWARD -p udp --dport 53 -j DROP"),
        (),
        "asked {dns} for kubernetes.default.svc.cluster.local and got",
        traffic=("kube_dns_answers_a_pod",),
    ),
    Fault(
        "what came from outside to a Local service is masked too",
        on_node(
            "iptables -t nat -I POSTROUTING -s {gateway} -p tcp --dport 8080 -j MASQUERADE",
            "iptables -t nat -D POSTROUTING -s {gateway} -p tcp --dport 8080 -j MASQUERADE",
        ),
        (),
        "not {gateway}",
        traffic=("the_local_policy_keeps_the_clients_address",),
    ),
    Fault(
        "what another node translated does not arrive",
        on_node(
            "iptables -I FORWARD -d {single} -s {other_pod} -j DROP",
            "iptables -D FORWARD -d {single} -s {other_pod} -j DROP",
        ),
        ("nothing_on_the_way_drops_it_between_nodes",),
        "`-A FORWARD -s {other_pod}/32 -d {single}/32 -j DROP` in iptables filter, chain FORWARD, of {node} drops",
        traffic=("the_destination_changes_on_the_way",),
    ),
)
