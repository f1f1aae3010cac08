"""Faults of services: their addresses, and kube-proxy's rules in iptables mode."""

from __future__ import annotations

from tests.system.faults.commands import on_node, on_other, rules
from tests.system.faults.fault import Fault
from tests.system.faults.objects import moved_service

FAULTS = (
    Fault(
        "kube-dns has another ClusterIP",
        moved_service("kube-system", "kube-dns", "10.96.0.11"),
        (
            "services_have_a_range_of_their_own",
            "only_rules_know_a_cluster_ip",
            "marked_packets_are_masked",
            "a_service_leads_to_its_endpoints",
            "every_endpoint_gets_the_same_share",
        ),
        "kube-system/kube-dns has 10.96.0.11, not 10.96.0.10",
        alone=True,
    ),
    Fault(
        "an interface has a ClusterIP",
        on_node("ip address add {dns}/32 dev lo", "ip address del {dns}/32 dev lo"),
        ("no_interface_owns_a_cluster_ip",),
        "lo of {node} has {dns}, a ClusterIP",
    ),
    Fault(
        "nobody calls KUBE-SERVICES in PREROUTING",
        rules("nat", "grep -vE -- '-A PREROUTING .*KUBE-SERVICES'"),
        (
            "kube_proxy_hooks_in_its_chains",
            "a_service_leads_to_its_endpoints",
            "marked_packets_are_masked",
            "node_ports_come_last",
            "every_endpoint_gets_the_same_share",
            "a_local_service_stays_on_its_node",
            "a_sticky_service_remembers_its_clients",
        ),
        "PREROUTING of nat on {node} never calls KUBE-SERVICES",
        needs={"proxy": "iptables"},
    ),
    Fault(
        "the rules of a KUBE-SVC chain are flushed",
        on_node(
            "iptables-save -c -t nat >$saved; iptables -t nat -F {chain}",
            "iptables-restore -c <$saved; rm $saved",
        ),
        ("a_service_leads_to_its_endpoints", "every_endpoint_gets_the_same_share", "marked_packets_are_masked"),
        "{service} leads to nothing",
        traffic=("a_cluster_ip_is_a_pod_chosen_per_connection",),
        needs={"proxy": "iptables"},
    ),
    Fault(
        "an endpoint gets nearly all connections",
        rules("nat", "sed -E 's/--probability 0\\.[0-9]+/--probability 0.99000000022/'"),
        ("every_endpoint_gets_the_same_share",),
        "0.99 for",
        needs={"proxy": "iptables"},
    ),
    Fault(
        "KUBE-MARK-MASQ does not mark",
        rules("nat", "grep -vE -- '-A KUBE-MARK-MASQ '"),
        ("marked_packets_are_masked", "node_ports_come_last"),
        "is not marked",
        traffic=("a_node_port_answers_on_every_node", "a_load_balancers_address_reaches_the_pods"),
        needs={"proxy": "iptables"},
    ),
    Fault(
        "KUBE-NODEPORTS is never reached",
        rules("nat", "grep -vE -- '-A KUBE-SERVICES .*-j KUBE-NODEPORTS'"),
        ("node_ports_come_last", "a_local_service_stays_on_its_node"),
        "is not for the node's own addresses",
        needs={"proxy": "iptables"},
    ),
    Fault(
        "the userspace proxy is back",
        on_node("iptables -t nat -N KUBE-PORTALS-HOST", "iptables -t nat -X KUBE-PORTALS-HOST"),
        ("portals_are_gone",),
        "has KUBE-PORTALS-HOST",
        needs={"proxy": "iptables"},
    ),
    Fault(
        "a service without endpoints is not rejected",
        rules("filter", "grep -vE -- 'has no endpoints.*REJECT'"),
        ("a_service_without_endpoints_rejects", "only_rules_know_a_cluster_ip"),
        "for hoplab-verify/nobody",
        traffic=("a_refused_service_says_so_at_once",),
        needs={"proxy": "iptables"},
    ),
    Fault(
        "a node does not know a ClusterIP",
        rules("nat", "grep -vE -- '-A KUBE-SERVICES .*default/kubernetes:https'"),
        (
            "only_rules_know_a_cluster_ip",
            "a_service_leads_to_its_endpoints",
            "marked_packets_are_masked",
            "every_endpoint_gets_the_same_share",
        ),
        "the rules of {node} lack",
        needs={"proxy": "iptables"},
    ),
    Fault(
        "a Local service is not dropped where it has no pod",
        on_other(
            "iptables-save -c -t filter >$saved; grep -v 'has no local endpoints' $saved | iptables-restore -c",
            "iptables-restore -c <$saved; rm $saved",
        ),
        ("a_local_service_stays_on_its_node",),
        "{other}, without a pod of {local}, ends port 30081 in ACCEPT",
        needs={"proxy": "iptables"},
    ),
    Fault(
        "nobody remembers where a client was sent",
        rules("nat", "grep -v -- '--rcheck'"),
        ("a_sticky_service_remembers_its_clients",),
        "keeps clients by nothing",
        traffic=("a_client_stays_with_its_endpoint",),
        needs={"proxy": "iptables"},
    ),
)
