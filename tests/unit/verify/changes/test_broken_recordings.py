"""The difference of each broken recording from its healthy one names the broken object, in a few lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hoplab.observe.recording_format import load
from hoplab.verify.changes.events import difference
from hoplab.verify.changes.text import lines
from hoplab.verify.session import LabSession
from tests.support.files import RECORDINGS
from tests.support.recordings import healthy_of
from tests.system.faults import FAULTS, Fault, Site

BROKEN = RECORDINGS / "broken"
FILES = sorted(BROKEN.rglob("*.json"))
OF_FILE = {fault.file: fault for fault in FAULTS}
LINES = 8
NOBODY: Any = None
MISSING = re.compile(
    r"\{node\} has no (?:route|FDB entry|neighbour) (.+)"
)  # what such a fault removes, as it says itself

# The broken object of each other fault, as the difference says it
OBJECTS = {
    "a node's address is in no network": "{address}/32 dev eth0",
    "a pod has another address than Kubernetes knows": "{pod_address}/24 dev eth0 (broadcast {last}) -> {spare}/24",
    "a pod has a public address": "+ address 8.8.8.8/32 dev eth0",
    "a pod has no loopback address": "- address 127.0.0.1/8 dev lo",
    "a veth that belongs to no pod": "interface stray2@stray veth",
    "a veth is unplugged": "~ interface {host_end} of {pod}: state up -> down",
    "a host end left the bridge": "~ interface {host_end} of {pod}: master cni0 -> none",
    "a port of the bridge lets nothing out where it came in": "~ interface {host_end} of {pod}: hairpin on -> off",
    "the MTU of cni0 is wrong": "~ interface cni0: mtu 1450 -> 1400",
    "another CNI's file comes first": "+ CNI configuration /etc/cni/net.d/00-x.conf: x, plugins ptp",
    "IPAM does not know of an address": "- IPAM reservation {pod_address} of cbr0",
    "flannel.1 has another MAC than announced": "~ interface flannel.1: MAC {own_mac} -> 02:00:00:00:00:01",
    "vxlan.calico has another MAC than announced": "~ interface vxlan.calico: MAC ",
    "a longer prefix leads astray": "+ route {half} via {gateway} dev eth0",
    "the default route is gone": "- route default via {gateway} dev eth0",
    "another table is asked last": "+ policy rule 40000: from all lookup main",
    "forwarding is off": "~ sysctl net.ipv4.ip_forward: 1 -> 0",
    "forwarding of IPv6 is off": "~ sysctl net.ipv6.conf.all.forwarding: 1 -> 0",
    "a pod's gateway is not the bridge": "default via {bridge} dev eth0 -> default via {spare} dev eth0",
    "the gateway's MAC is written down, not learned": "~ neighbour {gateway} dev eth0: state learned -> PERMANENT",
    "a pod reaches its neighbours by the gateway": "{own} via {bridge} dev eth0",
    "a pod's address is of another node's range": "+ pod default/stray on {node}, 10.244.200.9",
    "the range's last address is not for broadcast": "- route of table local: broadcast {last}/32 dev cni0",
    "WireGuard does not know whose a range is": "allowed ips {remote} -> 203.0.113.0/24",
    "the MASQUERADE rule is gone": "- rule of iptables nat: -A FLANNEL-POSTRTG -s {pods} ! -d 224.0.0.0/4",
    "flannel's table of nftables masks nothing": "nftables ip flannel-ipv4, chain postrtg: ip saddr {pods}",
    "pod to pod is masqueraded": "+ rule of iptables nat: -A POSTROUTING -s {pods} -d {pods} -j MASQUERADE",
    "kube-dns has another ClusterIP": "~ service kube-system/kube-dns: clusterIP {dns} -> 10.96.0.11",
    "an interface has a ClusterIP": "+ address {dns}/32 dev lo",
    "nobody calls KUBE-SERVICES in PREROUTING": "- rule of iptables nat: -A PREROUTING ",
    "the rules of a KUBE-SVC chain are flushed": "- rule of iptables nat: -A {chain} ",
    "an endpoint gets nearly all connections": "--probability 0.50000000000 -> 0.99000000022: -A {chain}",
    "KUBE-MARK-MASQ does not mark": "- rule of iptables nat: -A KUBE-MARK-MASQ -j MARK",
    "KUBE-NODEPORTS is never reached": "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
    "the userspace proxy is back": "+ chain of iptables nat: KUBE-PORTALS-HOST",
    "a service without endpoints is not rejected": '"hoplab-verify/nobody has no endpoints"',
    "a node does not know a ClusterIP": '"default/kubernetes:https cluster IP"',
    "a Local service is not dropped where it has no pod": '"hoplab-verify/single-local has no local endpoints"',
    "nobody remembers where a client was sent": '"hoplab-verify/sticky -> ',
    "a service is in no map": "map service-ips: {cluster_ip} . tcp . 80 : goto {chain}",
    "a node is not Ready": "~ node {node}: state Ready -> NotReady (broken by hand)",
    "two nodes answer ARP for a balancer's address": "+ address {announced}/32 dev lo",
    "the reverse-path filter is strict everywhere": "~ sysctl net.ipv4.conf.all.rp_filter: 0 -> 1",
    "the conntrack table is full": "~ sysctl net.netfilter.nf_conntrack_max: 131072 -> 10",
    "IPAM keeps the address of a pod that is gone": "+ IPAM reservation {spare} of cbr0 for gone eth0",
    "an interface does not forward": "~ sysctl net.ipv4.conf.flannel.1.forwarding: 1 -> 0",
    "a UDP flow is kept to an endpoint that is gone": "+ dead connection a flow to {dns}:53 goes to {spare}:53",
    "a node is behind two MACs": "+ FDB entry 02:00:00:00:00:01 dev flannel.1 dst {other_address}",
    "a host port leads to a pod that is gone": "-j DNAT --to-destination {spare}:80",
    "nobody reads the queue of policies": "- packet queue 98, read by a program",
    "a BGP session is closed by hand": "~ BGP session {mesh}: state up -> ",
    "what is for a pod elsewhere goes by eth0 and is not wrapped": "+ route {other_pod}/32 via {other_address} dev",
    "a backend is taken out of the map": "~ service in Cilium's map {cluster_ip}:80: backends ",
    "nobody is said to have another node's pod's address": "- address in Cilium's map {other_pod}/32 identity ",
}


def broken_object(fault: Fault) -> str:
    found = MISSING.fullmatch(fault.says)
    return found[1] if found else OBJECTS[fault.name]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(BROKEN)))
def test_the_broken_object_is_named_in_a_few_lines(file: Path) -> None:
    healthy, fault = load(healthy_of(file)), OF_FILE[file.name]
    site = Site.of(LabSession(healthy, NOBODY, NOBODY, NOBODY, NOBODY))
    found = difference(healthy, load(file))
    said = list(lines(found))
    wanted = broken_object(fault).format(**site.words)
    assert any(wanted in line for line in said), f"{wanted!r} is not in\n" + "\n".join(said)
    assert len(said) <= LINES, "\n".join(said)
    assert not found.same and found.notes == ()


def test_each_fault_with_a_recording_has_its_object() -> None:
    names = {OF_FILE[file.name].name for file in FILES}
    says = {fault.name: fault.says for fault in FAULTS}
    assert {name for name in names if not MISSING.fullmatch(says[name])} == set(OBJECTS)
