"""Faults of a host itself: values of its kernel, and what is left over of pods that are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.system.faults.commands import on_node
from tests.system.faults.fault import FLANNEL, FLANNEL_VXLAN, Broken, Fault
from tests.system.faults.site import Site


def sysctl(path: str, value: int) -> Broken:
    """A switch of the kernel gets another value, then its own again."""
    file = f"/proc/sys/net/{path}"
    return on_node(f"cat {file} >$saved; echo {value} >{file}", f"cat $saved >{file}; rm $saved")


def unnoticed(path: str, edit: Callable[[dict[str, Any]], None]) -> Broken:
    """An object is another one, and what reads it has not followed yet: a ConfigMap reaches its pods after a minute."""

    @contextmanager
    def hurt(site: Site) -> Iterator[None]:
        with site.session.edited(path, edit):
            yield

    return hurt


def to_itself(config: dict[str, Any]) -> None:
    config["data"]["Corefile"] = config["data"]["Corefile"].replace("/etc/resolv.conf", "127.0.0.1")


COREFILE = "/api/v1/namespaces/kube-system/configmaps/coredns"
KUBELET = "/var/lib/kubelet/config.yaml"
SANDBOX = (
    "file=$(dirname $(grep -lx $(basename {pod}) "
    "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/*/hostname))/resolv.conf; "
)
UPTIME = "$(cut -d. -f1 /proc/uptime)"  # seconds, of a clock that nothing sets
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
        sysctl("netfilter/nf_conntrack_max", 10),
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
    Fault(
        "the clock of a node is ahead",
        on_node(
            f"echo $(( $(date +%s) - {UPTIME} )) >$saved; date -s @$(( $(date +%s) + 600 ))",
            f"date -s @$(( $(cat $saved) + {UPTIME} )); rm $saved",
        ),
        ("clocks_agree",),
        "s ahead of this machine's",
        alone=True,
    ),
    Fault(  # kubeadm 1162
        "CoreDNS forwards to itself",
        unnoticed(COREFILE, to_itself),
        ("coredns_does_not_ask_itself",),
        "CoreDNS forwards . to 127.0.0.1, which is CoreDNS itself",
        alone=True,
    ),
    Fault(  # kubernetes 69487
        "a kubelet has another clusterDNS",
        on_node(
            f"cp {KUBELET} $saved; sed -i '/^clusterDNS:/,/^[^ -]/s/{{dns}}/203.0.113.53/' {KUBELET}",
            f"cat $saved >{KUBELET}; rm $saved",
        ),
        ("pods_ask_the_clusters_dns",),
        "the kubelet of {node} gives new pods the DNS server 203.0.113.53, not {dns}",
    ),
    Fault(
        "a pod asks another DNS server",
        on_node(
            SANDBOX + "cp $file $saved; sed -i 's/{dns}/203.0.113.53/' $file", SANDBOX + "cat $saved >$file; rm $saved"
        ),
        ("pods_ask_the_clusters_dns",),
        "resolv.conf of pod {pod} on {node} names 203.0.113.53, not {dns}",
    ),
)
