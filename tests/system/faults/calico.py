"""Faults of labs with Calico."""

from __future__ import annotations

from hoplab.observe.facts import bgp
from tests.system.faults.commands import on_node
from tests.system.faults.fault import CALICO, Fault

FAULTS = (
    Fault(
        "a bridge beside Calico",
        on_node("ip link add br0 type bridge", "ip link del br0"),
        ("calico_has_no_bridge",),
        "{node} has 1 bridge: br0",
        needs=CALICO,
    ),
    Fault(
        "a pod has no route of its own",
        on_node(  # with its metric, which only Felix knows
            "ip route show {pod_address} >$saved; ip route del {pod_address} dev {host_end}",
            "ip route add $(cat $saved); rm $saved",
        ),
        ("a_node_routes_its_own_range_to_its_pods", "the_longest_prefix_decides"),
        "{node} has no route {pod_address}/32 dev {host_end}",
        needs=CALICO,
    ),
    Fault(
        "BIRD does not know its own block",
        on_node(bgp.ask("disable static1"), bgp.ask("enable static1")),
        (
            "an_address_that_no_pod_has_leads_nowhere",
            "a_node_routes_every_other_range_to_its_node",
            "the_longest_prefix_decides",
            "kinds_of_routes",
        ),
        "{node} has no route blackhole {own_block} proto bird",
        needs={**CALICO, "backend": "bgp"},
    ),
    Fault(
        "a BGP session is closed by hand",
        on_node(bgp.ask("disable {mesh}"), bgp.ask("enable {mesh}")),
        (
            "bgp_tells_the_nodes_of_each_other",
            "a_node_routes_every_other_range_to_its_node",
            "the_longest_prefix_decides",
            "kinds_of_routes",
        ),
        "is not established: Mesh_",  # at either end; the first node in the list is named
        needs={**CALICO, "backend": "bgp"},
    ),
    Fault(
        "what is for a pod elsewhere goes by eth0 and is not wrapped",
        on_node("ip route add {other_pod} via {other_address} dev eth0", "ip route del {other_pod} dev eth0"),
        ("the_longest_prefix_decides",),
        "by `{other_pod}/32 via {other_address} dev eth0`, not by `{block} via {other_address} dev tunl0",
        needs={**CALICO, "backend": "ipip"},
    ),
    Fault(
        "vxlan.calico has another MAC than announced",
        on_node(  # the kernel forgets the neighbours of an interface whose MAC changes
            "cat /sys/class/net/vxlan.calico/address >$saved; ip neigh show dev vxlan.calico >$saved.neigh; "
            "ip link set vxlan.calico address 02:00:00:00:00:01",
            "ip link set vxlan.calico address $(cat $saved); "
            "while read -r ip _ mac _; do ip neigh replace $ip lladdr $mac dev vxlan.calico nud permanent; done "
            "<$saved.neigh; rm $saved $saved.neigh",
        ),
        ("the_announced_mac_is_the_interfaces", "who_unwraps_is_written_down"),
        "but vxlan.calico has 02:00:00:00:00:01",
        needs={**CALICO, "backend": "vxlan"},
    ),
    Fault(
        "a host end answers for nobody",
        on_node("sysctl -qw net.ipv4.conf.{host_end}.proxy_arp=0", "sysctl -qw net.ipv4.conf.{host_end}.proxy_arp=1"),
        ("calicos_gateway_is_nobodys_address",),
        "{host_end} of {node} answers for no other",
        needs=CALICO,
    ),
    Fault(
        "somebody owns 169.254.1.1",
        on_node("ip address add 169.254.1.1/32 dev lo", "ip address del 169.254.1.1/32 dev lo"),
        ("calicos_gateway_is_nobodys_address", "all_addresses_are_private"),
        "169.254.1.1 is on lo of {node}",
        needs=CALICO,
    ),
)
