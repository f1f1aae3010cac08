"""What else each lesson looks at on the usual lab, one fault for each requirement.

These faults break more than one place, or so much that other lessons fail too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from hoplab.observe.snapshot import Snapshot
from tests.support.edited.flannel import ECHO, HOST_END, NOBODY, _info, gateway, remote
from tests.support.edits import (
    FIRST,
    HEALTHY,
    POD,
    added,
    also,
    announced_by,
    api_item,
    changed,
    in_api,
    in_pod,
    objects_without,
    on_node,
    without,
)


def as_if(**asked: Any) -> Snapshot:
    """The same hosts in a lab that was asked to be another one."""
    return replace(HEALTHY, setting=replace(HEALTHY.setting, **asked))


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


def no_interface(name: str) -> dict[str, str]:
    """What is named first where a node lacks an interface."""
    return {"first": "a_node_has_the_interfaces_of_its_cni", "first_says": f"{FIRST.name} has no interface {name}"}


NO_NETNS = {"first": "every_pod_has_its_own_address", "first_says": "no network namespace on"}

MORE = (
    also("the_load_balancer_gives_addresses_of_its_pool", "has 0 addresses", announced_by),
    also("the_load_balancer_gives_addresses_of_its_pool", "is not of 192.168.77.245", lambda: announced_by("10.9.9.9")),
    also(
        "the_load_balancer_gives_addresses_of_its_pool",
        "there is no service that asks the load balancer",
        lambda: in_api("services", lambda text: objects_without(text, "announced", "announced-local")),
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
        first="pods_are_in_their_nodes_range",
    ),
    also(
        "every_pod_has_its_own_address",
        "outside of 10.245.0.0/16",
        lambda: as_if(pod_cidr=IPv4Network("10.245.0.0/16")),
        first="nodes_are_ready_with_a_range_each",
        first_says="which is no /24 of 10.245.0.0/16",
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
        **NO_NETNS,
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
        first="a_pod_hangs_on_a_veth_pair",
        first_says=f"no interface with the index that the eth0 of {POD} names",
    ),
    also(
        "encapsulation_leaves_room_in_the_mtu",
        f"{FIRST.name} has no eth0",
        lambda: on_node("links", without(ifname="eth0")),
        **no_interface("eth0"),
    ),
    also(
        "vxlan_is_sent_from_the_nodes_address",
        f"{FIRST.name} has no VXLAN interface",
        lambda: on_node("links", without(ifname="flannel.1")),
        **no_interface("flannel.1"),
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
        **no_interface("flannel.1"),
    ),
    also(
        "the_longest_prefix_decides",
        "no pod's network namespace was found",
        lambda: replace(HEALTHY, netns_facts={}),
        **NO_NETNS,
    ),
    also(
        "no_rule_takes_what_pods_send",
        f"on {FIRST.name} rule 100: from 10.244.0.0/16 blackhole takes what",
        lambda: on_node("rules", added({"priority": 100, "src": "10.244.0.0", "srclen": 16, "action": "blackhole"})),
    ),
    also(
        "no_rule_takes_what_pods_send",
        "no pod's network namespace was found",
        lambda: replace(HEALTHY, netns_facts={}),
        **NO_NETNS,
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
        first="a_node_routes_its_own_range_to_its_pods",
        first_says=f"{FIRST.name} has no route {FIRST.pod_cidr} dev cni0",
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
        lambda: in_api("services", lambda text: objects_without(text, "kube-dns")),
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
        lambda: in_api("services", lambda text: objects_without(text, "nobody")),
    ),
)
