"""Every read-only lesson holds on a recording of a healthy lab, and fails when just its subject is broken there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from hoplab.core.paths import PROJECT
from hoplab.expectations import proxy
from hoplab.observe.facts import Facts
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.recording_format import load
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Pod, Snapshot
from hoplab.verify import requirements
from hoplab.verify.claims import Claim, ClaimFailed
from tests.support.lesson_functions import applies, failures, read_only

Edit = Callable[[str], str]

HEALTHY = load(PROJECT / "tests" / "recordings" / "flannel-vxlan.json")
FIRST = next(pod.node for pod in HEALTHY.pods if pod.api.label("app") == "single")  # of a service with the policy Local
SECOND = next(node for node in HEALTHY.nodes if node is not FIRST)
POD = next(pod for pod in HEALTHY.pods if pod.node.name == FIRST.name and pod.api.label("app") == "echo")


def on_node(fact: str, edit: Edit, lab: Snapshot = HEALTHY, node: str = FIRST.name) -> Snapshot:
    """The lab with one fact of one node edited."""
    return replace(lab, node_facts={**lab.node_facts, node: _edited(lab.node_facts[node], fact, edit)})


def in_pod(fact: str, edit: Edit, lab: Snapshot = HEALTHY, pod: Pod = POD) -> Snapshot:
    """... of one pod's namespace."""
    here = lab.netns_facts[pod.node.name]
    found = {**here, pod.netns: _edited(here[pod.netns], fact, edit)}
    return replace(lab, netns_facts={**lab.netns_facts, pod.node.name: found})


def in_api(fact: str, edit: Edit, lab: Snapshot = HEALTHY) -> Snapshot:
    return replace(lab, api=_edited(lab.api, fact, edit))


def _edited(facts: Facts, fact: str, edit: Edit) -> Facts:
    before = facts.outputs[fact].out
    after = edit(before)
    assert after != before, f"nothing to break in {fact} of {facts.place}"
    return Facts(facts.place, {**facts.outputs, fact: Output(0, after)})


def without(**wanted: Any) -> Edit:
    """A JSON list without the objects that have these values."""

    def edit(text: str) -> str:
        return json.dumps([each for each in json.loads(text) if not _has(each, wanted)])

    return edit


def changed(wanted: Mapping[str, Any], **to: Any) -> Edit:
    """A JSON list with values changed in the objects that have the wanted ones."""

    def edit(text: str) -> str:
        return json.dumps([{**each, **to} if _has(each, wanted) else each for each in json.loads(text)])

    return edit


