"""Faults of a host itself: values of its kernel, and what is left over of pods that are gone."""

from __future__ import annotations

from tests.system.faults.commands import on_node
from tests.system.faults.fault import FLANNEL, FLANNEL_VXLAN, Broken, Fault


def sysctl(path: str, value: int) -> Broken:
    """A switch of the kernel gets another value, then its own again."""
    file = f"/proc/sys/net/{path}"
    return on_node(f"cat {file} >$saved; echo {value} >{file}", f"cat $saved >{file}; rm $saved")


OF_A_DEAD_POD = "-p udp --orig-src {pod_address} --orig-dst {dns} --orig-port-src 5353 --orig-port-dst 53"

FAULTS = (
    Fault(  # felix 2082
        "the reverse-path filter is strict everywhere",
        sysctl("ipv4/conf/all/rp_filter", 1),
        ("no_packet_comes_by_a_wrong_interface",),
        "net.ipv4.conf.all.rp_filter is 1 on {node}, and no interface can be exempt",
        needs=FLANNEL,
        alone=True,
    ),
    Fault(
        "an interface does not forward",
        sysctl("ipv4/conf/flannel.1/forwarding", 0),
        ("nodes_forward",),
        "net.ipv4.conf.flannel.1.forwarding is 0 on {node}",
        traffic=("pod_to_pod_is_never_translated",),
        needs=FLANNEL_VXLAN,
    ),
    Fault(  # kubernetes 71261
        "the conntrack table is full",
        sysctl("netfilter/nf_conntrack_max", 50),
        ("conntrack_has_room",),
        "the conntrack table of {node} is",
        alone=True,
    ),
    Fault(  # kubernetes 125467
        "a UDP flow is kept to an endpoint that is gone",
        on_node(
            f"conntrack -I {OF_A_DEAD_POD} --reply-src {{spare}} --reply-dst {{pod_address}} --reply-port-src 53 "
            "--reply-port-dst 5353 --timeout 3600 --status SEEN_REPLY,ASSURED",
            f"conntrack -D {OF_A_DEAD_POD}",
        ),
        ("udp_flows_lead_to_endpoints",),
        "a flow to {dns}:53 goes to {spare}:53, which is no endpoint of kube-system/kube-dns:dns",
        needs=FLANNEL,
    ),
    Fault(
        "IPAM keeps the address of a pod that is gone",
        on_node("printf 'gone\\r\\neth0' >/var/lib/cni/networks/cbr0/{spare}", "rm /var/lib/cni/networks/cbr0/{spare}"),
        ("every_reserved_address_is_a_pods",),
        "on {node} IPAM keeps {spare} for pods that are gone",
        needs=FLANNEL,
    ),
    Fault(
        "a host port leads to a pod that is gone",
        on_node(
            "iptables -t nat -N CNI-DN-gone; iptables -t nat -A CNI-DN-gone -p tcp -m tcp --dport 8081 "
            "-j DNAT --to-destination {spare}:80; iptables -t nat -A CNI-HOSTPORT-DNAT -p tcp -j CNI-DN-gone",
            "iptables -t nat -D CNI-HOSTPORT-DNAT -p tcp -j CNI-DN-gone; iptables -t nat -F CNI-DN-gone; "
            "iptables -t nat -X CNI-DN-gone",
        ),
        ("host_ports_lead_to_pods",),
        "-j DNAT --to-destination {spare}:80` on {node} leads to {spare}, which no pod there has",
        needs={**FLANNEL, "ingress": True},
    ),
    Fault(
        "a node is behind two MACs",
        on_node(
            "bridge fdb add 02:00:00:00:00:01 dev flannel.1 dst {other_address} self permanent",
            "bridge fdb del 02:00:00:00:00:01 dev flannel.1 dst {other_address} self",
        ),
        ("every_fdb_entry_is_of_one_node",),
        "on {node} {other_address} is behind two MACs at once",
        needs=FLANNEL_VXLAN,
    ),
)
