"""A recording of a dual-stack lab, with one thing of IPv6 broken at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

from hoplab.expectations import proxy
from hoplab.expectations.proxy import ServiceExpectation
from hoplab.observe.snapshot import Snapshot
from tests.support import edits
from tests.support.edits import Edit, Fault, api_item, changed, in_api, lines_without, without
from tests.support.recordings import recording


def echo_of(lab: Snapshot) -> ServiceExpectation:
    return next(expected for expected in proxy.expectations6(lab) if expected.service == "hoplab-verify/echo")


RECORDED = recording("flannel-vxlan-dual")
CILIUM = recording("cilium-native-dual-cilium")
ECHO = echo_of(RECORDED)
FIRST, SECOND = RECORDED.nodes[:2]
POD = next(pod for pod in RECORDED.pods_on(FIRST) if pod.api.label("app") == "echo")
OTHER = next(pod for pod in RECORDED.pods_on(SECOND) if pod.api.label("app") == "echo")
GATEWAY = IPv6Address("fd00:77::1")

EVERYBODY, WAY_OUT = "everybody_has_an_address_of_each_family", "a_pods_way_out_by_ipv6"
ROUTES, UNWRAPS = "nodes_route_ipv6_as_they_route_ipv4", "who_unwraps_ipv6_is_written_down"
SERVICE, MASKED = "a_service_of_both_families_has_two_addresses", "what_leaves_the_ipv6_pod_range_is_masqueraded"
TALK, CLUSTER_IP = "pods_of_two_nodes_talk_by_ipv6", "an_ipv6_cluster_ip_is_a_pod"
OUTSIDE = "the_outside_sees_the_nodes_ipv6_address"
LIVE = (TALK, CLUSTER_IP, OUTSIDE)


def on_node(fact: str, edit: Edit) -> Snapshot:
    return edits.on_node(fact, edit, RECORDED, FIRST.name)


def in_pod(fact: str, edit: Edit) -> Snapshot:
    return edits.in_pod(fact, edit, RECORDED, POD)


def of_api(fact: str, name: str, change: Callable[[dict[str, Any]], None]) -> Snapshot:
    return in_api(fact, api_item(name, change), RECORDED)


def is_known_by(address: str) -> Callable[[dict[str, Any]], None]:
    def change(item: dict[str, Any]) -> None:
        for entry in item["status"]["addresses"]:
            if ":" in entry.get("address", ""):
                entry["address"] = address

    return change


def has_addresses(address: IPv6Address) -> Callable[[dict[str, Any]], None]:
    def change(item: dict[str, Any]) -> None:
        item["status"]["podIPs"] = [{"ip": str(POD.address)}, {"ip": str(address)}]

    return change


def other_address(fact: str, address: IPv6Address) -> Snapshot:
    """The pod has another address of IPv6, and Kubernetes knows it by that."""
    told = of_api("pods", POD.api.name, has_addresses(address))
    known = in_pod(fact, lambda text: text.replace(f'"{POD.address6}"', f'"{address}"'))
    return replace(told, netns_facts=known.netns_facts)


def no_endpoints6(text: str) -> str:
    document = json.loads(text)
    document["items"] = [found for found in document["items"] if found["addressType"] != "IPv6"]
    return json.dumps(document)


def moved(item: dict[str, Any]) -> None:
    item["spec"]["clusterIPs"] = [ip if "." in ip else "fd00:1::1" for ip in item["spec"]["clusterIPs"]]


def single_stack(text: str) -> str:
    document = json.loads(text)
    for service in document["items"]:
        service["spec"]["clusterIPs"] = [ip for ip in service["spec"].get("clusterIPs", ()) if ":" not in ip]
    return json.dumps(document)


FAULTS = (
    Fault(
        "a node has no address of IPv6",
        lambda: on_node("addresses6", lambda text: text.replace(str(FIRST.address6), "fd00:77::99")),
        (EVERYBODY,),
        f"{FIRST.name} has no {FIRST.address6} in fd00:77::/64 on eth0",
    ),
    Fault(
        "Kubernetes knows a node by another address of IPv6",
        lambda: of_api("nodes", FIRST.name, is_known_by("fd00:77::99")),
        (EVERYBODY,),
        f"Kubernetes knows {FIRST.name} by fd00:77::99",
        exactly=False,
    ),
    Fault(
        "a pod has no address of IPv6",
        lambda: in_pod("addresses6", lambda text: text.replace(str(POD.address6), "fd00:244:0:9::9")),
        (EVERYBODY,),
        f"{POD} has no {POD.address6} on its eth0",
    ),
    Fault(
        "a pod has an address of IPv6 of no node's range",
        lambda: other_address("addresses6", IPv6Address("fd00:244:0:9::9")),
        (EVERYBODY,),
        f"{POD} has fd00:244:0:9::9, which is not of {FIRST.name}'s",
        exactly=False,
    ),
    Fault(
        "two pods share an address of IPv6",
        lambda: other_address("addresses6", next(pod for pod in RECORDED.pods_on(FIRST) if pod is not POD).address6),
        (EVERYBODY,),
        "two pods share an address",
        exactly=False,
    ),
    Fault(
        "a pod has no default route of IPv6",
        lambda: in_pod("routes6", without(dst="default", type="unicast")),
        (WAY_OUT,),
        f"{POD} has the default routes nothing, not one via {FIRST.pod_cidr6[1]}",
    ),
    Fault(
        "a pod's gateway of IPv6 is nobody's address",
        lambda: on_node("addresses6", lambda text: text.replace(f'"{FIRST.pod_cidr6[1]}"', '"fd00:244:0:9::1"')),
        (WAY_OUT,),
        f"{FIRST.pod_cidr6[1]} is on nothing of {FIRST.name}, not on cni0",
    ),
    Fault(
        "cilium_host has not the pods' gateway of IPv6",
        lambda: edits.on_node("addresses6", lambda text: text.replace("cilium_host", "eth1"), CILIUM, "worker1"),
        (WAY_OUT,),
        "is on eth1 of worker1, not on cilium_host",
        exactly=False,
    ),
    Fault(
        "a node has no route of IPv6 to the other's pods",
        lambda: on_node("routes6", without(dst=str(SECOND.pod_cidr6), table="main")),
        (ROUTES,),
        f"{FIRST.name} has no route {SECOND.pod_cidr6} via {SECOND.pod_cidr6[0]} dev flannel-v6.1 onlink",
        exactly=False,
    ),
    Fault(
        "a node does not forward IPv6",
        lambda: on_node(
            "sysctls", lambda text: text.replace("ipv6/conf/all/forwarding:1", "ipv6/conf/all/forwarding:0")
        ),
        (ROUTES,),
        f"net.ipv6.conf.all.forwarding is 0 on {FIRST.name}",
    ),
    Fault(
        "a node has no VXLAN interface for IPv6",
        lambda: on_node("links", without(ifname="flannel-v6.1")),
        (UNWRAPS,),
        f"{FIRST.name} has no VXLAN interface for IPv6",
        exactly=False,
        first="a_node_has_the_interfaces_of_its_cni",
        first_says=f"{FIRST.name} has no interface flannel-v6.1",
    ),
    Fault(
        "the MTU of flannel-v6.1 leaves no room for an outer header of IPv6",
        lambda: on_node("links", changed({"ifname": "flannel-v6.1"}, mtu=1450)),
        (UNWRAPS,),
        f"flannel-v6.1 on {FIRST.name} has the MTU 1450, not 1430",
        exactly=False,
    ),
    Fault(
        "flannel-v6.1 has another MAC than announced",
        lambda: on_node("links", changed({"ifname": "flannel-v6.1"}, address="02:00:00:00:00:01")),
        (UNWRAPS,),
        "but flannel-v6.1 has 02:00:00:00:00:01",
    ),
    Fault(
        "a neighbour of IPv6 is not written down",
        lambda: on_node("neighbours6", without(dst=str(SECOND.pod_cidr6[0]))),
        (UNWRAPS,),
        f"{FIRST.name} has no neighbour {SECOND.pod_cidr6[0]} dev flannel-v6.1",
    ),
    Fault(
        "an FDB entry of IPv6 is not there",
        lambda: on_node("fdb", without(dst=str(SECOND.address6))),
        (UNWRAPS,),
        f"{FIRST.name} has no FDB entry",
    ),
    Fault(
        "no service has two addresses",
        lambda: in_api("services", single_stack, RECORDED),
        (SERVICE,),
        "no service has a ClusterIP of IPv6",
    ),
    Fault(
        "a ClusterIP of IPv6 is of another range",
        lambda: of_api("services", "echo", moved),
        (SERVICE,),
        "is not in fd00:96::/112",
    ),
    Fault(
        "a service has no endpoint of IPv6",
        lambda: in_api("endpoints6", no_endpoints6, RECORDED),
        (SERVICE,),
        "has no endpoint of IPv6",
    ),
    Fault(
        "the rules of IPv6 know nothing of a service",
        lambda: on_node("ip6tables", lines_without(rf"-A KUBE-SERVICES -d {ECHO.cluster_ip}")),
        (SERVICE,),
        "leads to ACCEPT, not to",
    ),
    Fault(
        "nothing masks IPv6",
        lambda: on_node("ip6tables", lines_without("FLANNEL-POSTRTG .*MASQUERADE")),
        (MASKED,),
        f"to {GATEWAY} ends in ACCEPT, not MASQUERADE",
    ),
    Fault(
        "IPv6 between pods is masked",
        lambda: on_node("ip6tables", lines_without("FLANNEL-POSTRTG .*(RETURN|-m mark)")),
        (MASKED,),
        "is translated",
    ),
)
