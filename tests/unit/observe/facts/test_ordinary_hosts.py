"""Facts of hosts and clusters beyond the lab: ordinary objects that the lab itself does not have."""

from __future__ import annotations

import json
import shutil
import subprocess
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from hoplab.core.errors import FactError
from hoplab.observe.facts._json import unread
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS, API_ENDPOINTS6
from hoplab.observe.facts.api_ingress_classes import API_INGRESS_CLASSES
from hoplab.observe.facts.api_ingresses import API_INGRESSES
from hoplab.observe.facts.api_nodes import API_NODES
from hoplab.observe.facts.api_pods import API_PODS
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.facts.cni_config import CNI_CONFIG, called
from hoplab.observe.facts.fdb import FDB
from hoplab.observe.facts.links import LINKS
from hoplab.observe.facts.neighbours import NEIGHBOURS
from hoplab.observe.facts.proc_routes import PROC_ROUTES
from hoplab.observe.facts.routes import ROUTES, ROUTES6, NextHop, lookup_in
from hoplab.observe.facts.rules import RULES

BOTH = [{"gateway": "192.0.2.1", "dev": "eth0", "weight": 1, "flags": ["dead"]}, {"dev": "eth1", "weight": 10}]


def route(**given: Any) -> Any:
    (found,) = ROUTES.parse(json.dumps([given]))
    return found


def test_a_route_has_several_next_hops() -> None:
    found = route(dst="10.7.0.0/16", nhid=40, nexthops=BOTH)
    assert found.hops == (NextHop(IPv4Address("192.0.2.1"), "eth0", 1, ("dead",)), NextHop(None, "eth1", 10))
    assert (found.via, found.dev, found.nexthop_id) == (None, "", 40)
    assert str(found) == "10.7.0.0/16 nexthop via 192.0.2.1 dev eth0 weight 1 dead nexthop dev eth1 weight 10"
    (found6,) = ROUTES6.parse('[{"dst": "fd00:5::/64", "nexthops": [{"gateway": "fe80::1", "dev": "eth0"}]}]')
    assert str(found6) == "fd00:5::/64 nexthop via fe80::1 dev eth0 weight 1"


def test_a_gateway_may_be_of_the_other_family() -> None:
    found = route(dst="10.5.0.0/16", via={"family": "inet6", "host": "fe80::1"}, dev="eth0")
    assert (found.via, str(found)) == (IPv6Address("fe80::1"), "10.5.0.0/16 via inet6 fe80::1 dev eth0")
    assert route(dst="10.5.0.0/16", via={"family": "inet", "host": "192.0.2.1"}).via == IPv4Address("192.0.2.1")
    with pytest.raises(FactError, match=r"routes\.via: a gateway of the family mpls"):
        route(dst="10.5.0.0/16", via={"family": "mpls", "host": "100"})


def test_a_route_has_an_mtu_and_a_type_of_service() -> None:
    found = route(dst="10.9.0.0/16", dev="eth0", metrics=[{"mtu": 1320, "advmss": 1280}], tos="0x10")
    assert (found.mtu, found.tos, str(found)) == (1320, 16, "10.9.0.0/16 dev eth0 mtu 1320")
    with pytest.raises(FactError, match=r"routes\.tos: 'lowdelay' is not a number"):
        route(dst="10.9.0.0/16", tos="lowdelay")


@pytest.mark.parametrize("kind", ["blackhole", "prohibit", "unreachable", "throw"])
def test_a_route_that_drops_packets_has_no_next_hop(kind: str) -> None:
    found = route(type=kind, dst="10.6.0.0/16", dev="lo")  # lo stands there where it is a next hop object
    assert found.hops == () and lookup_in([found], IPv4Address("10.6.0.1"), dev="eth0") is found


