"""A healthy lab stays healthy with ordinary objects on it that the lab itself does not make: no lesson fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hoplab.expectations import proxy
from hoplab.observe.snapshot import Snapshot
from tests.support.edited import calico
from tests.support.edits import (
    FIRST,
    HEALTHY,
    POD,
    SECOND,
    added,
    api_item,
    changed,
    edited_facts,
    in_api,
    in_pod,
    lines_without,
    on_node,
    without,
)
from tests.support.lesson_functions import failures, read_only

SINGLE = next(service for service in proxy.expectations(HEALTHY) if service.service == "hoplab-verify/single")
ECHO = next(service for service in proxy.expectations(HEALTHY) if service.service == "hoplab-verify/echo")
LOCAL_CHAIN = ECHO.chain.replace("SVC", "SVL")


def without_conditions(text: str) -> str:
    document = json.loads(text)
    for item in document["items"]:
        for endpoint in item.get("endpoints") or ():
            endpoint.pop("conditions", None)
    return json.dumps(document)


def of_both_families(item: dict[str, Any]) -> None:
    item["status"]["loadBalancer"]["ingress"].append({"ip": "fd00:77::f5"})


def multipath(lab: Snapshot) -> Snapshot:
    hops = [{"gateway": "192.168.77.1", "dev": "eth0", "weight": 1}, {"gateway": "192.168.77.2", "dev": "eth0"}]
    route = {"dst": "10.7.0.0/16", "nhid": 40, "protocol": "static", "nexthops": hops}
    shown = "eth0\t0000070A\t014DA8C0\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    return on_node("proc_routes", lambda text: text + shown, on_node("routes", added(route), lab))


def with_other_routes(lab: Snapshot) -> Snapshot:
    """A gateway of IPv6, a route that drops, one that the main table passes over, and a broadcast address."""
    more = (
        {"dst": "10.5.0.0/16", "via": {"family": "inet6", "host": "fe80::1"}, "dev": "eth0", "protocol": "static"},
        {"type": "blackhole", "dst": "10.6.0.0/16", "nhid": 50, "dev": "lo", "protocol": "static"},
        {"type": "throw", "dst": "192.0.2.0/24", "protocol": "static"},
        {"type": "broadcast", "dst": "192.0.2.255", "dev": "eth0", "protocol": "static"},
    )
    lines = "eth0\t0000050A\t00000000\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    lines += "lo\t0000060A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    lines += "*\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    return on_node("proc_routes", lambda text: text + lines, on_node("routes", added(*more), lab))


def veth(index: int, name: str, **more: Any) -> dict[str, Any]:
    info = {"linkinfo": {"info_kind": "veth"}}
    return {"ifindex": index, "ifname": name, "link_index": 2, "link_netnsid": 9, "flags": ["UP"], **info, **more}


def docker(lab: Snapshot, node: str) -> Snapshot:
    bridge = {"ifindex": 90, "ifname": "docker0", "flags": ["UP"], "linkinfo": {"info_kind": "bridge"}}
    address = {"family": "inet", "local": "172.17.0.1", "prefixlen": 16, "scope": "global"}
    seen = on_node("links", added(bridge, veth(91, "vethd0c4e21", master="docker0")), lab, node)
    return on_node("addresses", added({"ifname": "docker0", "addr_info": [address]}), seen, node)


def multus(lab: Snapshot) -> Snapshot:
    """A pod with a second interface by the plugin ptp, and a configuration that names flannel's."""
    end = veth(95, "veth5e6f7a8b", link_index=4)
    seen = in_pod("links", added(veth(4, "net1", link_index=95)), on_node("links", added(end), lab))
    config = '{"type": "multus", "clusterNetwork": "/host/etc/cni/net.d/10-flannel.conflist"}'
    return on_node("cni_config", lambda text: f"==> /etc/cni/net.d/00-multus.conf <==\n{config}\n\n{text}", seen)


