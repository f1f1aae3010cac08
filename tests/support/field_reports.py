"""Public reports of people who run such clusters, and what verification makes of each: docs/field-reports.md.

A report that a recording can show has ``broken``, one that a system test makes on real machines the name of its fault.
One of an ordinary host, or of an input that was read wrongly, has the test that reads it. One with neither is not
checked yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hoplab.observe.snapshot import Snapshot
from tests.support.edited import dns, filters, flannel, hosts, ingress_classes, machines, tls
from tests.support.edits import Fault


@dataclass(frozen=True)
class FaultReport:
    """A fault that verification has to name."""

    number: str
    source: str  # the public project and the number of its issue
    happened: str
    broken: Callable[[], Snapshot] | None = None
    lesson: str = ""  # whose failure is named first
    says: str = ""  # what that says, where it takes packets to notice
    live: str = ""  # the name of the same fault in tests/system/faults


def of(faults: Sequence[Fault], name: str) -> tuple[Callable[[], Snapshot], str]:
    """The lab with an edited fault, and the lesson that is named first."""
    fault = next(fault for fault in faults if fault.name == name)
    return fault.broken, fault.named_first[0]


FAULTS = (
    FaultReport(
        "A01",
        "flannel 1279, 2152",
        "The outer UDP checksum of VXLAN is wrong, the receiver drops it",
        lesson="between_nodes_a_packet_travels_wrapped",
        says="hoplab-verify/echo-68rvn does not answer hoplab-verify/echo-88rnw: curl: (28) Connection timed out after"
        " 10011 milliseconds; worker2 counted 4 UDP checksum errors meanwhile",
        live="VXLAN packets leave with a wrong checksum",
    ),
    FaultReport(
        "A02",
        "felix 2082",
        "rp_filter is on",
        *of(hosts.FAULTS, "the reverse-path filter is strict everywhere"),
        live="the reverse-path filter is strict everywhere",
    ),
    FaultReport(
        "A04",
        "flannel 1704",
        "The port of VXLAN is blocked",
        *of(filters.FAULTS, "the port of VXLAN is blocked"),
        live="the port of VXLAN is blocked",
    ),
    FaultReport(
        "A05b",
        "flannel 699, 609",
        "FORWARD drops what pods send",
        *of(filters.FAULTS, "FORWARD drops what pods send to pods"),
        live="FORWARD drops what pods send to pods",
    ),
    FaultReport(
        "A05b",
        "kubernetes 108718",
        "The policy of FORWARD is DROP",
        *of(filters.FAULTS, "a policy is DROP where no rule accepts"),
    ),
    FaultReport(
        "A06",
        "kubernetes 109811",
        "Tables of iptables-legacy beside those of iptables-nft",
        *of(filters.FAULTS, "a rule of iptables-legacy drops what pods send"),
        live="a rule of iptables-legacy drops what pods send",
    ),
    FaultReport(
        "A07",
        "flannel 2055",
        "A firewall's own table of nftables rejects",
        *of(filters.FAULTS, "a firewall's own table rejects what it does not know"),
        live="a firewall's own table rejects what it does not know",
    ),
    FaultReport(
        "A08",
        "kubernetes 71261",
        "The table of connections is full",
        *of(hosts.FAULTS, "the conntrack table is full"),
        live="the conntrack table is full",
    ),
    FaultReport(
        "A09",
        "kubernetes 125467",
        "A UDP flow is kept to an endpoint that is gone",
        *of(hosts.FAULTS, "a UDP flow is kept to an endpoint that is gone"),
        live="a UDP flow is kept to an endpoint that is gone",
    ),
    FaultReport(
        "A10",
        "kubeadm 1162",
        "CoreDNS forwards to itself",
        *of(dns.FAULTS, "CoreDNS forwards to its loopback"),
        live="CoreDNS forwards to itself",
    ),
    FaultReport("A11", "kubeadm 31", "Nodes have the same MAC", *of(machines.FAULTS, "two nodes have the same MAC")),
    FaultReport(
        "A11",
        "kubeadm 31",
        "Nodes have the same machine-id",
        *of(machines.FAULTS, "two nodes have the same machine-id"),
    ),
    FaultReport(
        "A11", "kubeadm 31", "Nodes have the same product UUID", *of(machines.FAULTS, "two nodes have the same UUID")
    ),
    FaultReport(
        "A12",
        "flannel 1011, 1614",
        "Large packets do not arrive: a black hole of the path MTU",
        lesson="a_packet_of_full_size_arrives_in_one_piece",
        says="from hoplab-verify/echo-w8kjg on worker1 to hoplab-verify/echo-lm2p5 on worker2 1450 bytes do not arrive"
        " in one piece and return, 1280 do",
        live="large VXLAN packets are dropped",
    ),
    FaultReport(
        "A20",
        "kubernetes 94754",
        "A newer iptables wrote the rules",
        *of(filters.FAULTS, "a rule is of another version of iptables"),
    ),
    FaultReport(
        "A21",
        "kilo 402",
        "iptables cannot list a table that nft wrote",
        *of(filters.FAULTS, "iptables cannot list a table"),
    ),
    FaultReport(
        "A22",
        "tailscale 19876",
        "A policy rule takes what is for pods",
        *of(flannel.FAULTS, "a rule takes what is for pods"),
    ),
    FaultReport(
        "A23",
        "metallb 2274",
        "A label keeps every node from announcing an address",
        *of(machines.FAULTS, "every node is excluded from load balancers"),
    ),
    FaultReport(
        "A26",
        "ingress-nginx 7600",
        "Two IngressClasses are the default",
        *of(ingress_classes.FAULTS, "two classes are the default"),
    ),
    FaultReport(
        "A26",
        "ingress-nginx 7600",
        "No IngressClass is the default, and an Ingress names none",
        *of(ingress_classes.FAULTS, "no class is the default"),
    ),
    FaultReport(
        "A27", "nginx/kubernetes-ingress 369", "A certificate has expired", *of(tls.FAULTS, "a certificate has expired")
    ),
    FaultReport(
        "A27",
        "nginx/kubernetes-ingress 369",
        "A TLS secret is of another type",
        *of(tls.FAULTS, "the secret of a site is of another type"),
    ),
    FaultReport(
        "A28",
        "ingress-nginx 1824, 5167",
        "Large bodies and idle connections are cut",
        lesson="bodies_and_silence_have_limits",
        says="apps asks for 8m by nginx.ingress.kubernetes.io/proxy-body-size, but ingress-readable/ingress-df7xz has"
        " client_max_body_size 1m (nginx's default)",
        live="an Ingress asks for larger bodies in another controller's words",
    ),
    FaultReport(
        "A50",
        "kubernetes 69487",
        "The kubelet's clusterDNS is another one",
        *of(dns.FAULTS, "a kubelet has another clusterDNS"),
        live="a kubelet has another clusterDNS",
    ),
    FaultReport(
        "A56",
        "flannel 2116",
        "Pods do not reach their own node",
        *of(filters.FAULTS, "pods do not reach their own node"),
        live="pods do not reach their own node",
    ),
)


@dataclass(frozen=True)
class OrdinaryReport:
    """Something healthy that was called broken, or an input that was read wrongly, and the test that has it now."""

    number: str
    what: str
    test: str  # the file, below tests/unit
    words: tuple[str, ...]  # which are in it


ORDINARY_LABS, RULES = "lessons/test_ordinary_labs.py", "lessons/test_claims_filters.py"
HOSTS, IPTABLES = "observe/facts/test_ordinary_hosts.py", "observe/facts/test_iptables.py"

HEALTHY = (
    OrdinaryReport("F1", "`-m state --state RELATED,ESTABLISHED` in FORWARD", RULES, ("-m state --state RELATED",)),
    OrdinaryReport(
        "F2", "Targets that do not end the walk: CONNMARK, SET, TEE, DSCP", RULES, ("CONNMARK --save-mark",)
    ),
    OrdinaryReport(
        "F4", "An EndpointSlice without conditions", ORDINARY_LABS, ("a slice written by hand has no conditions",)
    ),
    OrdinaryReport(
        "F5",
        "A LoadBalancer with an address of each family",
        ORDINARY_LABS,
        ("a balancer's service has addresses of both families",),
    ),
    OrdinaryReport("F7", "A multipath route", ORDINARY_LABS, ("a route has several next hops",)),
    OrdinaryReport("F9", "`-s 10.0.0.0/255.0.255.0`", RULES, ("-s 10.0.0.0/255.0.255.0",)),
    OrdinaryReport(
        "F11", "A service with internalTrafficPolicy Local", ORDINARY_LABS, ("a service's traffic stays on its node",)
    ),
    OrdinaryReport(
        "F12", "A container of Docker on a node", ORDINARY_LABS, ("a container of Docker is beside the pods",)
    ),
    OrdinaryReport(
        "F12", "A pod with a second interface by Multus", ORDINARY_LABS, ("a pod has a second interface by Multus",)
    ),
    OrdinaryReport("A15b", "A backup file in /etc/cni/net.d", ORDINARY_LABS, ("net.d has a backup",)),
)

INPUTS = (
    OrdinaryReport("b02", "Quoted values that look like options", IPTABLES, ("test_a_value_may_look_like_an_option",)),
    OrdinaryReport(
        "b03",
        "Multipath routes, gateways of the other family, a route's MTU",
        HOSTS,
        ("test_a_route_has_several_next_hops", "test_a_gateway_may_be_of_the_other_family", "test_a_route_has_an_mtu"),
    ),
    OrdinaryReport("b04", "Routes that drop packets", HOSTS, ("test_a_route_that_drops_packets_has_no_next_hop",)),
    OrdinaryReport("b05", "Policy rules of VPNs, l3mdev", HOSTS, ("test_rules_have_their_selectors", "l3mdev")),
    OrdinaryReport(
        "b06",
        "VXLAN over IPv6, external VXLAN, a macvlan's parent",
        HOSTS,
        ("test_the_outer_addresses_of_vxlan", "test_an_interface_stands_on_its_parent"),
    ),
    OrdinaryReport("b07", "FDB entries with a next hop, VNI and port", HOSTS, ("test_fdb_entries_name_port_vni",)),
    OrdinaryReport("b12", "REDIRECT's port", "netfilter/test_iptables.py", ("REDIRECT --to-ports 15006",)),
    OrdinaryReport(
        "b14",
        "Sets whose members have netmasks, and `dst,dst`",
        "netfilter/test_address_sets.py",
        ("test_a_packet_is_in_a_set_or_not",),
    ),
    OrdinaryReport(
        "b16",
        "UNREPLIED, ASSURED, OFFLOAD and zones of connections",
        "observe/facts/test_conntrack.py",
        ("test_a_connection_without_reply_is_known", "test_zones_are_of_both_directions_or_of_one"),
    ),
    OrdinaryReport("b22", "The peer of a point-to-point link", HOSTS, ("test_the_range_of_a_point_to_point_link",)),
    OrdinaryReport(
        "b23",
        "Concatenations in anonymous sets; tables of every family",
        "observe/facts/test_nft_ruleset.py",
        ("test_expressions_of_a_firewall", "test_tables_of_every_family_are_read"),
    ),
)
