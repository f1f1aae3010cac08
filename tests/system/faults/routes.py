"""Faults of routes, neighbours and forwarding, and of the ways between nodes."""

from __future__ import annotations

from hoplab.verify import workload
from tests.system.faults.commands import in_pod, on_node
from tests.system.faults.fault import FLANNEL, FLANNEL_VXLAN, Fault
from tests.system.faults.objects import posted

FAULTS = (
    Fault(
        "the route to the node's own pods is gone",
        on_node("ip route del {own} dev cni0", "ip route add {own} dev cni0 proto kernel scope link src {bridge}"),
        ("a_node_routes_its_own_range_to_its_pods", "the_longest_prefix_decides"),
        "{node} has no route {own} dev cni0",
        needs=FLANNEL,
    ),
    Fault(
        "the route to the other node's pods is gone",
        on_node("ip route del {remote}", "ip route add {remote} via {vtep} dev flannel.1 onlink"),
        ("a_node_routes_every_other_range_to_its_node", "the_longest_prefix_decides", "kinds_of_routes"),
        "{node} has no route {remote} via {vtep} dev flannel.1 onlink",
        traffic=("pod_to_pod_is_never_translated",),
        needs=FLANNEL_VXLAN,
    ),
    Fault(
        "an FDB entry is gone",
        on_node(
            "bridge fdb del {vtep_mac} dev flannel.1 dst {other_address} self",
            "bridge fdb add {vtep_mac} dev flannel.1 dst {other_address} self permanent",
        ),
        ("who_unwraps_is_written_down",),
        "{node} has no FDB entry {vtep_mac} dev flannel.1 dst {other_address}",
        traffic=("between_nodes_a_packet_travels_wrapped",),
        needs=FLANNEL_VXLAN,
    ),
    Fault(
        "a neighbour entry is gone",
        on_node(
            "ip neigh del {vtep} dev flannel.1",
            "ip neigh replace {vtep} lladdr {vtep_mac} dev flannel.1 nud permanent",
        ),
        ("who_unwraps_is_written_down",),
        "{node} has no neighbour {vtep} dev flannel.1",
        needs=FLANNEL_VXLAN,
    ),
    Fault(
        "flannel.1 has another MAC than announced",
        on_node(  # the kernel forgets the neighbours of an interface whose MAC changes
            "ip link set flannel.1 address 02:00:00:00:00:01",
            "ip link set flannel.1 address {own_mac}; "
            "ip neigh replace {vtep} lladdr {vtep_mac} dev flannel.1 nud permanent",
        ),
        ("the_announced_mac_is_the_interfaces", "who_unwraps_is_written_down"),
        "but flannel.1 has 02:00:00:00:00:01",
        needs=FLANNEL_VXLAN,
    ),
    Fault(
        "a longer prefix leads astray",
        on_node("ip route add {half} via {gateway} dev eth0", "ip route del {half} via {gateway} dev eth0"),
        ("the_longest_prefix_decides",),
        "by `{half} via {gateway} dev eth0`, not by",
        needs=FLANNEL,
    ),
    Fault(
        "the default route is gone",
        on_node("ip route show default >$saved; ip route del default", "ip route add $(cat $saved); rm $saved"),
        ("a_nodes_gateway_is_the_labs", "kinds_of_routes", "the_longest_prefix_decides"),
        "{node} has the default route None",
    ),
    Fault(
        "another table is asked last",
        on_node("ip rule add pref 40000 table main", "ip rule del pref 40000 table main"),
        ("the_tables_are_asked_in_order",),
        "{node} ends with default and main",
    ),
    Fault(
        "forwarding is off",
        on_node("sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1"),
        ("nodes_forward",),
        "net.ipv4.ip_forward is 0 on {node}",
        traffic=("pod_to_pod_is_never_translated",),
    ),
    Fault(
        "a pod's gateway is not the bridge",
        in_pod("ip route replace default via {spare} dev eth0", "ip route replace default via {bridge} dev eth0"),
        ("a_pods_gateway_is_its_nodes_bridge",),
        "not one via {bridge} dev eth0",
        traffic=("the_outside_sees_the_nodes_address",),
        needs=FLANNEL,
    ),
    Fault(
        "the gateway's MAC is written down, not learned",
        on_node(
            "ip neigh replace {gateway} dev eth0 nud permanent "
            "lladdr $(ip neigh show {gateway} dev eth0 | sed 's/.*lladdr //; s/ .*//')",
            "ip neigh del {gateway} dev eth0",
        ),
        ("a_nodes_gateway_is_the_labs",),
        "{node} has learned no MAC for {gateway}",
    ),
    Fault(
        "a pod reaches its neighbours by the gateway",
        in_pod(
            "sh -c 'ip route add {bridge} dev eth0; ip route replace {own} via {bridge} dev eth0'",
            "sh -c 'ip route replace {own} dev eth0 proto kernel scope link src {pod_address}; "
            "ip route del {bridge} dev eth0'",
        ),
        ("the_same_subnet_goes_direct",),
        "{pod} does not reach {own} directly",
        needs=FLANNEL,
    ),
    Fault(
        "a pod's address is of another node's range",
        posted(
            "/api/v1/namespaces/default/pods",
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "stray"},
                "spec": {
                    "nodeName": "{node}",
                    "automountServiceAccountToken": False,
                    "containers": [{"name": "echo", "image": workload.IMAGE, "imagePullPolicy": "Never"}],
                },
            },
            {
                "phase": "Running",
                "hostIP": "{address}",
                "hostIPs": [{"ip": "{address}"}],
                "podIP": "10.244.200.9",
                "podIPs": [{"ip": "10.244.200.9"}],
            },
        ),
        (
            "pods_are_in_their_nodes_range",
            "every_pod_has_its_own_address",
            "a_node_has_the_interfaces_of_its_cni",
        ),
        "default/stray",
    ),
    Fault(
        "the range's last address is not for broadcast",
        on_node(
            "ip route del table local broadcast {last} dev cni0",
            "ip route add table local broadcast {last} dev cni0 proto kernel scope link src {bridge}",
        ),
        ("a_nodes_range_has_its_ends",),
        "is no broadcast address",
        needs=FLANNEL,
    ),
    Fault(
        "the route to a host-gw neighbour's pods is gone",
        on_node("ip route del {remote}", "ip route add {remote} via {other_address} dev eth0"),
        ("a_node_routes_every_other_range_to_its_node", "the_longest_prefix_decides", "kinds_of_routes"),
        "{node} has no route {remote} via {other_address} dev eth0",
        traffic=("pod_to_pod_is_never_translated",),
        needs={"backend": "host-gw"},
    ),
    Fault(
        "what is for other nodes' pods is not given to WireGuard",
        on_node("ip route del {pods} dev flannel-wg", "ip route add {pods} dev flannel-wg scope link"),
        ("a_node_routes_every_other_range_to_its_node", "the_longest_prefix_decides", "kinds_of_routes"),
        "{node} has no route {pods} dev flannel-wg",
        traffic=("pod_to_pod_is_never_translated",),
        needs={"backend": "wireguard"},
    ),
    Fault(
        "WireGuard does not know whose a range is",
        on_node(
            "wg set flannel-wg peer $(wg show flannel-wg peers) allowed-ips 203.0.113.0/24",
            "wg set flannel-wg peer $(wg show flannel-wg peers) allowed-ips {remote}",
        ),
        ("who_decrypts_is_written_down",),
        "{node} has no peer of flannel-wg, endpoint {other_address}:51820, allowed ips {remote}",
        traffic=("between_nodes_a_packet_travels_wrapped",),
        needs={"backend": "wireguard"},
    ),
)