def test_one_table_is_looked_up_by_prefix_type_of_service_and_metric() -> None:
    address = IPv4Address("10.9.0.1")
    dead = route(dst="10.9.0.0/16", nexthops=BOTH[:1])
    wide, slow, fast = (
        route(dst="10.0.0.0/8", dev="eth0", metric=n, tos=t) for n, t in ((5, "0x10"), (9, ""), (7, ""))
    )
    table = [dead, slow, wide, fast]
    assert lookup_in(table, address) is fast
    assert lookup_in(table, address, tos=16) is wide
    assert lookup_in(table, address, dev="eth1") is None
    (bound,) = ROUTES6.parse('[{"dst": "default", "from": "fd00:1::/64", "dev": "eth0"}]')
    assert bound.senders == IPv6Network("fd00:1::/64")
    assert lookup_in([bound], IPv6Address("fd00:9::1")) is None
    assert lookup_in([bound], IPv6Address("fd00:9::1"), source=IPv6Address("fd00:1::7")) is bound


RULES_JSON = [
    {"priority": 500, "src": "10.1.0.0", "srclen": 16, "goto": 700, "unresolved": None},
    {"priority": 501, "src": "all", "nop": None},
    {"priority": 502, "src": "all", "dst": "10.2.0.0", "dstlen": 16, "tos": "0x10", "iif": "eth9", "iif_detached": None}
    | {"oif": "eth0", "ipproto": "udp", "sport_start": 5, "sport_end": 9, "dport": 80, "table": "7"},
    {"priority": 503, "src": "all", "uid_start": 1, "uid_end": 5, "tun_id": 7, "action": "prohibit"},
    {"priority": 504, "src": "all", "table": "main", "suppress_prefixlen": 0, "suppress_ifgroup": "3"},
    {"priority": 505, "src": "all", "l3mdev": None},
]
RULES_TEXT = """\
500: from 10.1.0.0/16 goto 700 [unresolved]
501: from all nop
502: from all to 10.2.0.0/16 tos 0x10 iif eth9 [detached] oif eth0 ipproto udp sport 5-9 dport 80 lookup 7
503: from all uidrange 1-5 tun_id 7 prohibit
504: from all lookup main suppress_prefixlength 0 suppress_ifgroup 3
505: from all lookup [l3mdev-table]
"""


def test_rules_have_their_selectors_and_read_as_ip_prints_them() -> None:
    found = RULES.parse(json.dumps(RULES_JSON))
    assert "".join(f"{rule}\n" for rule in found) == RULES_TEXT
    jump, nothing, long, unusual, suppressing, vrf = found
    assert (jump.goto, nothing.goto, nothing.action) == (700, None, "nop")
    assert (long.iif, long.oif, long.detached, long.tos) == ("eth9", "eth0", True, "0x10")
    assert (long.protocol, long.sports, long.dports) == ("udp", (5, 9), (80, 80))
    assert (unusual.uids, unusual.unknown) == ((1, 5), ("tun_id 7",))
    assert (suppressing.suppress_prefix, suppressing.suppress_group, jump.suppress_prefix) == (0, "3", -1)
    assert vrf.l3mdev and not jump.l3mdev and not long.unknown


def link(**given: Any) -> Any:
    (found,) = LINKS.parse(json.dumps([{"ifindex": 7, "ifname": "x0", "mtu": 1500, **given}]))
    return found


def vxlan(**data: Any) -> Any:
    found = link(linkinfo={"info_kind": "vxlan", "info_data": data}).vxlan
    return found


def test_the_outer_addresses_of_vxlan_are_of_either_family() -> None:
    assert vxlan(id=1, local6="fd00:77::20", group6="ff05::100").local == "fd00:77::20"
    assert vxlan(id=1, remote="192.0.2.7").remote == "192.0.2.7" and vxlan(id=1, group6="ff05::1").remote == "ff05::1"
    external = vxlan(external=True, id=0, port=8472)
    assert external.external and not external.local and not vxlan(id=1, local="192.0.2.1").external