def multus_beside_calico() -> Snapshot:
    """A pod with a second interface by the plugin macvlan, and a route by it."""
    link = {"ifindex": 4, "ifname": "net1", "link_index": 2, "link_netnsid": 0, "linkinfo": {"info_kind": "macvlan"}}
    route = {"dst": "192.168.99.0/24", "dev": "net1", "protocol": "kernel", "scope": "link"}
    shown = "net1\t0063A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    seen = in_pod("routes", added(route), in_pod("links", added(link), calico.BGP, calico.POD), calico.POD)
    return in_pod("proc_routes", lambda text: text + shown, seen, calico.POD)


def vpn(lab: Snapshot) -> Snapshot:
    """The rules of wg-quick: all but what it sent itself, and what has a route in the main table, by its own table."""
    rules = (
        {"priority": 32764, "src": "all", "table": "main", "suppress_prefixlen": 0},
        {"priority": 32765, "not": None, "src": "all", "fwmark": "0xca6c", "table": "51820"},
    )
    route = {"dst": "default", "dev": "wg0", "table": "51820", "scope": "link"}
    return on_node("rules", added(*rules), on_node("routes", added(route), lab))


def local(lab: Snapshot) -> Snapshot:
    """The service echo with internalTrafficPolicy: Local, on nodes whose kube-proxy has it so."""
    seen = in_api("services", api_item("echo", lambda item: item["spec"].update(internalTrafficPolicy="Local")), lab)
    nodes = {}
    for node, facts in seen.node_facts.items():
        others = [endpoint.chain for endpoint in ECHO.endpoints if endpoint.node != node]

        def edit(text: str, others: list[str] = others) -> str:
            lines = [line for line in text.splitlines() if not _leads(line, others)]
            kept = [re.sub(r" -m statistic \S+ \S+ --probability \S+", "", line) for line in lines]
            return "\n".join(
                (after if ECHO.chain in before else before).replace(ECHO.chain, ECHO.chain.replace("SVC", "SVL"))
                for before, after in zip(lines, kept, strict=True)
            )

        nodes[node] = edited_facts(facts, "iptables", edit)
    return replace(seen, node_facts=nodes)


def away(lab: Snapshot) -> Snapshot:
    """The service single with internalTrafficPolicy: Local, whose only endpoint is on the first node."""
    seen = in_api("services", api_item("single", lambda item: item["spec"].update(internalTrafficPolicy="Local")), lab)
    own = SINGLE.chain.replace("SVC", "SVL")
    looked_up = rf"(-A KUBE-SERVICES -d {SINGLE.cluster_ip}/32 .*-j ){SINGLE.chain}\n"
    drop = f"-A KUBE-SERVICES -d {SINGLE.cluster_ip}/32 -p tcp -m comment --comment "
    drop += f'"hoplab-verify/single has no local endpoints" -m tcp --dport {SINGLE.port} -j DROP\n'

    def at_home(text: str) -> str:
        rules = "".join(re.findall(rf".*-A {SINGLE.chain} .*\n", text)).replace(SINGLE.chain, own)
        return _in_table("nat", f":{own} - [0:0]\n{rules}", re.sub(looked_up, rf"\g<1>{own}\n", text))

    def elsewhere(text: str) -> str:
        return _in_table("filter", f"[0:0] {drop}", re.sub(rf"\[.*{looked_up}", "", text))

    return on_node("iptables", elsewhere, on_node("iptables", at_home, seen), SECOND.name)


def _in_table(table: str, lines: str, text: str) -> str:
    begin = text.index("COMMIT\n", text.index(f"*{table}\n"))
    return text[:begin] + lines + text[begin:]


def _leads(line: str, chains: list[str]) -> bool:
    return f"-A {ECHO.chain} " in line and any(f"-j {chain}" in line for chain in chains)


