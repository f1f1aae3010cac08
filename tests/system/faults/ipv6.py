"""Faults of labs with IPv6."""

from __future__ import annotations

from tests.system.faults.commands import in_pod, on_node, rules
from tests.system.faults.fault import FLANNEL6, FLANNEL6_VXLAN, Fault

FAULTS = (
    Fault(
        "a pod has no address of IPv6",
        in_pod("ip -6 address del {pod6}/64 dev eth0", "ip -6 address add {pod6}/64 dev eth0 nodad"),
        ("everybody_has_an_address_of_each_family",),
        "{pod} has no {pod6} on its eth0",
        needs=FLANNEL6,
    ),
    Fault(
        "a pod has no way out by IPv6",
        in_pod("ip -6 route del default", "ip -6 route add default via {bridge6} dev eth0"),
        ("a_pods_way_out_by_ipv6",),
        "not one via {bridge6} dev eth0",
        traffic=("the_outside_sees_the_nodes_ipv6_address",),
        needs=FLANNEL6,
    ),
    Fault(
        "the route of IPv6 to the other node's pods is gone",
        on_node("ip -6 route del {remote6}", "ip -6 route add {remote6} via {vtep6} dev flannel-v6.1 onlink"),
        ("nodes_route_ipv6_as_they_route_ipv4",),
        "{node} has no route {remote6} via {vtep6} dev flannel-v6.1 onlink",
        traffic=("pods_of_two_nodes_talk_by_ipv6",),
        needs=FLANNEL6_VXLAN,
    ),
    Fault(
        "forwarding of IPv6 is off",
        on_node("sysctl -qw net.ipv6.conf.all.forwarding=0", "sysctl -qw net.ipv6.conf.all.forwarding=1"),
        ("nodes_route_ipv6_as_they_route_ipv4",),
        "net.ipv6.conf.all.forwarding is 0 on {node}",
        traffic=("pods_of_two_nodes_talk_by_ipv6",),
        needs={"ipv6": True},
    ),
    Fault(
        "an FDB entry of IPv6 is gone",
        on_node(
            "bridge fdb del {vtep6_mac} dev flannel-v6.1 dst {other6} self",
            "bridge fdb add {vtep6_mac} dev flannel-v6.1 dst {other6} self permanent",
        ),
        ("who_unwraps_ipv6_is_written_down",),
        "{node} has no FDB entry {vtep6_mac} dev flannel-v6.1 dst {other6}",
        traffic=("pods_of_two_nodes_talk_by_ipv6",),
        needs=FLANNEL6_VXLAN,
    ),
    Fault(
        "the rules of a ClusterIP of IPv6 are flushed",
        on_node(
            "ip6tables-save -c -t nat >$saved; ip6tables -t nat -F {chain6}",
            "ip6tables-restore -c <$saved; rm $saved",
        ),
        ("a_service_of_both_families_has_two_addresses",),
        "leads to ACCEPT",
        traffic=("an_ipv6_cluster_ip_is_a_pod",),
        needs={"ipv6": True, "proxy": "iptables"},
    ),
    Fault(
        "nothing masks IPv6",
        rules("nat", "grep -vE -- '-A FLANNEL-POSTRTG -s .* ! -d ff.*MASQUERADE'", "ip6tables"),
        ("what_leaves_the_ipv6_pod_range_is_masqueraded",),
        "to {gateway6} ends in ACCEPT, not MASQUERADE",
        traffic=("the_outside_sees_the_nodes_ipv6_address",),
        needs=FLANNEL6,
    ),
)