def test_an_interface_stands_on_its_parent() -> None:
    macvlan = link(link="eth0", linkinfo={"info_kind": "macvlan"})
    assert (macvlan.parent, macvlan.peer, macvlan.peer_index) == ("eth0", "", 0)
    assert str(macvlan).startswith("7: x0@eth0 macvlan")
    moved = link(link_index=2, link_netnsid=0, linkinfo={"info_kind": "macvlan"})
    assert (moved.parent_index, moved.peer_elsewhere) == (2, False) and str(moved).startswith("7: x0@if2 macvlan")
    paired = link(link_index=9, link_netnsid=0, linkinfo={"info_kind": "netkit"})
    assert (paired.peer_index, paired.peer_elsewhere, paired.parent_index) == (9, True, 0)
    vrf = link(linkinfo={"info_kind": "vrf", "info_data": {"table": 10}}, group="vpn")
    assert (vrf.vrf_table, vrf.group, macvlan.group) == ("10", "vpn", "default")


def test_fdb_entries_name_port_vni_interface_and_next_hop() -> None:
    own = {"mac": "00:00:00:00:00:00", "ifname": "flannel.1", "flags": ["self", "extern_learn"]}
    raw = [{**own, "dst": "192.0.2.7", "port": 4789, "vni": 7, "viaIf": "eth1"}, {**own, "nhid": 61, "vlan": 5}]
    other, group = FDB.parse(json.dumps(raw))
    assert (other.port, other.vni, other.via, group.nexthop, group.dst, group.vlan) == (4789, 7, "eth1", 61, "", 5)
    assert str(other) == "00:00:00:00:00:00 dev flannel.1 dst 192.0.2.7 port 4789 vni 7 via eth1"
    assert str(group) == "00:00:00:00:00:00 dev flannel.1 nhid 61" and group.flags == ("self", "extern_learn")


def test_the_range_of_a_point_to_point_link_is_around_the_peer() -> None:
    info = {"family": "inet", "local": "10.8.0.6", "address": "10.8.0.5", "prefixlen": 30, "scope": "global"}
    (found,) = ADDRESSES.parse(json.dumps([{"ifname": "tun0", "addr_info": [info]}]))
    assert (found.address, found.peer) == (IPv4Address("10.8.0.6"), IPv4Address("10.8.0.5"))
    assert found.network == IPv4Network("10.8.0.4/30") and str(found) == "10.8.0.6 peer 10.8.0.5/30 dev tun0"


NODE = {"spec": {"podCIDR": "fd00:244::/64", "podCIDRs": ["fd00:244::/64", "10.244.0.0/24"]}, "metadata": {"name": "n"}}
POD = {"metadata": {"name": "p"}, "status": {"podIP": "fd00::2", "podIPs": [{"ip": "fd00::2"}, {"ip": "10.0.0.2"}]}}
SERVICE = {
    "metadata": {"name": "dual", "namespace": "default"},
    "spec": {"clusterIP": "fd00:96::11", "clusterIPs": ["fd00:96::11", "10.96.1.1"], "internalTrafficPolicy": "Local"},
    "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.245"}, {"ip": "fd00:77::f5"}, {"hostname": "lb"}]}},
}


def items(*found: Any) -> str:
    return json.dumps({"items": list(found)})


def test_objects_of_the_api_have_addresses_of_both_families() -> None:
    (service,) = API_SERVICES.parse(items(SERVICE))
    assert (service.cluster_ip, service.cluster_ip6) == (IPv4Address("10.96.1.1"), IPv6Address("fd00:96::11"))
    assert service.balancer_ips == (IPv4Address("192.0.2.245"),)
    assert service.balancer_ips6 == (IPv6Address("fd00:77::f5"),)
    assert service.internal_policy == "Local"
    assert API_SERVICES.parse(items({"spec": {"clusterIP": "10.96.1.2"}}))[0].internal_policy == "Cluster"
    (pod,) = API_PODS.parse(items(POD))
    assert (pod.address, pod.address6) == (IPv4Address("10.0.0.2"), IPv6Address("fd00::2"))
    (node,) = API_NODES.parse(items(NODE))
    assert (node.pod_cidr, node.pod_cidr6) == (IPv4Network("10.244.0.0/24"), IPv6Network("fd00:244::/64"))
    (ingress,) = API_INGRESSES.parse(items({"status": SERVICE["status"]}))
    assert ingress.addresses == (IPv4Address("192.0.2.245"),)