def without_pods(lab: Snapshot, node: str) -> Snapshot:
    """A node on which no pod ever ran: the plugin of the CNI made no bridge there."""

    def elsewhere(text: str) -> str:
        found = json.loads(text)
        return json.dumps({**found, "items": [pod for pod in found["items"] if pod["spec"].get("nodeName") != node]})

    def bare(text: str) -> str:
        veths = {link["ifname"] for link in json.loads(text) if link.get("linkinfo", {}).get("info_kind") == "veth"}
        return json.dumps([link for link in json.loads(text) if link["ifname"] not in {"cni0", *veths}])

    seen = in_api("pods", elsewhere, replace(lab, netns_facts={**lab.netns_facts, node: {}}))
    seen = on_node("addresses", without(ifname="cni0"), on_node("links", bare, seen, node), node)
    return on_node("routes", without(dev="cni0"), seen, node)


BARE = without_pods(HEALTHY, SECOND.name)
OF_A_BRIDGE = (
    "a_node_has_the_interfaces_of_its_cni",
    "the_host_end_is_a_port_of_the_bridge",
    "encapsulation_leaves_room_in_the_mtu",
    "a_node_routes_its_own_range_to_its_pods",
    "a_nodes_range_has_its_ends",
    "nodes_forward",
)


def test_a_node_without_pods_needs_no_bridge() -> None:
    assert failures(OF_A_BRIDGE, BARE) == {}


def test_a_bridge_that_its_last_pod_left_is_no_fault() -> None:
    left = json.loads(HEALTHY.node_facts[SECOND.name].outputs["links"].out)
    bridge = next(link for link in left if link["ifname"] == "cni0")
    down = {**bridge, "flags": ["NO-CARRIER", "BROADCAST", "MULTICAST", "UP"], "operstate": "DOWN"}
    route = {"dst": str(SECOND.pod_cidr), "dev": "cni0", "scope": "link", "flags": ["linkdown"]}
    lab = on_node("links", added(down), on_node("routes", added(route), BARE, SECOND.name), SECOND.name)
    assert failures(OF_A_BRIDGE, lab) == {}


def test_the_first_pod_of_a_node_needs_the_bridge() -> None:
    lab = replace(BARE, api=HEALTHY.api)
    assert f"{SECOND.name} has no interface cni0" in failures(OF_A_BRIDGE, lab)["a_node_has_the_interfaces_of_its_cni"]


def test_a_node_without_pods_needs_no_block() -> None:
    """Calico makes a node's first block for its first pod, where no tunnel has an address of the pod range."""
    node = calico.SECOND.name

    def of_others(text: str) -> str:
        found = json.loads(text)
        return json.dumps({**found, "items": [one for one in found["items"] if node not in json.dumps(one)]})

    bare = in_api("ipam_blocks", of_others, calico.BGP)
    assert f"no block belongs to {node}" in failures(["blocks_do_not_overlap"], bare)["blocks_do_not_overlap"]
    gone = in_api("pods", of_others, bare)
    assert failures(["blocks_do_not_overlap"], gone) == {}


def backups(text: str) -> str:
    other = '{"name": "k8s-pod-network", "plugins": [{"type": "calico"}]}'
    return f"==> /etc/cni/net.d/05-calico.conflist.cilium_bak <==\n{other}\n\n{text}"


def first_file(text: str) -> str:
    return f'==> /etc/cni/net.d/05-x.json <==\n{{"type": "x"}}\n\n{text}'


def route_for_one_pod(lab: Snapshot) -> Snapshot:
    """Felix wrote a route for one address of a block that has a route to the same node."""
    first, second = lab.nodes
    pod = next(pod for pod in lab.pods if pod.node is second)
    route = {
        "dst": str(pod.address),
        "gateway": str(second.address),
        "dev": "tunl0",
        "protocol": "boot",
        "flags": ["onlink"],
    }
    to, via = (f"{int.from_bytes(address.packed, 'little'):08X}" for address in (pod.address, second.address))
    shown = f"tunl0\t{to}\t{via}\t0007\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
    seen = on_node("routes", added(route), lab, first.name)
    return on_node("proc_routes", lambda text: text + shown, seen, first.name)


