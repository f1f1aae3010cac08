"""A recording of the usual lab in which a host has one wrong value of the kernel, or something left over."""

from __future__ import annotations

import json
import re

from hoplab.expectations.cni.flannel import vtep_mac
from hoplab.observe.snapshot import Snapshot
from tests.support.edits import FIRST, HEALTHY, Edit, Fault, added, changed, in_api, lines_without, on_node
from tests.support.recordings import recording

OLD, CALICO = HEALTHY, recording("calico-bgp")
BY_A_WRONG_INTERFACE, FORWARD = "no_packet_comes_by_a_wrong_interface", "nodes_forward"


def sysctl(dev: str, name: str, value: int) -> Edit:
    """A switch of an interface, with another value."""
    return lambda text: re.sub(rf"(conf/{re.escape(dev)}/{name}:)\d", rf"\g<1>{value}", text)


def rp_filter(value: int, *devs: str, lab: Snapshot = OLD) -> Snapshot:
    """The lab whose first node has this value on some interfaces."""
    for dev in devs:
        lab = on_node("sysctls", sysctl(dev, "rp_filter", value), lab, lab.nodes[0].name)
    return lab


def strict_and_another_way_back() -> Snapshot:
    remote = {"dst": str(OLD.nodes[1].pod_cidr)}
    return on_node("routes", changed(remote, dev="eth0"), rp_filter(1, "flannel.1"), OLD.nodes[0].name)


def full(count: int, most: int = 50) -> Snapshot:
    """The lab whose first node has so many connections in a table for 50."""

    def edit(text: str) -> str:
        return re.sub(
            r"(nf_conntrack_count:)\d+", rf"\g<1>{count}", re.sub(r"(conntrack_max:)\d+", rf"\g<1>{most}", text)
        )

    return on_node("sysctls", edit, node=OLD.nodes[0].name)


def flow(to: str, *, replied: str = "", dport: int = 53, sport: int = 53) -> Snapshot:
    """The lab whose first node keeps a UDP connection of a pod to kube-dns, or to another destination."""
    pod, dst = "10.244.1.6", replied or str(OLD.setting.dns_ip)
    line = (
        f"udp      17 99 src={pod} dst={dst} sport=5353 dport={dport} src={to} dst={pod} sport={sport} dport=5353 "
        "[ASSURED] mark=0 use=1\n"
    )
    return on_node("conntrack", lambda text: text + line, node=OLD.nodes[0].name)


def reserved(address: str, network: str = "cbr0", lab: Snapshot = OLD) -> Snapshot:
    """The lab whose first node has a file of host-local for this address."""
    file = f"/var/lib/cni/networks/{network}/{address}"
    return on_node("ipam", lambda text: f"{text}{file}:4b8c\n{file}:eth0\n", lab, lab.nodes[0].name)


def kept_by_calico(owner: str) -> Snapshot:
    """The lab with Calico whose IPAM keeps an address for this pod."""

    def edit(text: str) -> str:
        document = json.loads(text)
        spec = document["items"][0]["spec"]
        spec["attributes"].append({"secondary": dict(zip(("namespace", "pod"), owner.split("/"), strict=True))})
        spec["allocations"][40] = len(spec["attributes"]) - 1
        return json.dumps(document)

    return in_api("ipam_blocks", edit, CALICO)


def host_port(to: str, rule: str = "-A CNI-DN-gone -p tcp -m tcp --dport 8081 -j DNAT --to-destination") -> Snapshot:
    """The lab in which the first node's port 8081 leads to an address."""
    chain = "" if "CNI-HOSTPORT-DNAT" in rule else "[0:0] -A CNI-HOSTPORT-DNAT -p tcp -j CNI-DN-gone\n"
    rules = f"{chain}[0:0] {rule} {to}\nCOMMIT\n"

    def edit(text: str) -> str:
        before, nat, after = text.partition("*nat\n")
        return f"{before}{nat}:CNI-DN-gone - [0:0]\n{after.replace('COMMIT' + chr(10), rules, 1)}"

    return on_node("iptables", edit, node=OLD.nodes[0].name)