def test_classes_of_ingresses() -> None:
    marked = {"name": "nginx", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}
    classes = items({"metadata": marked, "spec": {"controller": "nginx.org/x"}}, {"metadata": {"name": "other"}})
    default, other = API_INGRESS_CLASSES.parse(classes)
    assert (str(default), str(other)) == ("nginx of nginx.org/x, the default", "other")
    old = {"metadata": {"annotations": {"kubernetes.io/ingress.class": "other"}}}
    found = API_INGRESSES.parse(items(old, {"spec": {"ingressClassName": "nginx"}}, {}))
    assert [ingress.ingress_class for ingress in found] == ["other", "nginx", ""]


def endpoint(**given: Any) -> Any:
    meta = {"namespace": "default", "labels": {"kubernetes.io/service-name": "s"}}
    one = {"addressType": "IPv4", "metadata": meta, "ports": [{"port": 80}]}
    (found,) = API_ENDPOINTS.parse(items({**one, "endpoints": [{"addresses": ["10.4.5.6"], **given}]}))
    return found


def test_an_endpoint_without_conditions_is_ready() -> None:
    assert (endpoint().ready, endpoint().serving, endpoint().terminating) == (True, True, False)
    assert endpoint(conditions=None).ready and endpoint(conditions={"ready": None}).ready
    down = endpoint(conditions={"ready": False})
    assert (down.ready, down.serving) == (False, False)
    ending = endpoint(conditions={"ready": False, "serving": True, "terminating": True})
    assert (ending.ready, ending.serving, ending.terminating) == (False, True, True)
    hinted = endpoint(hints={"forZones": [{"name": "a"}], "forNodes": [{"name": "worker1"}]})
    assert (hinted.for_zones, hinted.for_nodes) == (("a",), ("worker1",))


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (ROUTES.parse, {"dst": "10.1.0.0/16"}, {"dst": "nowhere"}),
        (RULES.parse, {"priority": 1, "src": "all"}, {"priority": "first"}),
        (LINKS.parse, {"ifname": "eth0"}, {"ifindex": []}),
        (FDB.parse, {"mac": "02:00:00:00:00:01"}, 7),
        (NEIGHBOURS.parse, {"dst": "10.1.0.1"}, {"dev": "eth0"}),
        (ADDRESSES.parse, {"addr_info": []}, {"addr_info": [{"family": "inet", "local": "x"}]}),
    ],
)
def test_one_entry_that_cannot_be_read_does_not_lose_the_others(parse: Any, good: Any, bad: Any) -> None:
    found = parse(json.dumps([bad, good]))
    assert list(found) == list(parse(json.dumps([good])))
    (lost,) = unread(found)
    assert lost.raw == bad and str(lost).startswith(json.dumps(bad)) and lost.why
    assert not unread(parse(json.dumps([good]))) and not unread(tuple(found))
    with pytest.raises(FactError):
        parse(json.dumps([bad]))


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (API_SERVICES.parse, SERVICE, {"spec": {"ports": "http"}}),
        (API_PODS.parse, POD, {"status": {"podIP": "10.244"}}),
        (API_NODES.parse, NODE, {"spec": {"podCIDR": "10.244"}}),
        (API_ENDPOINTS6.parse, {"addressType": "IPv4"}, {"addressType": "IPv6", "ports": [{}], "endpoints": [{}]}),
        (API_INGRESSES.parse, {}, []),
    ],
)
def test_one_object_that_cannot_be_read_does_not_lose_the_others(parse: Any, good: Any, bad: Any) -> None:
    found = parse(items(bad, good))
    assert list(found) == list(parse(items(good))) and len(unread(found)) == 1
    with pytest.raises(FactError):
        parse(items(bad))


def test_one_line_of_proc_net_route_that_cannot_be_read_does_not_lose_the_others() -> None:
    good = "eth0\t00000000\t014DA8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0"
    found = PROC_ROUTES.parse(f"Iface\n{good}\ncni0 zz\n")
    assert [line.dev for line in found] == ["eth0"] and "cni0 zz" in str(unread(found)[0])


