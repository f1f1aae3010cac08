"""An imaginary lab with Cilium beside kube-proxy: a recording of flannel, with what Cilium 1.20 leaves in its place.

Interfaces, routes, rules and maps are as its source writes them. A recording of a lab takes the place of this one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from hoplab.expectations import proxy
from hoplab.observe.facts import Facts
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Node, Pod, Snapshot
from tests.support.recordings import recording

RECORDED = recording("flannel-vxlan")
ROUTER = 200  # of each node's range, the address of cilium_host
HOST_MAC, VXLAN_MAC = "0e:00:00:00:00:01", "0e:00:00:00:00:02"
CONFIG = """\
==> /etc/cni/net.d/05-cilium.conflist <==
{"cniVersion": "1.0.0", "name": "portmap", "plugins": [
  {"type": "cilium-cni", "enable-debug": false, "log-file": "/var/run/cilium/cilium-cni.log"},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
"""
SPARED_NODES = """\
-A CILIUM_POST_nat -s {own} -m set --match-set cilium_node_set_v4 dst \
-m comment --comment "exclude traffic to cluster nodes from masquerade" -j ACCEPT
"""
ALWAYS = """\
-A CILIUM_POST_nat -s {own} ! -d {spared} ! -o cilium_+ \
-m comment --comment "cilium masquerade non-cluster" -j MASQUERADE
-A CILIUM_POST_nat -m mark --mark 0xa00/0xe00 \
-m comment --comment "exclude proxy return traffic from masquerade" -j ACCEPT
"""
FROM_THE_HOST = """\
-A CILIUM_POST_nat ! -s {own} ! -d {own} -o cilium_host \
-m comment --comment "cilium host->cluster masquerade" -j SNAT --to-source {router}
"""
TO_OWN_PODS = """\
-A CILIUM_POST_nat -s 127.0.0.1/32 -o cilium_host \
-m comment --comment "cilium host->cluster from 127.0.0.1 masquerade" -j SNAT --to-source {router}
-A CILIUM_POST_nat -o cilium_host -m mark --mark 0xf00/0xf00 -m conntrack --ctstate DNAT \
-m comment --comment "hairpin traffic that originated from a local pod" -j SNAT --to-source {router}
"""
# As two agents in namespaces wrote them, and with native routing as the source says.
RULES = {"vxlan": ALWAYS + FROM_THE_HOST + TO_OWN_PODS, "native": SPARED_NODES + ALWAYS + TO_OWN_PODS}
IDENTITIES = {"kube-system": 5000, "hoplab-verify": 6000, "ingress-readable": 7000, "metallb-system": 8000}

Json = Any
Edit = Callable[[Json], Json]


def lab(backend: str = "vxlan") -> Snapshot:
    """Return a healthy lab with this backend."""
    nodes = json.loads(RECORDED.api.outputs["nodes"].out)
    for index, item in enumerate(nodes["items"]):
        item["metadata"]["annotations"] = {
            "network.cilium.io/ipv4-cilium-host": str(_router(RECORDED.nodes[index])),
        }
    api = Facts("api", {**RECORDED.api.outputs, "nodes": Output(0, json.dumps(nodes))})
    seen = replace(RECORDED, setting=replace(RECORDED.setting, cni="cilium", backend=backend), api=api)
    return replace(
        seen,
        node_facts={node.name: _node(node, backend) for node in RECORDED.nodes},
        netns_facts={
            node.name: {pod.netns: _pod(pod, backend) for pod in RECORDED.pods if pod.node.name == node.name}
            for node in RECORDED.nodes
        },
    )


def _router(node: Node) -> IPv4Address:
    return node.pod_cidr[ROUTER]


def _edited(facts: Facts, new: dict[str, str], **edits: Edit) -> Facts:
    """Return facts with some edited as JSON, and others that are new or replaced."""
    done = {name: json.dumps(edit(json.loads(facts.outputs[name].out))) for name, edit in edits.items()}
    return Facts(facts.place, {**facts.outputs, **{name: Output(0, text) for name, text in (done | new).items()}})


def _node(node: Node, backend: str) -> Facts:
    router = str(_router(node))
    wrapped = backend == "vxlan"
    ends = {pod.host_end.name: f"lxc{index:012x}" for index, pod in enumerate(RECORDED.pods) if pod.host_end}
    own = {str(entry) for entry in (node.pod_cidr[0], node.pod_cidr[1], node.pod_cidr[-1])}

    def links(found: Json) -> Json:
        kept = [link for link in found if link["ifname"] not in ("cni0", "flannel.1")]
        for link in kept:
            if link["ifname"] in ends:
                link["ifname"] = ends[link["ifname"]]
                link.pop("master", None)
                link["mtu"] = 1500
                link["linkinfo"].pop("info_slave_kind", None)
                link["linkinfo"].pop("info_slave_data", None)
        flags = ["BROADCAST", "NOARP", "UP", "LOWER_UP"]
        pair = {"flags": flags, "mtu": 1500, "linkinfo": {"info_kind": "veth"}, "operstate": "UP"}
        kept += [
            {**pair, "ifindex": 90, "ifname": "cilium_net", "link": "cilium_host", "address": "0e:00:00:00:00:09"},
            {**pair, "ifindex": 91, "ifname": "cilium_host", "link": "cilium_net", "address": HOST_MAC},
        ]
        if wrapped:
            info = {"info_kind": "vxlan", "info_data": {"external": True, "port": 8472, "learning": True}}
            kept.append({**pair, "ifindex": 92, "ifname": "cilium_vxlan", "address": VXLAN_MAC, "linkinfo": info})
        return kept

    def routes(found: Json) -> Json:
        kept = [route for route in found if route["dev"] not in ("cni0", "flannel.1")]
        base = {"type": "unicast", "protocol": "kernel", "table": "main", "flags": []}
        by_host = {**base, "dev": "cilium_host", "prefsrc": router, "scope": "global", "gateway": router}
        kept += [
            {**by_host, "dst": str(node.pod_cidr)},
            {**base, "dst": router, "dev": "cilium_host", "scope": "link"},
            {**base, "type": "local", "table": "local", "dst": router, "dev": "cilium_host", "scope": "host"},
        ]
        for other in RECORDED.nodes:
            if other.name != node.name and wrapped:
                kept.append({**by_host, "dst": str(other.pod_cidr), "metrics": [{"mtu": 1450}]})
            elif other.name != node.name:
                kept.append({**base, "dst": str(other.pod_cidr), "dev": "eth0", "gateway": str(other.address)})
        return kept

    def addresses(found: Json) -> Json:
        kept = [entry for entry in found if entry["ifname"] not in ("cni0", "flannel.1")]
        info = {"family": "inet", "local": router, "prefixlen": 32, "scope": "link", "label": "cilium_host"}
        return [*kept, {"ifindex": 91, "ifname": "cilium_host", "flags": ["UP"], "mtu": 1500, "addr_info": [info]}]

    def proc_routes(text: str) -> str:
        lines = [line for line in text.splitlines() if not re.match(r"(cni0|flannel\.1)\s", line)]
        lines += [_proc("cilium_host", str(node.pod_cidr[0]), router, "255.255.255.0"), _proc("cilium_host", router)]
        for other in RECORDED.nodes:
            if other.name != node.name:
                dev, via = ("cilium_host", router) if wrapped else ("eth0", str(other.address))
                lines.append(_proc(dev, str(other.pod_cidr[0]), via, "255.255.255.0"))
        return "\n".join(lines) + "\n"

    saved = re.sub(r".*FLANNEL-.*\n", "", node.facts.outputs["iptables"].out)
    rules = "".join(
        f"[0:0] {line}\n"
        for line in RULES[backend]
        .format(own=node.pod_cidr, spared=node.pod_cidr if wrapped else RECORDED.setting.pod_cidr, router=router)
        .splitlines()
    )
    called = '[0:0] -A POSTROUTING -m comment --comment "cilium-feeder: CILIUM_POST_nat" -j CILIUM_POST_nat\n'
    table = saved.index("*nat\n")
    end = saved.index("COMMIT\n", table)
    first = saved.index("[", table)
    first = saved.index("\n[", saved.index("\n:", table)) + 1
    saved = saved[:first] + ":CILIUM_POST_nat - [0:0]\n" + called + saved[first:end] + rules + saved[end:]
    sets = "create cilium_node_set_v4 hash:ip family inet hashsize 1024 maxelem 65536\n" + "".join(
        f"add cilium_node_set_v4 {other.address}\n" for other in RECORDED.nodes
    )
    sets = "" if wrapped else sets
    return _edited(
        node.facts,
        {
            "iptables": saved,
            "ipset": sets,
            "cni_config": CONFIG,
            "ipam": "",
            "proc_routes": proc_routes(node.facts.outputs["proc_routes"].out),
            **_maps(node, ends, wrapped=wrapped),
        },
        links=links,
        routes=routes,
        addresses=addresses,
        neighbours=lambda found: [entry for entry in found if entry["dev"] == "eth0" or entry["dst"] in own - own],
        fdb=lambda found: [entry for entry in found if entry["ifname"] == "eth0"],
    )


def _proc(dev: str, dst: str, via: str = "0.0.0.0", mask: str = "255.255.255.255") -> str:
    """Return a line of /proc/net/route."""

    def digits(text: str) -> str:
        return IPv4Address(text).packed[::-1].hex().upper()

    return f"{dev}\t{digits(dst)}\t{digits(via)}\t0003\t0\t0\t0\t{digits(mask)}\t0\t0\t0"


def _maps(node: Node, ends: dict[str, str], *, wrapped: bool) -> dict[str, str]:
    """Return what the node's maps and hooks hold."""
    here = [pod for pod in RECORDED.pods if pod.node.name == node.name and pod.host_end and pod.eth0]
    tc = [
        {"devname": dev, "kind": f"tcx/{direction}", "name": name, "prog_id": 100}
        for dev, direction, name in (
            ("cilium_net", "ingress", "cil_to_host"),
            ("cilium_host", "ingress", "cil_to_host"),
            ("cilium_host", "egress", "cil_from_host"),
            ("eth0", "ingress", "cil_from_netdev"),
            ("eth0", "egress", "cil_to_netdev"),  # only where there is no kube-proxy
            *((("cilium_vxlan", "ingress", "cil_from_overlay"),) if wrapped else ()),
            *((("cilium_vxlan", "egress", "cil_to_overlay"),) if wrapped else ()),
            *((ends[pod.host_end.name], "ingress", "cil_from_container") for pod in here if pod.host_end),
        )
    ]
    endpoints = {
        f"{pod.address}:0": [
            f"id={1000 + pod.host_end.index}  sec_id={_identity(pod.api.namespace)}  flags=0x0000 "
            f"ifindex={pod.host_end.index}  mac={pod.eth0.mac.upper()} nodemac={pod.host_end.mac.upper()} "
            "parent_ifindex=0   rt_info:0"
        ]
        for pod in here
        if pod.host_end and pod.eth0
    }
    by_name = {other.name: other for other in RECORDED.nodes}

    def behind(name: str) -> object:
        """Return the node that what is for its pods is wrapped for, seen from this one."""
        return by_name[name].address if name != node.name and wrapped else "0.0.0.0"

    ipcache = {
        f"{pod.address}/32": [
            f"identity={_identity(pod.namespace)} encryptkey=0 tunnelendpoint={behind(pod.node)} flags=<none>"
        ]
        for pod in RECORDED.own_address_pods
    }
    services: dict[str, list[str]] = {}
    for number, service in enumerate(proxy.expectations(RECORDED), 1):
        key = f"{service.cluster_ip}:{service.port}/{service.protocol.upper()}"
        services[f"{service.cluster_ip}:0/ANY (0)"] = ["0.0.0.0:0 (0) (0) [ClusterIP, non-routable] "]  # other ports
        services[f"{key} (0)"] = [f"0.0.0.0:0 ({number}) (0) [ClusterIP, non-routable] "]
        for slot, endpoint in enumerate(service.on(node.name).endpoints, 1):
            services[f"{key} ({slot})"] = [f"{endpoint.to}/{service.protocol.upper()} ({number}) ({slot})"]
    return {
        "bpf_programs": json.dumps([{"xdp": [], "tc": tc, "flow_dissector": [], "netfilter": []}]),
        "cilium_endpoints": json.dumps(endpoints),
        "cilium_ipcache": json.dumps(ipcache),
        "cilium_services": json.dumps(services),
        "cilium_policy": "[]",
    }


def _identity(namespace: str) -> int:
    return IDENTITIES[namespace]


def _pod(pod: Pod, backend: str) -> Facts:
    router = str(_router(pod.node))

    def links(found: Json) -> Json:
        return [{**link, "mtu": 1500} if link["ifname"] == "eth0" else link for link in found]

    def routes(found: Json) -> Json:
        kept = [route for route in found if route["table"] == "local" and route["type"] == "local"]
        base = {"type": "unicast", "dev": "eth0", "table": "main", "protocol": "boot", "flags": []}
        metrics = [{"mtu": 1450}] if backend == "vxlan" else []
        return [
            {**base, "dst": "default", "gateway": router, "metrics": metrics},
            {**base, "dst": router, "scope": "link"},
            *kept,
        ]

    def addresses(found: Json) -> Json:
        for entry in found:
            for info in entry["addr_info"] if entry["ifname"] == "eth0" else ():
                info["prefixlen"] = 32
                info.pop("broadcast", None)
        return found

    head = pod.facts.outputs["proc_routes"].out.splitlines()[0]
    text = "\n".join([head, _proc("eth0", "0.0.0.0", router, "0.0.0.0"), _proc("eth0", router)]) + "\n"
    learned = [{"dst": router, "dev": "eth0", "lladdr": HOST_MAC, "state": ["REACHABLE"]}]
    return _edited(
        pod.facts,
        {"proc_routes": text},
        links=links,
        routes=routes,
        addresses=addresses,
        neighbours=lambda _: learned,
    )
