"""Faults of kube-proxy's rules in nftables mode."""

from __future__ import annotations

from tests.system.faults.commands import nft, on_node, on_other
from tests.system.faults.fault import Fault

FAULTS = (
    Fault(
        "the kernel does not call kube-proxy's table before routing",
        nft("sed '/type nat hook prerouting/d'"),
        (
            "kube_proxys_table_is_called_by_the_kernel",
            "a_service_leads_to_its_endpoints",
            "every_endpoint_gets_the_same_share",
            "marked_packets_are_masked",
            "node_ports_come_last",
            "a_local_service_stays_on_its_node",
            "a_sticky_service_remembers_its_clients",
        ),
        "{node} has no chain `nat-prerouting",
        traffic=("a_cluster_ip_is_a_pod_chosen_per_connection",),
        needs={"proxy": "nftables"},
    ),
    Fault(
        "a service is in no map",
        on_node(
            "nft delete element ip kube-proxy service-ips '{{ {cluster_ip} . tcp . 80 }}'",
            "nft add element ip kube-proxy service-ips '{{ {cluster_ip} . tcp . 80 : goto {chain} }}'",
        ),
        (
            "a_service_is_found_in_a_map",
            "a_service_leads_to_its_endpoints",
            "every_endpoint_gets_the_same_share",
            "only_rules_know_a_cluster_ip",
            "nothing_drops_what_a_node_sends_to_a_service",  # what no map knows is rejected
        ),
        "service-ips on {node} does not lead {cluster_ip} . tcp . 80 to {chain}",
        traffic=("a_cluster_ip_is_a_pod_chosen_per_connection",),
        needs={"proxy": "nftables"},
    ),
    Fault(
        "a number that no endpoint has is drawn too",
        nft("sed 's/numgen random mod 2/numgen random mod 3/'"),
        (
            "one_rule_draws_one_of_the_endpoints",
            "a_service_leads_to_its_endpoints",
            "every_endpoint_gets_the_same_share",
            "nothing_drops_what_a_node_sends_to_a_service",  # what draws it is rejected
        ),
        "does not choose by `numgen random mod 2`",
        needs={"proxy": "nftables"},
    ),
    Fault(
        "the rule that marks is gone",
        nft("sed '/masquerade clusterIP traffic/d'"),
        ("marked_packets_are_masked",),
        "is not marked",
        needs={"proxy": "nftables"},
    ),
    Fault(
        "nothing that is marked is masked",
        nft("sed '/meta mark & 0x00004000 != 0x00000000/d'"),
        ("marked_packets_are_masked",),
        "not masquerading",
        traffic=("a_node_port_answers_on_every_node", "a_load_balancers_address_reaches_the_pods"),
        needs={"proxy": "nftables"},
    ),
    Fault(
        "NodePorts are not looked up",
        nft("sed '/vmap @service-nodeports/d'"),
        ("node_ports_come_last", "a_local_service_stays_on_its_node"),
        "is not for the node's own addresses",
        traffic=("a_node_port_answers_on_every_node",),
        needs={"proxy": "nftables"},
    ),
    Fault(
        "a Local service is not dropped by nftables where it has no pod",
        on_other(
            "nft list table ip kube-proxy >$saved; nft flush map ip kube-proxy no-endpoint-nodeports",
            "( echo delete table ip kube-proxy; cat $saved ) | nft -f -; rm $saved",
        ),
        ("a_local_service_stays_on_its_node",),
        "{other}, without a pod of {local}, ends port 30081 in ACCEPT",
        needs={"proxy": "nftables"},
    ),
    Fault(
        "lots are drawn before anybody remembers a client",
        nft("sed '/ip saddr @affinity-/d'"),
        ("a_sticky_service_remembers_its_clients",),
        "keeps clients by nothing",
        traffic=("a_client_stays_with_its_endpoint",),
        needs={"proxy": "nftables"},
    ),
    Fault(
        "the map of services without endpoints is empty",
        on_node(
            "nft list table ip kube-proxy >$saved; nft flush map ip kube-proxy no-endpoint-services",
            "( echo delete table ip kube-proxy; cat $saved ) | nft -f -; rm $saved",
        ),
        ("only_rules_know_a_cluster_ip",),
        "the rules of {node} lack",
        needs={"proxy": "nftables"},
    ),
    Fault(
        "nothing rejects what is for a ClusterIP that leads nowhere",
        nft("sed '/jump service-endpoints-check/d; /jump cluster-ips-check/d'"),
        ("kube_proxys_table_is_called_by_the_kernel", "a_service_without_endpoints_rejects"),
        "on {node} calls",
        traffic=("a_refused_service_says_so_at_once",),
        needs={"proxy": "nftables"},
    ),
    Fault(
        "rules of kube-proxy's other mode are left",
        on_node("iptables -t nat -N KUBE-SVC-NPX46M4PTMTKRN6Y", "iptables -t nat -X KUBE-SVC-NPX46M4PTMTKRN6Y"),
        ("iptables_knows_no_service",),
        "nat of iptables on {node} has KUBE-SVC-NPX46M4PTMTKRN6Y",
        needs={"proxy": "nftables"},
    ),
)
