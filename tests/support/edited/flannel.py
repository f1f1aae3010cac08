"""A recording of the usual lab (flannel's VXLAN, kube-proxy's iptables) with one thing broken at a time."""

from __future__ import annotations

import json
import re
from typing import Any

from hoplab.expectations import proxy
from hoplab.observe.facts.api_services import API_SERVICES
from tests.support.edits import (
    FIRST,
    HEALTHY,
    POD,
    SECOND,
    Fault,
    added,
    address_of,
    api_item,
    changed,
    in_api,
    in_pod,
    lines_without,
    objects_without,
    on_node,
    without,
)


def not_ready(item: dict[str, Any]) -> None:
    item["status"]["conditions"] = [{"type": "Ready", "status": "False", "message": "kubelet is gone"}]


gateway = HEALTHY.setting.gateway
remote = SECOND.pod_cidr
host_end = POD.host_end
assert host_end
HOST_END = host_end.name
NOBODY = next(expected for expected in proxy.expectations(HEALTHY) if expected.service == "hoplab-verify/nobody")
ECHO = next(expected for expected in proxy.expectations(HEALTHY) if expected.service == "hoplab-verify/echo")
ANNOUNCED = next(service for service in HEALTHY.api[API_SERVICES] if service.name == "announced").balancer_ips[0]


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
        first="a_nodes_gateway_is_the_labs",
        first_says=f"{FIRST.name} has the default route None",
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
        "a rule takes what is for pods",
        lambda: on_node(
            "rules",
            added({"priority": 5270, "src": "all", "table": "52"}),
            on_node("routes", added({"dst": "10.244.0.0/16", "dev": "eth0", "table": "52", "scope": "link"})),
        ),
        ("no_rule_takes_what_pods_send", "the_longest_prefix_decides"),
        f"on {FIRST.name} rule 5270: from all lookup 52 takes what",
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
        lambda: in_api("nodes", lambda text: objects_without(text, SECOND.name)),
        ("nodes_are_ready_with_a_range_each", "every_pod_has_its_own_address", "every_fdb_entry_is_of_one_node"),
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


def _info(text: str, **to: Any) -> str:
    """`ip -d -j link` with details of flannel.1 changed."""
    links = json.loads(text)
    for link in links:
        if link.get("ifname") == "flannel.1":
            link["linkinfo"]["info_data"].update(to)
    return json.dumps(links)