ORDINARY: dict[str, Callable[[], Snapshot]] = {
    "a pod of Calico has a route of its own to its node": lambda: route_for_one_pod(calico.IPIP),
    "a slice written by hand has no conditions": lambda: in_api("endpoints", without_conditions),
    "a balancer's service has addresses of both families": lambda: in_api(
        "services", api_item("announced", of_both_families)
    ),
    "a route has several next hops": lambda: multipath(HEALTHY),
    "a gateway is of IPv6 and routes drop packets": lambda: with_other_routes(HEALTHY),
    "a service's traffic stays on its node": lambda: local(HEALTHY),
    "a service's only endpoint is on another node": lambda: away(HEALTHY),
    "a container of Docker is beside the pods": lambda: docker(HEALTHY, FIRST.name),
    "a container of Docker is beside Calico's pods": lambda: docker(calico.BGP, calico.FIRST.name),
    "a pod has a second interface by Multus": lambda: multus(HEALTHY),
    "a pod of Calico has a second interface by Multus": multus_beside_calico,
    "a VPN has rules that leave pods alone": lambda: vpn(HEALTHY),
    "net.d has a backup": lambda: on_node("cni_config", backups),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_no_lesson_fails(name: str) -> None:
    assert failures(read_only(), ORDINARY[name]()) == {}


CONFIG = "the_runtime_is_told_which_plugin_to_call"


@pytest.mark.parametrize(
    ("lesson", "says", "broken"),
    [
        (
            "a_service_leads_to_its_endpoints",
            f"by PREROUTING, KUBE-SERVICES, {LOCAL_CHAIN}",
            lambda: on_node("iptables", lambda text: text.replace(ECHO.chain, LOCAL_CHAIN)),
        ),
        ("a_service_leads_to_its_endpoints", f"by {LOCAL_CHAIN}", lambda: replace(HEALTHY, api=local(HEALTHY).api)),
        (
            "a_service_without_endpoints_rejects",
            "ends in ACCEPT for hoplab-verify/single",
            lambda: on_node("iptables", lines_without("no local endpoints"), away(HEALTHY), SECOND.name),
        ),
        (
            "a_node_has_the_interfaces_of_its_cni",
            "veths for",
            lambda: on_node("links", added(veth(91, "x", master="cni0"))),
        ),
        (
            "a_node_has_the_interfaces_of_its_cni",
            "veths for",
            lambda: calico.on_node("links", added(veth(91, "cali0123456789a"))),
        ),
        (
            CONFIG,
            "the first file on worker1 is /etc/cni/net.d/05-x.json, not",
            lambda: on_node("cni_config", first_file, node="worker1"),
        ),
        (
            "proc_and_ip_route_agree",
            "they differ on",
            lambda: on_node("routes", changed({"dst": "10.7.0.0/16"}, nexthops=[{"dev": "eth1"}]), multipath(HEALTHY)),
        ),
        (
            "who_unwraps_is_written_down",
            f"dst {SECOND.address}",
            lambda: on_node("fdb", changed({"dst": str(SECOND.address)}, vni=7)),
        ),
        (
            "the_same_subnet_goes_direct",
            f"{POD} on {FIRST.name} sends to",
            lambda: in_pod("routes", changed({"dst": str(FIRST.pod_cidr)}, type="throw", dev=None)),
        ),
    ],
)
def test_what_is_broken_is_still_named(lesson: str, says: str, broken: Callable[[], Snapshot]) -> None:
    assert says in failures([lesson], broken()).get(lesson, "")


def test_a_node_drops_what_has_endpoints_elsewhere_only() -> None:
    """With internalTrafficPolicy: Local, and no endpoint of the service on the first node."""
    service = next(service for service in proxy.expectations(local(HEALTHY)) if service.service == ECHO.service)
    assert service.endpoints == ECHO.endpoints and service.chain.startswith("KUBE-SVL-")
    assert {end.node for end in service.on(FIRST.name).endpoints} == {FIRST.name}
    assert service.on("elsewhere") is service
