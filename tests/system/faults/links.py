"""Faults of interfaces and addresses, of nodes and of pods, and of what the CNI's plugins are given."""

from __future__ import annotations

from tests.system.faults.commands import in_pod, on_node
from tests.system.faults.fault import FLANNEL, FLANNEL_VXLAN, Fault

FAULTS = (
    Fault(
        "a node's address is in no network",
        on_node(
            "ip route show default >$saved; ip address add {address}/32 dev eth0; "
            "ip address del {address}/{prefix} dev eth0; ip route replace {network} dev eth0 proto kernel scope link "
            "src {address}; ip route replace $(cat $saved)",
            "ip address add {address}/{prefix} brd + dev eth0; ip address del {address}/32 dev eth0; "
            "ip route replace $(cat $saved); rm $saved",
        ),
        ("every_node_has_its_own_address",),
        "{node} has no {address} in {network} on eth0",
    ),
    Fault(
        "a pod has another address than Kubernetes knows",
        in_pod(
            "sh -c 'ip address del {pod_address}/24 dev eth0; ip address add {spare}/24 dev eth0; "
            "ip route add default via {bridge}; ip route add {pods} via {bridge}'",
            "sh -c 'ip address flush dev eth0 scope global; ip address add {pod_address}/24 brd + dev eth0; "
            "ip route add default via {bridge}; ip route add {pods} via {bridge}'",
        ),
        ("every_pod_has_its_own_address",),
        "has {pod_address}, the address of {pod}",
        needs=FLANNEL,
        alone=True,
    ),
    Fault(
        "a pod has a public address",
        in_pod("ip address add 8.8.8.8/32 dev eth0", "ip address del 8.8.8.8/32 dev eth0"),
        ("all_addresses_are_private",),
        "eth0 of {pod} has the public address 8.8.8.8",
    ),
    Fault(
        "a pod has no loopback address",
        in_pod("ip address del 127.0.0.1/8 dev lo", "ip address add 127.0.0.1/8 dev lo"),
        ("every_namespace_has_its_own_loopback",),
        "{pod} has no 127.0.0.1",
    ),
    Fault(
        "a veth that belongs to no pod",
        on_node("ip link add stray type veth peer name stray2", "ip link del stray"),
        ("a_node_has_the_interfaces_of_its_cni",),
        "veths for",
    ),
    Fault(
        "a veth is unplugged",
        on_node("ip link set {host_end} down", "ip link set {host_end} up"),
        ("a_pod_hangs_on_a_veth_pair",),
        "one end of the pair of {pod} is down",
    ),
    Fault(
        "a host end left the bridge",
        on_node(
            "ip link set {host_end} nomaster",
            "ip link set {host_end} master cni0; bridge link set dev {host_end} hairpin on",
        ),
        ("the_host_end_is_a_port_of_the_bridge",),
        "is a port of no bridge, not of cni0",
        traffic=("pods_of_one_node_need_no_gateway",),
        needs=FLANNEL,
    ),
    Fault(
        "a port of the bridge lets nothing out where it came in",
        on_node("bridge link set dev {host_end} hairpin off", "bridge link set dev {host_end} hairpin on"),
        ("the_host_end_is_a_port_of_the_bridge",),
        "{host_end}, the end of {pod} on {node}, has no hairpin mode",
        needs=FLANNEL,
    ),
    Fault(
        "the MTU of cni0 is wrong",
        on_node("ip link set cni0 mtu 1400", "ip link set cni0 mtu 1450"),
        ("encapsulation_leaves_room_in_the_mtu",),
        "cni0 on {node} has the MTU 1400, not 1450",
        needs=FLANNEL_VXLAN,
    ),
    Fault(
        "another CNI's file comes first",
        on_node(
            'echo \'{{"cniVersion": "1.0.0", "name": "x", "type": "ptp"}}\' >/etc/cni/net.d/00-x.conf',
            "rm /etc/cni/net.d/00-x.conf",
        ),
        ("the_runtime_is_told_which_plugin_to_call",),
        "00-x.conf, not 10-flannel.conflist",
        needs=FLANNEL,
    ),
    Fault(
        "IPAM does not know of an address",
        on_node(
            "mv /var/lib/cni/networks/cbr0/{pod_address} $saved",
            "mv $saved /var/lib/cni/networks/cbr0/{pod_address}",
        ),
        ("ipam_gave_each_pod_its_address",),
        "has not given {pod_address} to the eth0 of {pod}",
        needs=FLANNEL,
    ),
)
