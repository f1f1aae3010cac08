"""Faults of filters: a rule at some hook on the way of a packet, in a table that some program keeps."""

from __future__ import annotations

from tests.system.faults.commands import on_node
from tests.system.faults.fault import FLANNEL, FLANNEL_VXLAN, Fault

ON_ONE_NODE = "nothing_on_the_way_drops_it_on_one_node"
BETWEEN_NODES = "nothing_on_the_way_drops_it_between_nodes"
FIREWALLD = (
    "table inet firewalld {{ chain filter_FORWARD {{ "
    "type filter hook forward priority 10; reject with icmpx type admin-prohibited; }}; }}"
)

FAULTS = (
    Fault(  # flannel 1704
        "the port of VXLAN is blocked",
        on_node("iptables -I INPUT -p udp --dport 8472 -j DROP", "iptables -D INPUT -p udp --dport 8472 -j DROP"),
        (BETWEEN_NODES,),
        "`-A INPUT -p udp -m udp --dport 8472 -j DROP` in iptables filter, chain INPUT, of {node} drops VXLAN",
        needs=FLANNEL_VXLAN,
        alone=True,
    ),
    Fault(  # flannel 699, 609
        "FORWARD drops what pods send to pods",
        on_node("iptables -I FORWARD -s {pods} -d {pods} -j DROP", "iptables -D FORWARD -s {pods} -d {pods} -j DROP"),
        (ON_ONE_NODE, BETWEEN_NODES),
        "`-A FORWARD -s {pods} -d {pods} -j DROP` in iptables filter, chain FORWARD, of {node} drops",
        alone=True,
    ),
    Fault(  # flannel 2055
        "a firewall's own table rejects what it does not know",
        on_node(f"nft '{FIREWALLD}'", "nft delete table inet firewalld"),
        (ON_ONE_NODE, BETWEEN_NODES),
        "`reject with icmpx admin-prohibited` in nftables inet firewalld, chain filter_FORWARD, of {node} drops",
        alone=True,
    ),
    Fault(  # kubernetes 109811
        "a rule of iptables-legacy drops what pods send",
        on_node(
            "iptables-legacy -I FORWARD -s {pods} -d {pods} -j DROP",
            "iptables-legacy -D FORWARD -s {pods} -d {pods} -j DROP",
        ),
        ("one_iptables_lists_all_rules", ON_ONE_NODE, BETWEEN_NODES),
        "{node} also has iptables-legacy tables with 1 rule",
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
)
