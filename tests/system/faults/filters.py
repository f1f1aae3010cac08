"""Faults of filters: a rule at some hook on the way of a packet, in a table that some program keeps."""

from __future__ import annotations

from tests.system.faults.commands import on_node
from tests.system.faults.fault import FLANNEL, FLANNEL_VXLAN, Fault

ON_ONE_NODE = "nothing_on_the_way_drops_it_on_one_node"
BETWEEN_NODES = "nothing_on_the_way_drops_it_between_nodes"
TO_OUTSIDE = "nothing_drops_what_a_pod_sends_to_the_outside"
THROUGH_SERVICES = (
    "nothing_drops_what_a_node_sends_to_a_service",
    "nothing_drops_what_comes_in_by_a_node_port",
    "nothing_drops_what_comes_in_by_a_load_balancer",
)
FIREWALLD = (
    "table inet firewalld {{ chain filter_FORWARD {{ "
    "type filter hook forward priority 10; reject with icmpx type admin-prohibited; }}; }}"
)

FAULTS = (
    Fault(  # flannel 1704
        "the port of VXLAN is blocked",
        on_node("iptables -I INPUT -p udp --dport 8472 -j DROP", "iptables -D INPUT -p udp --dport 8472 -j DROP"),
        (BETWEEN_NODES, *THROUGH_SERVICES),
        "`-A INPUT -p udp -m udp --dport 8472 -j DROP` in iptables filter, chain INPUT, of {node} drops VXLAN",
        needs=FLANNEL_VXLAN,
        alone=True,
    ),
    Fault(  # flannel 1011, 1614
        "large VXLAN packets are dropped",
        on_node(
            "iptables -I INPUT -p udp --dport 8472 -m length --length 1401:65535 -j DROP",
            "iptables -D INPUT -p udp --dport 8472 -m length --length 1401:65535 -j DROP",
        ),
        (),
        "1450 bytes do not arrive in one piece and return, 1280 do",
        traffic=("a_packet_of_full_size_arrives_in_one_piece",),
        needs=FLANNEL_VXLAN,
    ),
    Fault(  # flannel 1279, 2152
        "VXLAN packets leave with a wrong checksum",  # and its interface does not write the right one
        on_node(
            "ethtool -K eth0 tx off && tc qdisc add dev eth0 clsact && tc filter add dev eth0 egress protocol ip u32 "
            "match ip protocol 17 0xff match ip dport 8472 0xffff action pedit munge offset 26 u16 set 0xbeef",
            "tc qdisc del dev eth0 clsact; ethtool -K eth0 tx on",
        ),
        (),
        "UDP checksum errors meanwhile",
        traffic=("between_nodes_a_packet_travels_wrapped",),
        needs=FLANNEL_VXLAN,
    ),
    Fault(  # flannel 699, 609
        "FORWARD drops what pods send to pods",
        on_node("iptables -I FORWARD -s {pods} -d {pods} -j DROP", "iptables -D FORWARD -s {pods} -d {pods} -j DROP"),
        (ON_ONE_NODE, BETWEEN_NODES, *THROUGH_SERVICES),
        "`-A FORWARD -s {pods} -d {pods} -j DROP` in iptables filter, chain FORWARD, of {node} drops",
        needs=FLANNEL_VXLAN,
        alone=True,
    ),
    Fault(  # flannel 2055
        "a firewall's own table rejects what it does not know",
        on_node(f"nft '{FIREWALLD}'", "nft delete table inet firewalld"),
        (ON_ONE_NODE, BETWEEN_NODES, TO_OUTSIDE, *THROUGH_SERVICES),
        "`reject with icmpx admin-prohibited` in nftables inet firewalld, chain filter_FORWARD, of {node} drops",
        alone=True,
    ),
    Fault(  # kubernetes 109811
        "a rule of iptables-legacy drops what pods send",
        on_node(
            "iptables-legacy -I FORWARD -s {pods} -d {pods} -j DROP",
            "iptables-legacy -D FORWARD -s {pods} -d {pods} -j DROP",
        ),
        ("one_iptables_lists_all_rules", ON_ONE_NODE, BETWEEN_NODES, *THROUGH_SERVICES),
        "{node} also has iptables-legacy tables with 1 rule",
        needs=FLANNEL_VXLAN,
        first=ON_ONE_NODE,
        first_says="in iptables-legacy filter, chain FORWARD, of {node} drops",
        alone=True,
    ),
    Fault(  # flannel 2116
        "pods do not reach their own node",
        on_node(
            "iptables -I INPUT -i cni0 -m conntrack --ctstate NEW -j DROP",
            "iptables -D INPUT -i cni0 -m conntrack --ctstate NEW -j DROP",
        ),
        ("nothing_drops_what_a_pod_sends_to_its_node",),
        "`-A INPUT -i cni0 -m conntrack --ctstate NEW -j DROP` in iptables filter, chain INPUT, of {node} drops",
        needs=FLANNEL,
        alone=True,
    ),
    Fault(
        "replies from outside are dropped before they are for a pod again",
        on_node(
            "iptables -t mangle -I PREROUTING -s {gateway} -d {address} -p tcp --sport 80 -j DROP",
            "iptables -t mangle -D PREROUTING -s {gateway} -d {address} -p tcp --sport 80 -j DROP",
        ),
        (TO_OUTSIDE,),
        "-m tcp --sport 80 -j DROP` in iptables mangle, chain PREROUTING, of {node} drops a reply, tcp {gateway} to",
    ),
    Fault(
        "a node may not send to a service",
        on_node(
            "iptables -t mangle -I OUTPUT -d {cluster_ip} -j DROP",
            "iptables -t mangle -D OUTPUT -d {cluster_ip} -j DROP",
        ),
        ("nothing_drops_what_a_node_sends_to_a_service",),
        "`-A OUTPUT -d {cluster_ip}/32 -j DROP` in iptables mangle, chain OUTPUT, of {node} drops tcp {address}",
    ),
    Fault(
        "NodePorts are closed",
        on_node(
            "iptables -t mangle -I PREROUTING -i eth0 -p tcp --dport 30000:32767 -j DROP",
            "iptables -t mangle -D PREROUTING -i eth0 -p tcp --dport 30000:32767 -j DROP",
        ),
        ("nothing_drops_what_comes_in_by_a_node_port",),
        "--dport 30000:32767 -j DROP` in iptables mangle, chain PREROUTING, of {node} drops tcp {gateway} to {address}",
    ),
    Fault(
        "the port of the kubelet is closed",
        on_node(
            "iptables -I INPUT -i eth0 -p tcp --dport 10250 -j DROP",
            "iptables -D INPUT -i eth0 -p tcp --dport 10250 -j DROP",
        ),
        ("nothing_drops_what_the_api_server_sends_to_kubelets",),
        "--dport 10250 -j DROP` in iptables filter, chain INPUT, of {node} drops tcp",
    ),
)