def fdb_entry(mac: str, dst: str, dev: str = "flannel.1") -> Snapshot:
    """The lab whose first node has one FDB entry more."""
    entry = {"mac": mac, "ifname": dev, "dst": dst, "flags": ["self"], "state": "permanent"}
    return on_node("fdb", added(entry), node=OLD.nodes[0].name)


OLD_MAC = "02:00:00:00:00:01"
GONE = "10.244.1.250"  # of no pod
ROOM, FLOWS, RESERVED = "conntrack_has_room", "udp_flows_lead_to_endpoints", "every_reserved_address_is_a_pods"
HOST_PORTS, ONE_MAC = "host_ports_lead_to_pods", "every_fdb_entry_is_of_one_node"

FAULTS = (
    Fault(
        "the reverse-path filter is strict everywhere",
        lambda: rp_filter(1, "all"),
        (BY_A_WRONG_INTERFACE,),
        f"net.ipv4.conf.all.rp_filter is 1 on {OLD.nodes[0].name}, and no interface can be exempt: eth0 1, ",
    ),
    Fault(
        "an interface is strict, and the way back is another",
        strict_and_another_way_back,
        (BY_A_WRONG_INTERFACE,),
        f"net.ipv4.conf.flannel.1.rp_filter is 1 on {OLD.nodes[0].name}: flannel.1 drops what comes from",
        exactly=False,
    ),
    Fault(
        "the reverse-path filter is loose, and Felix has no rule of its own",
        lambda: on_node("iptables", lines_without("rpfilter"), rp_filter(2, "all", lab=CALICO), CALICO.nodes[0].name),
        (BY_A_WRONG_INTERFACE,),
        f"net.ipv4.conf.all.rp_filter is 2 on {CALICO.nodes[0].name}, and Felix has no rule of its own",
    ),
    Fault(
        "an interface does not forward",
        lambda: on_node("sysctls", sysctl("flannel.1", "forwarding", 0)),
        (FORWARD,),
        f"net.ipv4.conf.flannel.1.forwarding is 0 on {FIRST.name}",
    ),
    Fault("the conntrack table is full", lambda: full(50), (ROOM,), "is full: 50 of 50"),
    Fault("the conntrack table is nearly full", lambda: full(49), (ROOM,), "is nearly full: 49 of 50"),
    Fault(
        "a UDP flow is kept to an endpoint that is gone",
        lambda: flow(GONE),
        (FLOWS,),
        f"a flow to 10.96.0.10:53 goes to {GONE}:53, which is no endpoint of kube-system/kube-dns:dns",
    ),
    Fault(
        "a UDP flow to a service is kept untranslated",
        lambda: flow("10.96.0.10"),
        (FLOWS,),
        "a flow to 10.96.0.10:53 is kept untranslated, though kube-system/kube-dns:dns has endpoints",
    ),
    Fault(
        "IPAM keeps the address of a pod that is gone",
        lambda: reserved(GONE),
        (RESERVED,),
        f"IPAM keeps {GONE} for pods that are gone",
    ),
    Fault(
        "Calico keeps the address of a pod that is gone",
        lambda: kept_by_calico("shop/web-0"),
        (RESERVED,),
        "is kept for shop/web-0, which is gone",
    ),
    Fault(
        "a host port leads to a pod that is gone",
        lambda: host_port(f"{GONE}:80"),
        (HOST_PORTS,),
        f"`-A CNI-DN-gone -p tcp -m tcp --dport 8081 -j DNAT --to-destination {GONE}:80` on",
    ),
    Fault(
        "a node is behind two MACs",
        lambda: fdb_entry(OLD_MAC, str(OLD.nodes[1].address)),
        (ONE_MAC,),
        f"{OLD.nodes[1].address} is behind two MACs at once, {OLD_MAC} and {vtep_mac(OLD.nodes[1])}",
    ),
    Fault(
        "an FDB entry is of a node that is gone",
        lambda: fdb_entry(OLD_MAC, "192.168.77.99"),
        (ONE_MAC,),
        f"{OLD_MAC} dev flannel.1 dst 192.168.77.99 leads to no node of the cluster",
    ),
)
