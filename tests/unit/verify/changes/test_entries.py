"""What of each fact is a change, how it is said, and what of it is noise."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from hoplab.observe.facts import discover
from hoplab.observe.snapshot import PLACES
from hoplab.verify.changes.compare import differing
from hoplab.verify.changes.entries import LEFT_OUT, READINGS
from hoplab.verify.changes.entry import Place
from hoplab.verify.changes.objects import workload
from hoplab.verify.changes.text import said
from tests.support.edited.tls import certificate
from tests.support.policy_table import queues
from tests.support.recordings import recording

OF_FACT = {reading.fact.name: reading for reading in READINGS}
SLICE = {
    "addressType": "IPv4",
    "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
    "ports": [{"name": "", "port": 8080}],
}


def differences(fact: str, before: str, after: str, *, momentary: bool = False) -> list[str]:
    """Return what is said of a fact that was one text and is another one."""
    reading = OF_FACT[fact]
    old, new = (reading.entries(reading.fact.parse(text)) for text in (before, after))
    return [said(change) for change in differing(Place("worker1"), old, new) if momentary or not change.momentary]


def listed(*items: Any) -> str:
    return json.dumps({"items": items})


def endpoints(*addresses: str, **conditions: bool) -> str:
    found = [{"addresses": [one], "conditions": conditions, "nodeName": "worker1"} for one in addresses]
    return listed({**SLICE, "endpoints": found})


def config(**more: Any) -> str:
    return f"==> /etc/cni/net.d/10-x.conflist <==\n{json.dumps({'name': 'x', **more})}\n"


def nat(*rules: str) -> str:
    return "\n".join(["*nat", ":PREROUTING ACCEPT [0:0]", ":ONE - [0:0]", *rules, "COMMIT", ""])


def table(*objects: dict[str, Any]) -> str:
    own = {"family": "ip", "table": "t"}
    known = [{"table": {"family": "ip", "name": "t"}}, {"chain": {**own, "name": "c", "handle": 1}}]
    return json.dumps(
        {"nftables": [*known, *({kind: {**own, **one}} for found in objects for kind, one in found.items())]}
    )


def rule(*expressions: Any, handle: int = 2, count: int = 0) -> dict[str, Any]:
    counter = {"counter": {"packets": count, "bytes": count}}
    return {"rule": {"chain": "c", "handle": handle, "expr": [counter, *expressions]}}


def matched(address: str) -> dict[str, Any]:
    left = {"payload": {"protocol": "ip", "field": "daddr"}}
    return {"match": {"op": "==", "left": left, "right": address}}


def pem(*names: str) -> str:
    return certificate(*names, ends=datetime(2027, 1, 2) + timedelta(hours=1))


LINK = {"ifindex": 3, "ifname": "cni0", "flags": ["UP"], "mtu": 1450, "address": "02:00:00:00:00:02"}
CASES = [
    ("links", [LINK], [{**LINK, "ifindex": 9}], []),
    ("links", [LINK], [{**LINK, "flags": []}], ["~ interface cni0: state up -> down"]),
    ("links", [LINK], [], ["- interface cni0 mtu 1450 up 02:00:00:00:00:02"]),
    (
        "links",
        [LINK],
        [{"ifname": "cni0", "flags": [], "mtu": 1400, "address": "02:00:00:00:00:03", "master": "br0", "group": "g"}],
        [
            "~ interface cni0: state up -> down, mtu 1450 -> 1400, MAC 02:00:00:00:00:02 -> 02:00:00:00:00:03, "
            "master none -> br0, and 1 more"
        ],
    ),
    (
        "addresses",
        [{"ifname": "lo", "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8}]}],
        [],
        ["- address 127.0.0.1/8 dev lo"],
    ),
    (
        "routes",
        [{"dst": "10.244.1.0/24", "gateway": "10.244.1.0", "dev": "flannel.1", "flags": ["onlink"]}],
        [{"dst": "10.244.1.0/24", "gateway": "192.168.77.1", "dev": "eth0", "flags": []}],
        ["~ route 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink -> 10.244.1.0/24 via 192.168.77.1 dev eth0"],
    ),
    ("nfqueue", queues(5), queues(7), []),
    ("nfqueue", queues(), "", ["- packet queue 98, read by a program"]),
    ("routes", [{"dst": "default", "dev": "eth0"}], [{"dst": "default", "dev": "eth0", "metric": 5}], None),
    (
        "rules",
        [{"priority": 0, "src": "all", "table": "local"}],
        [{"priority": 0, "src": "all", "table": "local"}, {"priority": 9, "src": "all", "fwmark": "0x1", "table": "7"}],
        ["+ policy rule 9: from all fwmark 0x1 lookup 7"],
    ),
    (
        "neighbours",
        [{"dst": "10.0.0.1", "dev": "eth0", "lladdr": "02:00:00:00:00:01", "state": ["REACHABLE"]}],
        [{"dst": "10.0.0.1", "dev": "eth0", "lladdr": "02:00:00:00:00:01", "state": ["STALE"]}],
        [],
    ),
    (
        "neighbours",
        [],
        [{"dst": "10.0.0.1", "dev": "eth0", "lladdr": "02:00:00:00:00:01", "state": ["REACHABLE"]}],
        [],
    ),
    (
        "neighbours",
        [{"dst": "10.0.0.1", "dev": "eth0", "lladdr": "02:00:00:00:00:01", "state": ["REACHABLE"]}],
        [{"dst": "10.0.0.1", "dev": "eth0", "lladdr": "02:00:00:00:00:09", "state": ["REACHABLE"]}],
        ["~ neighbour 10.0.0.1 dev eth0: lladdr 02:00:00:00:00:01 -> 02:00:00:00:00:09"],
    ),
    (
        "fdb",
        [{"mac": "02:00:00:00:00:01", "ifname": "flannel.1", "dst": "10.0.0.1", "state": "permanent"}],
        [{"mac": "02:00:00:00:00:01", "ifname": "flannel.1", "dst": "10.0.0.2", "state": "permanent"}],
        ["~ FDB entry 02:00:00:00:00:01 dev flannel.1: dst 10.0.0.1 -> 10.0.0.2"],
    ),
    ("fdb", [], [{"mac": "02:00:00:00:00:01", "ifname": "veth1", "master": "cni0", "state": ""}], []),
    ("fdb", [], [{"mac": "33:33:00:00:00:01", "ifname": "eth0", "state": "permanent"}], []),
    (
        "sysctls",
        "/proc/sys/net/ipv4/ip_forward:1\n/proc/sys/net/netfilter/nf_conntrack_count:3\n",
        "/proc/sys/net/ipv4/ip_forward:0\n/proc/sys/net/netfilter/nf_conntrack_count:9\n",
        ["~ sysctl net.ipv4.ip_forward: 1 -> 0"],
    ),
    (
        "ipam",
        "/var/lib/cni/networks/cbr0/10.244.0.5:4b8c01\n/var/lib/cni/networks/cbr0/10.244.0.5:eth0\n",
        "",
        ["- IPAM reservation 10.244.0.5 of cbr0 for 4b8c01 eth0"],
    ),
    (
        "cni_config",
        config(plugins=[{"type": "flannel"}, {"type": "portmap"}]),
        config(plugins=[{"type": "flannel"}]),
        ["~ CNI configuration /etc/cni/net.d/10-x.conflist: plugins flannel, portmap -> flannel"],
    ),
    (
        "sockets",
        'tcp LISTEN 0 9 *:10250 *:* users:(("kubelet",pid=1,fd=2))\n',
        'tcp LISTEN 0 9 127.0.0.1:40123 0.0.0.0:* users:(("containerd",pid=1,fd=2))\n',
        ["- listening socket tcp *:10250 kubelet"],
    ),
    (
        "bgp",
        "1002-Mesh_192_168_77_21 BGP      master   up     13:02:11    Established\n",
        "1002-Mesh_192_168_77_21 BGP      master   up     14:11:59    Established\n",
        [],
    ),
    (
        "bgp",
        "1002-Mesh_192_168_77_21 BGP      master   up     13:02:11    Established\n",
        "1002-Mesh_192_168_77_21 BGP      master   down   13:02:11\n",
        ["~ BGP session Mesh_192_168_77_21: state up -> down, info Established -> none"],
    ),
    (
        "wireguard",
        "wg0\tabcdefghij=\t10.1.0.0/24\n\nwg0\tabcdefghij=\t10.0.0.1:51820\n",
        "wg0\tabcdefghij=\t10.1.0.0/24\n\nwg0\tabcdefghij=\t(none)\n",
        ["~ WireGuard peer abcdefgh... of wg0: endpoint 10.0.0.1:51820 -> none"],
    ),
    ("units", "unit kubelet active\nhealth ok\n", "unit kubelet failed\nsaid boom\n", None),
    ("clock", "100 101 102", "500 500.5 501", []),
    ("clock", "1000 1001 1002", "1000 1601 1002", ["~ clock right -> 10 min ahead"]),
    ("clock", "1000 1001 1002", "1000 401 1002", ["~ clock right -> 10 min behind"]),
    ("clock", "1000 1601 1002", "1000 1701 1002", []),
    (
        "resolv_conf",
        "/etc/resolv.conf:nameserver 10.0.2.3\n",
        "/etc/resolv.conf:nameserver 10.0.2.9\n",
        ["~ resolv.conf of the node: nameserver 10.0.2.3 -> 10.0.2.9"],
    ),
    (
        "disks",
        "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda 100 50 50 50% /\n",
        "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda 100 60 40 60% /\n",
        [],
    ),
    (
        "disks",
        "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda 100 50 50 50% /\n",
        "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda 100 100 0 100% /\n",
        ["~ file system /: state not full -> full"],
    ),
    ("iptables", nat("[0:0] -A ONE -j ACCEPT"), nat("[7:420] -A ONE -j ACCEPT"), []),
    (
        "iptables",
        nat("-A ONE -m statistic --mode random --probability 0.50000000000 -j X"),
        nat("-A ONE -m statistic --mode random --probability 0.99000000022 -j X"),
        [
            "~ rule of iptables nat: --probability 0.50000000000 -> 0.99000000022 in "
            "-A ONE -m statistic --mode random --probability 0.99000000022 -j X"
        ],
    ),
    ("iptables", nat("-A ONE -j ACCEPT"), nat(), ["- rule of iptables nat: -A ONE -j ACCEPT"]),
    (
        "iptables",
        nat('-A ONE -m comment --comment "cali:eBnVcASLTvMFg9XV" -j DROP'),
        nat('-A ONE -m comment --comment "cali:2ighit1liLbAR9eb" -j DROP'),
        [],
    ),
    (
        "iptables",  # no packet matches both
        nat("-A ONE -p tcp -m tcp --dport 80 -j A", "-A ONE -p tcp -m tcp --dport 81 -j B"),
        nat("-A ONE -p tcp -m tcp --dport 81 -j B", "-A ONE -p tcp -m tcp --dport 80 -j A"),
        [],
    ),
    (
        "iptables",
        nat("-A ONE -s 10.0.0.0/8 -j ACCEPT", "-A ONE -j DROP"),
        nat("-A ONE -j DROP", "-A ONE -s 10.0.0.0/8 -j ACCEPT"),
        [
            "~ order of rules of chain ONE of iptables nat: -A ONE -s 10.0.0.0/8 -j ACCEPT, then -A ONE -j DROP -> "
            "-A ONE -j DROP, then -A ONE -s 10.0.0.0/8 -j ACCEPT"
        ],
    ),
    (
        "iptables",  # one packet may have both marks
        nat("-A ONE -m mark --mark 0x1/0x1 -j A", "-A ONE -m mark --mark 0x2/0x2 -j B"),
        nat("-A ONE -m mark --mark 0x2/0x2 -j B", "-A ONE -m mark --mark 0x1/0x1 -j A"),
        None,
    ),
    ("nftables", table(rule({"accept": None})), table(rule({"accept": None}, handle=7, count=9)), []),
    (
        "nftables",
        table(rule(matched("10.0.0.1"), {"accept": None})),
        table(rule(matched("10.0.0.2"), {"accept": None})),
        ["~ rule of nftables ip t, chain c: ip daddr 10.0.0.1 accept -> ip daddr 10.0.0.2 accept"],
    ),
    (
        "nftables",
        table({"set": {"name": "s", "type": "ipv4_addr", "elem": ["10.0.0.1"]}}),
        table({"set": {"name": "s", "type": "ipv4_addr"}}),
        ["- element of nftables ip t, set s: 10.0.0.1"],
    ),
    ("nftables", table(), "", ["- table ip t", "- chain of nftables ip t: c"]),
    (
        "ipset",
        "create a hash:net family inet hashsize 1024 maxelem 9 initval 0x1\nadd a 10.0.0.0/8\n",
        "create a hash:net family inet hashsize 2048 maxelem 9 initval 0x2\nadd a 10.0.0.0/9\n",
        ["- element of ipset a: 10.0.0.0/8", "+ element of ipset a: 10.0.0.0/9"],
    ),
    ("endpoints", endpoints("10.0.0.1", "10.0.0.2"), endpoints("10.0.0.2", "10.0.0.1"), []),
    ("endpoints", endpoints("10.0.0.1"), endpoints(), ["- endpoint 10.0.0.1 of shop/web, port 8080/TCP, ready"]),
    (
        "endpoints",
        endpoints("10.0.0.1"),
        endpoints("10.0.0.1", ready=False, serving=False),
        ["~ endpoint 10.0.0.1 of shop/web: state ready -> not ready"],
    ),
    (
        "services",
        listed({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"type": "ClusterIP"}}),
        listed({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"type": "NodePort"}}),
        ["~ service shop/web: type ClusterIP -> NodePort"],
    ),
    (
        "ingress_classes",
        listed({"metadata": {"name": "nginx"}}),
        listed({"metadata": {"name": "nginx", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}}),
        ["~ IngressClass nginx: default false -> true"],
    ),
    (
        "ingresses",
        listed({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"rules": [{"host": "a.example.org"}]}}),
        listed({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"rules": [{"host": "b.example.org"}]}}),
        ["~ Ingress shop/web: hosts a.example.org -> b.example.org"],
    ),
    (
        "corefile",
        listed({"data": {"Corefile": ".:53 {\n forward . /etc/resolv.conf\n}"}}),
        listed({"data": {"Corefile": ".:53 {\n forward . 127.0.0.1\n}"}}),
        ["~ Corefile forward . of port 53: to /etc/resolv.conf -> 127.0.0.1"],
    ),
    (
        "ipam_blocks",
        listed({"spec": {"cidr": "10.1.0.0/26", "affinity": "host:worker1", "allocations": [None], "attributes": []}}),
        listed({"spec": {"cidr": "10.1.0.0/26", "affinity": "host:worker2", "allocations": [None], "attributes": []}}),
        ["~ IPAM block 10.1.0.0/26: node worker1 -> worker2"],
    ),
    (
        "pod_states",
        listed({"metadata": {"namespace": "n", "name": "p"}, "status": {"containerStatuses": [{"name": "c"}]}}),
        listed(
            {
                "metadata": {"namespace": "n", "name": "p"},
                "status": {"containerStatuses": [{"name": "c", "restartCount": 2}]},
            }
        ),
        ["~ container c of n/p: restarts 0 -> 2"],
    ),
]


@pytest.mark.parametrize(("fact", "before", "after", "wanted"), CASES)
def test_a_change_in_the_words_of_the_field(fact: str, before: Any, after: Any, wanted: list[str] | None) -> None:
    texts = (text if isinstance(text, str) else json.dumps(text) for text in (before, after))
    found = differences(fact, *texts)
    assert found == wanted if wanted is not None else len(found) == 1


def test_every_fact_is_compared_or_left_out_with_a_reason() -> None:
    facts = {fact.name for place in PLACES for fact in discover(place)}
    assert set(OF_FACT) | set(LEFT_OUT) == facts
    assert not set(OF_FACT) & set(LEFT_OUT)


def test_secrets_are_told_by_their_certificates() -> None:
    def secret(*names: str) -> str:
        item = {"namespace": "shop", "name": "tls", "type": "kubernetes.io/tls", "certificates": [pem(*names)]}
        return listed(item)

    (line,) = differences("tls_secrets", secret("a.example.org"), secret("b.example.org"))
    assert line.startswith("~ secret shop/tls: certificate for a.example.org until 2027-01-02, ")
    assert " -> for b.example.org until 2027-01-02, " in line
    broken = listed({"namespace": "shop", "name": "tls", "type": "kubernetes.io/tls", "certificates": ["no PEM"]})
    assert "-> unreadable, " in differences("tls_secrets", secret("a.example.org"), broken)[0]


def test_connections_are_one_whatever_the_clients_port_and_only_among_all() -> None:
    def flow(sport: int, dst: str = "10.96.0.10") -> str:
        there = f"src=10.244.1.2 dst={dst} sport={sport} dport=53"
        return f"udp 17 9 {there} src=10.244.0.4 dst=10.244.1.2 sport=53 dport={sport}\n"

    both = flow(40000) + flow(40001)
    assert differences("conntrack", both, flow(51234), momentary=True) == []
    assert differences("conntrack", both, "") == []
    assert differences("conntrack", both, "", momentary=True) == [
        "- connection udp 10.244.1.2 -> 10.96.0.10:53, replies 10.244.0.4:53 -> 10.244.1.2"
    ]


def test_a_pods_workload_is_its_name_without_the_suffix() -> None:
    found = {workload(pod.api) for pod in recording("flannel-vxlan").pods}
    assert {"hoplab-verify/echo", "hoplab-verify/single", "kube-system/coredns"} <= found
    assert not any(name.endswith(pod.api.name) for name in found for pod in recording("flannel-vxlan").pods)