def files(**contents: str) -> str:
    """As `tail -v` prints them, in any order."""
    return "\n".join(f"==> /etc/cni/net.d/{name} <==\n{text}" for name, text in contents.items())


LIST = '{"name": "a", "plugins": [{"type": "flannel"}, {"type": "portmap"}]}\n'
SINGLE = '{"name": "b", "type": "ptp"}\n'


def test_only_what_the_cni_library_loads_is_a_configuration() -> None:
    text = files(
        **{"20-b.conf": SINGLE, "05-x.conflist.bak": LIST, "10-a.json": SINGLE, "15-a.conflist": LIST, "y": "{"}
    )
    assert [config.path for config in CNI_CONFIG.parse(text)] == [
        f"/etc/cni/net.d/{name}" for name in ("10-a.json", "15-a.conflist", "20-b.conf")
    ]
    assert CNI_CONFIG.parse(files(**{"10-calico.conflist.cilium_bak": LIST})) == ()
    assert [config.path for config in CNI_CONFIG.parse(files(**{".conf": SINGLE}))] == ["/etc/cni/net.d/.conf"]


def test_a_configuration_that_the_runtime_refuses_is_known_to_be_there() -> None:
    broken, listed, good = CNI_CONFIG.parse(files(**{"1.conflist": "{", "2.conf": LIST, "3.conflist": LIST}))
    assert "1.conflist is not JSON" in broken.problem and broken.plugins == ()
    assert listed.problem == "/etc/cni/net.d/2.conf names no type of a plugin"
    assert good.plugins == ("flannel", "portmap") and not good.problem and called((good,)) is good


def test_multus_calls_the_plugins_of_another_configuration() -> None:
    inline = '{"name": "m", "type": "multus", "delegates": [{"plugins": [{"type": "flannel"}]}, {"type": "ptp"}]}'
    (multus,) = CNI_CONFIG.parse(files(**{"00-multus.conf": inline}))
    assert multus.delegates == (("flannel",), ("ptp",)) and called((multus,)).plugins == ("flannel",)
    named = '{"type": "multus", "clusterNetwork": "/host/etc/cni/net.d/20-b.conf"}'
    both = {"10-a.conflist": LIST, "20-b.conf": SINGLE}
    assert called(CNI_CONFIG.parse(files(**{"00-multus.conf": named}, **both))).plugins == ("ptp",)
    by_name = '{"type": "multus", "clusterNetwork": "a"}'
    assert called(CNI_CONFIG.parse(files(**{"00-multus.conf": by_name}, **both))).plugins == ("flannel", "portmap")
    gone = '{"type": "multus", "clusterNetwork": "c"}'
    assert called(CNI_CONFIG.parse(files(**{"00-multus.conf": gone}, **both))).plugins == ("multus",)
    silent = '{"type": "multus"}'
    assert called(CNI_CONFIG.parse(files(**{"00-multus.conf": silent}, **both))).plugins == ("flannel", "portmap")


@pytest.mark.skipif(not shutil.which("find"), reason="needs find")
def test_the_command_reads_no_other_file(tmp_path: Path) -> None:
    for name in ("10-a.conflist", "b c.json", "calico-kubeconfig", "10-a.conflist.bak"):
        (tmp_path / name).write_text('{"type": "x"}' if name.endswith(("conflist", "json")) else "token: secret")
    (tmp_path / "dir.conf").mkdir()
    command = CNI_CONFIG.command.replace("/etc/cni/net.d", str(tmp_path))
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert "secret" not in done.stdout
    found = [config.path.rpartition("/")[2] for config in CNI_CONFIG.parse(done.stdout)]
    assert found == ["10-a.conflist", "b c.json"]
    empty = CNI_CONFIG.command.replace("/etc/cni/net.d", str(tmp_path / "dir.conf"))
    assert subprocess.run(["sh", "-c", empty], capture_output=True, text=True, check=True).stdout == ""