def _has(each: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(each.get(key) == value for key, value in wanted.items())


def added(*items: Any) -> Edit:
    return lambda text: json.dumps([*json.loads(text), *items])


def lines_without(pattern: str) -> Edit:
    return lambda text: "".join(line for line in text.splitlines(keepends=True) if not re.search(pattern, line))


def api_item(name: str, change: Callable[[dict[str, Any]], None]) -> Edit:
    """A Kubernetes list with one object changed."""

    def edit(text: str) -> str:
        document = json.loads(text)
        for item in document["items"]:
            if item["metadata"]["name"] == name:
                change(item)
        return json.dumps(document)

    return edit


def not_ready(item: dict[str, Any]) -> None:
    item["status"]["conditions"] = [{"type": "Ready", "status": "False", "message": "kubelet is gone"}]


def as_if(**asked: Any) -> Snapshot:
    """The same hosts in a lab that was asked to be another one."""
    return replace(HEALTHY, setting=replace(HEALTHY.setting, **asked))


@dataclass(frozen=True)
class Fault:
    """One thing broken: which lessons must fail, and what the first of them has to name."""

    name: str
    broken: Callable[[], Snapshot]
    caught_by: tuple[str, ...]
    says: str
    exactly: bool = True  # no other lesson fails

    def fails_its_lessons(self) -> None:
        found = failures(read_only(), self.broken())
        assert self.says in found.get(self.caught_by[0], ""), found
        assert set(found) == set(self.caught_by) or (not self.exactly and set(found) > set(self.caught_by)), found


gateway = HEALTHY.setting.gateway
remote = SECOND.pod_cidr
host_end = POD.host_end
assert host_end
HOST_END = host_end.name
NOBODY = next(each for each in proxy.expectations(HEALTHY) if each.service == "hoplab-verify/nobody")
ECHO = next(each for each in proxy.expectations(HEALTHY) if each.service == "hoplab-verify/echo")


def address_of(dev: str, address: str) -> dict[str, Any]:
    """As `ip -j address` shows it."""
    return {"ifname": dev, "addr_info": [{"family": "inet", "local": address, "prefixlen": 32}]}


def _dropped(text: str, *names: str) -> str:
    """A Kubernetes list without some objects."""
    document = json.loads(text)
    return json.dumps({"items": [item for item in document["items"] if item["metadata"]["name"] not in names]})


def announced_by(*addresses: str, name: str = "announced", lab: Snapshot = HEALTHY) -> Snapshot:
    """The lab whose load balancer gave these addresses to a service."""
    given = {"loadBalancer": {"ingress": [{"ip": address} for address in addresses]}}
    return in_api("services", api_item(name, lambda item: item.update(status=given)), lab)


ANNOUNCED = next(each for each in HEALTHY.api[API_SERVICES] if each.name == "announced").balancer_ips[0]


FAULTS = (
    Fault(
        "an interface has a balancer's address",
        lambda: on_node("addresses", added(address_of("lo", str(ANNOUNCED)))),
        ("the_load_balancer_gives_addresses_of_its_pool",),
        f"{ANNOUNCED} of hoplab-verify/announced is the address of lo of {FIRST.name}",
    ),
    Fault(
        "a node lost its address",
        lambda: on_node("addresses", without(ifname="eth0")),
        ("every_node_has_its_own_address",),
        f"{FIRST.name} has no {FIRST.address}",
    ),
    Fault(
        "a pod's address is not in any namespace",
        lambda: in_pod("addresses", lambda text: text.replace(f'"{POD.address}"', f'"{FIRST.pod_cidr[99]}"')),
        ("every_pod_has_its_own_address",),
        f"has {POD.address}, the address of {POD}",
    ),
    Fault(
        "a pod has a public address",
        lambda: in_pod("addresses", added(address_of("eth0", "8.8.8.8"))),
        ("all_addresses_are_private",),
        f"eth0 of {POD} has the public address 8.8.8.8",
    ),
    Fault(
        "a pod has no loopback",
        lambda: in_pod("addresses", without(ifname="lo")),
        ("every_namespace_has_its_own_loopback",),
        f"{POD} has no 127.0.0.1",
    ),
    Fault(
        "flannel.1 is down",
        lambda: on_node("links", changed({"ifname": "flannel.1"}, flags=["BROADCAST"])),
        ("a_node_has_the_interfaces_of_its_cni",),
        f"flannel.1 of {FIRST.name} is down",
    ),
    Fault(
        "a veth is unplugged",
        lambda: on_node("links", without(ifname=HOST_END)),
        ("a_pod_hangs_on_a_veth_pair", "a_node_has_the_interfaces_of_its_cni", "the_host_end_is_a_port_of_the_bridge"),
        f"the eth0 of {POD} names",
    ),
    Fault(
        "a host end left the bridge",
        lambda: on_node("links", changed({"ifname": HOST_END}, master=None)),
        ("the_host_end_is_a_port_of_the_bridge",),
        "is a port of no bridge, not of cni0",
    ),
    Fault(
        "a host end lets nothing out where it came in",
        lambda: on_node(
            "links",
            lambda text: text.replace('"hairpin": true', '"hairpin": false').replace(
                '"hairpin":true', '"hairpin":false'
            ),
        ),
        ("the_host_end_is_a_port_of_the_bridge",),
        "has no hairpin mode",
    ),
    Fault(
        "the MTU of cni0 leaves no room for VXLAN",
        lambda: on_node("links", changed({"ifname": "cni0"}, mtu=1500)),
        ("encapsulation_leaves_room_in_the_mtu",),
        f"cni0 on {FIRST.name} has the MTU 1500, not 1450",
    ),
    Fault(
        "VXLAN is sent from another address",
        lambda: on_node("links", lambda text: _info(text, local="192.168.77.99")),
        ("vxlan_is_sent_from_the_nodes_address",),
        f"flannel.1 of {FIRST.name} sends from 192.168.77.99 by eth0",
    ),
    Fault(
        "another CNI's file comes first",
        lambda: on_node("cni_config", lambda text: f'==> /etc/cni/net.d/00-x.conf <==\n{{"type": "ptp"}}\n{text}'),
        ("the_runtime_is_told_which_plugin_to_call",),
        "00-x.conf, not 10-flannel.conflist",
    ),
    Fault(
        "IPAM does not know of an address",
        lambda: on_node("ipam", lines_without(f"/{POD.address}:")),
        ("ipam_gave_each_pod_its_address",),
        f"has not given {POD.address} to the eth0 of {POD}",
    ),
    Fault(
        "IPAM gives addresses of another node",
        lambda: on_node("ipam", lambda text: f"{text}/var/lib/cni/networks/cbr0/{remote[9]}:0123\n"),
        ("ipam_gave_each_pod_its_address",),
        f"gives addresses outside of {FIRST.pod_cidr}",
    ),
    Fault(
        "the route to the node's own pods is gone",
        lambda: on_node("routes", without(dst=str(FIRST.pod_cidr))),
        ("a_node_routes_its_own_range_to_its_pods", "the_longest_prefix_decides", "proc_and_ip_route_agree"),
        f"{FIRST.name} has no route {FIRST.pod_cidr} dev cni0",
    ),
    Fault(
        "the route to the other node's pods is gone",
        lambda: on_node("routes", without(dst=str(remote))),
        (
            "a_node_routes_every_other_range_to_its_node",
            "the_longest_prefix_decides",
            "proc_and_ip_route_agree",
            "kinds_of_routes",
        ),
        f"{FIRST.name} has no route {remote} via {remote[0]} dev flannel.1 onlink",
    ),
    Fault(
        "an FDB entry is gone",
        lambda: on_node("fdb", without(dst=str(SECOND.address))),
        ("who_unwraps_is_written_down",),
        f"dev flannel.1 dst {SECOND.address}",
    ),
    Fault(
        "a neighbour entry is gone",
        lambda: on_node("neighbours", without(dst=str(remote[0]))),
        ("who_unwraps_is_written_down",),
        f"{FIRST.name} has no neighbour {remote[0]} dev flannel.1",
    ),
    Fault(
        "flannel.1 was made anew with another MAC",
        lambda: on_node("links", changed({"ifname": "flannel.1"}, address="aa:aa:aa:aa:aa:aa")),
        ("the_announced_mac_is_the_interfaces",),
        "but flannel.1 has aa:aa:aa:aa:aa:aa",
    ),
    Fault(
        "a longer prefix leads astray",
        lambda: on_node(
            "routes",
            added({"dst": str(next(remote.subnets())), "gateway": str(gateway), "dev": "eth0", "protocol": "static"}),
        ),
        ("the_longest_prefix_decides", "proc_and_ip_route_agree"),
        f"by `{next(remote.subnets())} via {gateway} dev eth0`, not by",
    ),
    Fault(
        "an empty namespace finds a way",
        lambda: on_node("unreachable", lambda _text: "198.51.100.1 via 192.0.2.1"),
        ("no_route_means_unreachable",),
        "198.51.100.1 via",
    ),
    Fault(
        "the default route is gone",
        lambda: on_node("routes", without(dst="default")),
        ("kinds_of_routes", "a_nodes_gateway_is_the_labs", "the_longest_prefix_decides", "proc_and_ip_route_agree"),
        f"{FIRST.name} has no default route",
    ),
    Fault(
        "nobody's configuration made a route",
        lambda: on_node("routes", changed({"dst": "default"}, protocol="dhcp")),
        ("kinds_of_routes",),
        f"{FIRST.name} has no static route",
    ),
    Fault(
        "the kernel has a route that ip does not show",
        lambda: on_node("proc_routes", lambda text: text + "cni0\t0009F40A\t00000000\t1\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"),
        ("proc_and_ip_route_agree",),
        f"they differ on {FIRST.name}",
    ),
    Fault(
        "another table is asked first",
        lambda: on_node("rules", changed({"table": "local"}, priority=40000)),
        ("the_tables_are_asked_in_order",),
        f"{FIRST.name} asks main first",
    ),
    Fault(
        "forwarding is off",
        lambda: on_node("sysctls", lambda text: text.replace("ipv4/ip_forward:1", "ipv4/ip_forward:0")),
        ("nodes_forward",),
        f"net.ipv4.ip_forward is 0 on {FIRST.name}",
    ),
    Fault(
        "a pod's default gateway is flannel.1's address",
        lambda: in_pod("routes", changed({"dst": "default"}, gateway=str(FIRST.pod_cidr[0]))),
        ("a_pods_gateway_is_its_nodes_bridge", "proc_and_ip_route_agree"),
        f"not one via {FIRST.pod_cidr[1]} dev eth0",
    ),
    Fault(
        "the gateway does not answer ARP",
        lambda: on_node("neighbours", without(dst=str(gateway))),
        ("a_nodes_gateway_is_the_labs",),
        f"{FIRST.name} has learned no MAC for {gateway}",
    ),
    Fault(
        "a pod reaches its neighbours by the gateway",
        lambda: in_pod("routes", changed({"dst": str(FIRST.pod_cidr)}, gateway=str(FIRST.pod_cidr[1]))),
        ("the_same_subnet_goes_direct", "proc_and_ip_route_agree"),
        f"{POD} does not reach {FIRST.pod_cidr} directly",
    ),
    Fault(
        "a node is not Ready",
        lambda: in_api("nodes", api_item(FIRST.name, not_ready)),
        ("nodes_are_ready_with_a_range_each",),
        f"{FIRST.name} is not Ready: kubelet is gone",
    ),
    Fault(
        "a machine never joined",
        lambda: in_api("nodes", lambda text: _dropped(text, SECOND.name)),
        ("nodes_are_ready_with_a_range_each", "every_pod_has_its_own_address"),
        f"{SECOND.name} is a machine of the lab but no node",
    ),
    Fault(
        "two nodes have the same range",
        lambda: in_api("nodes", api_item(SECOND.name, lambda item: item["spec"].update(podCIDR=str(FIRST.pod_cidr)))),
        ("nodes_are_ready_with_a_range_each", "pods_are_in_their_nodes_range"),
        f"which overlaps {FIRST.pod_cidr} of",
        exactly=False,
    ),
    Fault(
        "a pod runs on another node than its address says",
        lambda: in_api("nodes", api_item(FIRST.name, lambda item: item["spec"].update(podCIDR="10.244.9.0/24"))),
        ("pods_are_in_their_nodes_range",),
        "has 10.244.9.0/24",
        exactly=False,
    ),
    Fault(
        "the kernel can't do sums",
        lambda: on_node("subnet_sums", without(dst="172.20.31.255")),
        ("first_and_last_address_follow_from_the_prefix",),
        "172.20.30.41/20 on",
    ),
    Fault(
        "the range's last address is not for broadcast",
        lambda: on_node("routes", without(dst=str(FIRST.pod_cidr.broadcast_address))),
        ("a_nodes_range_has_its_ends",),
        f"{FIRST.pod_cidr.broadcast_address} is no broadcast address",
    ),
    Fault(
        "kube-dns has another ClusterIP",
        lambda: in_api("services", lambda text: text.replace(f'"{HEALTHY.setting.dns_ip}"', '"10.96.0.11"')),
        (
            "services_have_a_range_of_their_own",
            "only_rules_know_a_cluster_ip",
            "marked_packets_are_masked",
            "a_service_leads_to_its_endpoints",
            "every_endpoint_gets_the_same_share",
        ),
        "kube-system/kube-dns has 10.96.0.11, not 10.96.0.10",
    ),
    Fault(
        "an interface has a ClusterIP",
        lambda: on_node("addresses", added(address_of("lo", "10.96.0.10"))),
        ("no_interface_owns_a_cluster_ip",),
        f"lo of {FIRST.name} has 10.96.0.10, a ClusterIP",
    ),
    Fault(
        "the MASQUERADE rule is gone",
        lambda: on_node("iptables", lines_without(r"-A FLANNEL-POSTRTG -s \S+ ! -d 224.*MASQUERADE")),
        ("what_leaves_the_pod_range_is_masqueraded",),
        f"to {gateway} ends in ACCEPT, not MASQUERADE",
    ),
    Fault(
        "pod to pod is masqueraded",
        lambda: on_node("iptables", lines_without("-A FLANNEL-POSTRTG.*RETURN")),
        ("what_leaves_the_pod_range_is_masqueraded",),
        "is translated",
    ),
    Fault(
        "a table has lost a built-in chain",
        lambda: on_node("iptables", lambda text: re.sub(r"(\*mangle\n(?:.*\n)*?):FORWARD.*\n", r"\1", text)),
        ("tables_and_their_hooks",),
        "has the built-in chains",
    ),
    Fault(
        "nat is called before mangle",
        lambda: on_node("hooks", lambda text: re.sub(r'"prio": ?-100', '"prio": -200', text)),
        ("tables_are_called_in_their_order",),
        "is called at -200, not at -100",
    ),
    Fault(
        "nobody calls KUBE-SERVICES in PREROUTING",
        lambda: on_node("iptables", lines_without("-A PREROUTING .*KUBE-SERVICES")),
        (
            "kube_proxy_hooks_in_its_chains",
            "a_service_leads_to_its_endpoints",
            "marked_packets_are_masked",
            "node_ports_come_last",
            "every_endpoint_gets_the_same_share",
            "a_local_service_stays_on_its_node",
            "a_sticky_service_remembers_its_clients",
        ),
        f"PREROUTING of nat on {FIRST.name} never calls KUBE-SERVICES",
    ),
    Fault(
        "the rules of a KUBE-SVC chain are flushed",
        lambda: on_node("iptables", lines_without(f"-A {ECHO.chain} ")),
        ("a_service_leads_to_its_endpoints", "every_endpoint_gets_the_same_share", "marked_packets_are_masked"),
        f"{ECHO} leads to nothing",
    ),
    Fault(
        "an endpoint gets all connections",
        lambda: on_node("iptables", lambda text: re.sub(r"--probability 0\.[0-9]+", "--probability 0.99", text)),
        ("every_endpoint_gets_the_same_share",),
        "0.99 for",
    ),
    Fault(
        "KUBE-MARK-MASQ does not mark",
        lambda: on_node("iptables", lines_without("-A KUBE-MARK-MASQ")),
        ("marked_packets_are_masked", "node_ports_come_last"),
        "is not marked",
    ),
    Fault(
        "the mark is not taken off",
        lambda: on_node("iptables", lines_without("-A KUBE-POSTROUTING -j MARK")),
        ("marked_packets_are_masked",),
        "the mark 0x4000 stays on the packet",
    ),
    Fault(
        "KUBE-NODEPORTS is never reached",
        lambda: on_node("iptables", lines_without("-A KUBE-SERVICES .*-j KUBE-NODEPORTS")),
        ("node_ports_come_last", "a_local_service_stays_on_its_node"),
        "is not for the node's own addresses",
    ),
    Fault(
        "the userspace proxy is back",
        lambda: on_node("iptables", lambda text: text.replace("*nat\n", "*nat\n:KUBE-PORTALS-HOST - [0:0]\n")),
        ("portals_are_gone",),
        "has KUBE-PORTALS-HOST",
    ),
    Fault(
        "a service without endpoints is not rejected",
        lambda: on_node("iptables", lines_without("has no endpoints.*REJECT")),
        ("a_service_without_endpoints_rejects", "only_rules_know_a_cluster_ip"),
        "for hoplab-verify/nobody",
    ),
    Fault(
        "a node does not know a ClusterIP",
        lambda: on_node("iptables", lines_without("-A KUBE-SERVICES .*default/kubernetes:https")),
        (
            "only_rules_know_a_cluster_ip",
            "a_service_leads_to_its_endpoints",
            "marked_packets_are_masked",
            "every_endpoint_gets_the_same_share",
        ),
        f"the rules of {FIRST.name} lack 10.96.0.1",
    ),
)

# What else each lesson looks at, one fault for each requirement. They break more than one place, or so much that other
# lessons fail too.
NEIGHBOUR = next(pod for pod in HEALTHY.pods if pod.node is POD.node and pod is not POD)


def _host_network(text: str) -> str:
    document = json.loads(text)
    for item in document["items"]:
        item["spec"]["hostNetwork"] = True
    return json.dumps(document)


def _known_by(address: str) -> Callable[[dict[str, Any]], None]:
    def change(item: dict[str, Any]) -> None:
        item["status"]["addresses"] = [{"type": "InternalIP", "address": address}]

    return change


def _with_ip(address: object) -> Callable[[dict[str, Any]], None]:
    return lambda item: item["status"].update(podIP=str(address))


def _in_nat(pattern: str, to: str) -> Snapshot:
    return on_node("iptables", lambda text: re.sub(pattern, to, text))


def _info(text: str, **to: Any) -> str:
    """`ip -d -j link` with details of flannel.1 changed."""
    links = json.loads(text)
    for link in links:
        if link.get("ifname") == "flannel.1":
            link["linkinfo"]["info_data"].update(to)
    return json.dumps(links)


def also(lesson: str, says: str, broken: Callable[[], Snapshot]) -> Fault:
    return Fault(says, broken, (lesson,), says, exactly=False)


MORE = (
    also("the_load_balancer_gives_addresses_of_its_pool", "has 0 addresses", announced_by),
    also("the_load_balancer_gives_addresses_of_its_pool", "is not of 192.168.77.245", lambda: announced_by("10.9.9.9")),
    also(
        "the_load_balancer_gives_addresses_of_its_pool",
        "there is no service that asks the load balancer",
        lambda: in_api("services", lambda text: _dropped(text, "announced", "announced-local")),
    ),
    also(
        "every_node_has_its_own_address",
        f"Kubernetes knows {FIRST.name} by 192.168.77.99, not by {FIRST.address}",
        lambda: in_api("nodes", api_item(FIRST.name, _known_by("192.168.77.99"))),
    ),
    also(
        "every_pod_has_its_own_address",
        "no pod with an address of its own is running",
        lambda: in_api("pods", _host_network),
    ),
    also(
        "every_pod_has_its_own_address",
        "outside of 10.245.0.0/16",
        lambda: as_if(pod_cidr=IPv4Network("10.245.0.0/16")),
    ),
    also(
        "every_pod_has_its_own_address",
        f"{POD} has {POD.address} on another interface than eth0",
        lambda: in_pod("addresses", changed({"ifname": "eth0"}, ifname="eth1")),
    ),
    also(
        "every_pod_has_its_own_address",
        "two pods share an address",
        lambda: in_api("pods", api_item(NEIGHBOUR.api.name, _with_ip(POD.address))),
    ),
    also("all_addresses_are_private", "is in none of", lambda: as_if(service_cidr=IPv4Network("9.96.0.0/12"))),
    also(
        "a_node_has_the_interfaces_of_its_cni",
        f"{FIRST.name} has no interface cni0",
        lambda: on_node("links", without(ifname="cni0")),
    ),
    also(
        "a_pod_hangs_on_a_veth_pair",
        "no pod's network namespace was found",
        lambda: replace(HEALTHY, netns_facts={}),
    ),
    also("a_pod_hangs_on_a_veth_pair", f"{POD} has no eth0", lambda: in_pod("links", without(ifname="eth0"))),
    also(
        "a_pod_hangs_on_a_veth_pair",
        "are not a veth pair between two namespaces",
        lambda: on_node("links", changed({"ifname": HOST_END}, linkinfo={"info_kind": "macvlan"})),
    ),
    also(
        "a_pod_hangs_on_a_veth_pair",
        f"{HOST_END} names another peer than the eth0 of {POD}",
        lambda: on_node("links", changed({"ifname": HOST_END}, link_index=99)),
    ),
    also(
        "a_pod_hangs_on_a_veth_pair",
        f"one end of the pair of {POD} is down",
        lambda: on_node("links", changed({"ifname": HOST_END}, flags=["BROADCAST"])),
    ),
    also(
        "the_host_end_is_a_port_of_the_bridge",
        f"the node's end of the pair of {POD} is missing",
        lambda: on_node("links", without(ifname=HOST_END)),
    ),
    also(
        "encapsulation_leaves_room_in_the_mtu",
        f"{FIRST.name} has no eth0",
        lambda: on_node("links", without(ifname="eth0")),
    ),
    also(
        "vxlan_is_sent_from_the_nodes_address",
        f"{FIRST.name} has no VXLAN interface",
        lambda: on_node("links", without(ifname="flannel.1")),
    ),
    also(
        "vxlan_is_sent_from_the_nodes_address",
        f"flannel.1 of {FIRST.name} has the VNI 2",
        lambda: on_node("links", lambda text: _info(text, id=2)),
    ),
    also(
        "the_runtime_is_told_which_plugin_to_call",
        f"{FIRST.name} has no file in /etc/cni/net.d",
        lambda: on_node("cni_config", lambda _text: ""),
    ),
    also(
        "the_runtime_is_told_which_plugin_to_call",
        "calls flannel and bandwidth",
        lambda: on_node("cni_config", lambda text: text.replace('"portmap"', '"bandwidth"')),
    ),
    also(
        "the_announced_mac_is_the_interfaces",
        f"{FIRST.name} has no VXLAN interface",
        lambda: on_node("links", without(ifname="flannel.1")),
    ),
    also(
        "the_longest_prefix_decides",
        "no pod's network namespace was found",
        lambda: replace(HEALTHY, netns_facts={}),
    ),
    also(
        "kinds_of_routes",
        f"a route of {FIRST.name} does not say who made it",
        lambda: on_node("routes", changed({"dst": str(remote)}, protocol="")),
    ),
    also(
        "the_tables_are_asked_in_order",
        f"{FIRST.name} ends with default and main",
        lambda: on_node("rules", changed({"table": "main"}, priority=40000)),
    ),
    also(
        "a_pods_gateway_is_its_nodes_bridge",
        f"{FIRST.pod_cidr[1]} is on br0 of {FIRST.name}, not on cni0",
        lambda: on_node("addresses", changed({"ifname": "cni0"}, ifname="br0")),
    ),
    also(
        "a_nodes_gateway_is_the_labs",
        "learned different MACs",
        lambda: on_node("neighbours", changed({"dst": str(gateway)}, lladdr="02:00:00:00:00:01")),
    ),
    also(
        "the_same_subnet_goes_direct",
        f"{FIRST.name} does not reach {HEALTHY.nodes[0].name} directly",
        lambda: on_node("routes", lambda _text: "[]"),
    ),
    also(
        "the_same_subnet_goes_direct",
        f"{POD} on {FIRST.name} sends to {NEIGHBOUR} on {FIRST.name} by",
        lambda: in_pod(
            "routes", added({"dst": str(NEIGHBOUR.address), "gateway": str(FIRST.pod_cidr[1]), "dev": "eth0"})
        ),
    ),
    also(
        "nodes_are_ready_with_a_range_each",
        "which is no /24 of 10.245.0.0/16",
        lambda: as_if(pod_cidr=IPv4Network("10.245.0.0/16")),
    ),
    also(
        "pods_are_in_their_nodes_range",
        "no pod with an address of its own is running",
        lambda: in_api("pods", _host_network),
    ),
    also(
        "first_and_last_address_follow_from_the_prefix",
        "172.20.30.41/20 on",
        lambda: on_node("subnet_sums", without(dst="172.20.16.0/20")),
    ),
    also(
        "a_nodes_range_has_its_ends",
        f"{FIRST.pod_cidr[1]}, the first of {FIRST.pod_cidr}, is not on {FIRST.name}",
        lambda: on_node("addresses", without(ifname="cni0")),
    ),
    also(
        "a_nodes_range_has_its_ends",
        "an end of its range",
        lambda: replace(
            in_api("pods", api_item(POD.api.name, _with_ip(FIRST.pod_cidr[1]))),
            netns_facts=in_pod(
                "addresses", lambda text: text.replace(f'"{POD.address}"', f'"{FIRST.pod_cidr[1]}"')
            ).netns_facts,
        ),
    ),
    also(
        "services_have_a_range_of_their_own",
        "there is no service kube-system/kube-dns",
        lambda: in_api("services", lambda text: _dropped(text, "kube-dns")),
    ),
    also(
        "services_have_a_range_of_their_own",
        "hoplab-verify/echo has 10.200.0.1, outside of",
        lambda: in_api("services", api_item("echo", lambda item: item["spec"].update(clusterIP="10.200.0.1"))),
    ),
    also(
        "services_have_a_range_of_their_own",
        "the ranges of services and pods overlap",
        lambda: as_if(pod_cidr=IPv4Network("10.0.0.0/8")),
    ),
    also("tables_and_their_hooks", "has no filter or no nat table", lambda: _in_nat(r"\*nat\n(?:.*\n)*?COMMIT\n", "")),
    also(
        "tables_are_called_in_their_order",
        "no table is called",
        lambda: on_node("hooks", lambda _text: '{"nftables": []}'),
    ),
    also(
        "tables_and_their_hooks",
        "where all its chains are used, is called at OUTPUT",
        lambda: on_node(
            "all_hooks", lambda text: re.sub(r'{"chain": {[^}]*"raw", "name": "PREROUTING"[^}]*}}, ', "", text)
        ),
    ),
    also(
        "kube_proxy_hooks_in_its_chains",
        f"{FIRST.name} has no chain KUBE-NODEPORTS in nat",
        lambda: _in_nat(r"(\*nat\n(?:.*\n)*?):KUBE-NODEPORTS.*\n((?:.*\n)*?)(.*-A KUBE-NODEPORTS.*\n)+", r"\1\2"),
    ),
    also(
        "kube_proxy_hooks_in_its_chains",
        f"{FIRST.name} has no chain KUBE-PROXY-FIREWALL in filter",
        lambda: _in_nat(r".*KUBE-PROXY-FIREWALL.*\n", ""),
    ),
    also(
        "a_service_leads_to_its_endpoints",
        "may also lead nowhere",
        lambda: _in_nat(rf"(-A {ECHO.chain} )(.*{ECHO.endpoints[-1].chain}\n)", r"\1-m limit --limit 9/second \2"),
    ),
    also(
        "marked_packets_are_masked",
        "not KUBE-POSTROUTING",
        lambda: _in_nat(r".*-A KUBE-POSTROUTING .*MASQUERADE.*\n", ""),
    ),
    also(
        "node_ports_come_last",
        "ends in ACCEPT by",
        lambda: _in_nat(r".*-A KUBE-NODEPORTS .*\n", ""),
    ),
    also(
        "a_service_without_endpoints_rejects",
        f"has rules in {NOBODY.chain}",
        lambda: _in_nat(r"\*nat\n", f"*nat\n:{NOBODY.chain} - [0:0]\n[0:0] -A {NOBODY.chain} -j KUBE-MARK-MASQ\n"),
    ),
    also(
        "a_service_without_endpoints_rejects",
        "every service has endpoints",
        lambda: in_api("services", lambda text: _dropped(text, "nobody")),
    ),
)


def test_all_lessons_hold_on_a_healthy_lab() -> None:
    assert failures(read_only(), HEALTHY) == {}
    assert len(read_only()) >= 35


@pytest.mark.parametrize("fault", (*FAULTS, *MORE), ids=lambda fault: fault.name)
def test_a_fault_fails_exactly_its_lessons(fault: Fault) -> None:
    fault.fails_its_lessons()


def test_every_lesson_catches_some_fault() -> None:
    there = {name for name in read_only() if applies(name, HEALTHY)}
    assert there == {name for fault in (*FAULTS, *MORE) for name in fault.caught_by}


def test_lessons_that_do_not_apply_are_skipped_with_the_reason() -> None:
    def lab(**other: Any) -> Snapshot:
        return replace(HEALTHY, setting=replace(HEALTHY.setting, **other))

    assert requirements.skip_reason(HEALTHY, cni="flannel", backend="vxlan", proxy="iptables", nodes=2) == ""
    assert "needs the CNI flannel; this lab has calico" in requirements.skip_reason(lab(cni="calico"), cni="flannel")
    assert "needs the load balancer metallb; this lab has none" in requirements.skip_reason(
        lab(load_balancer="none"), load_balancer="metallb"
    )
    assert requirements.skip_reason(HEALTHY, load_balancer="metallb") == ""
    assert "backend vxlan; this lab has host-gw" in requirements.skip_reason(
        lab(backend="host-gw"), cni="flannel", backend="vxlan"
    )
    assert "needs kube-proxy in iptables mode" in requirements.skip_reason(lab(proxy_mode="nftables"), proxy="iptables")
    assert "needs the service other of the verification workload" in requirements.skip_reason(HEALTHY, service="other")
    assert requirements.skip_reason(HEALTHY, service="echo") == ""
    assert "needs 9 nodes" in requirements.skip_reason(HEALTHY, nodes=9)


def test_a_failed_claim_carries_its_evidence() -> None:
    with pytest.raises(ClaimFailed) as caught:
        Claim().require(False, "worker1 has no cni0", "1: lo", "2: eth0")
    assert caught.value.why == "worker1 has no cni0"
    assert str(caught.value) == "worker1 has no cni0\n    1: lo\n    2: eth0"
