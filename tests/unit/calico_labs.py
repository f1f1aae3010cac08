"""Labs with Calico: recordings, and for modes that nobody recorded yet what one with flannel would look like."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hoplab.batch import Output
from hoplab.cni import calico
from hoplab.cni.calico import vxlan_mac
from hoplab.facts import Facts
from hoplab.paths import PROJECT
from hoplab.snapshot import Node, Snapshot, load

Item = dict[str, Any]
RECORDINGS = PROJECT / "tests" / "recordings"
FLANNEL = load(RECORDINGS / "flannel-vxlan.json")
TUNNELS = {"ipip": calico.IPIP, "vxlan": calico.VXLAN}
MTUS = {"bgp": 1500, "ipip": 1480, "vxlan": 1450}
WRAPS: Mapping[str, Callable[[Node], Item]] = {  # what `ip -d link` says of a tunnel, the one of a node
    "ipip": lambda node: {"info_kind": "ipip"},
    "vxlan": lambda node: {
        "info_kind": "vxlan",
        "info_data": {"id": calico.VNI, "local": str(node.address), "link": "eth0", "port": calico.PORT},
    },
}
OF_FLANNEL = ("cni0", "flannel.1")
ANYWHERE = IPv4Network("0.0.0.0/0")


def lab(backend: str) -> Snapshot:
    """The recording of that mode; without one, what it should be like."""
    file = RECORDINGS / f"calico-{backend}.json"
    return load(file) if file.exists() else imagined(backend)


def imagined(backend: str) -> Snapshot:
    """The nodes and pods of the recorded lab, at the same addresses, connected by Calico."""
    api = {
        "nodes": lambda text: json.dumps({"items": [_announcing(each) for each in json.loads(text)["items"]]}),
        "ipam_blocks": lambda _: json.dumps({"items": [{"spec": _block(node)} for node in FLANNEL.nodes]}),
    }
    return replace(
        FLANNEL,
        setting=replace(FLANNEL.setting, cni="calico", backend=backend),
        node_facts={node.name: _edited(node.facts, _of_node(node, backend)) for node in FLANNEL.nodes},
        netns_facts={
            node.name: {
                pod.netns: _edited(FLANNEL.netns_facts[node.name][pod.netns], _of_pod(pod.address, MTUS[backend]))
                for pod in FLANNEL.pods_on(node)
            }
            for node in FLANNEL.nodes
        },
        api=_edited(FLANNEL.api, api),
    )


def _edited(facts: Facts, edits: Mapping[str, Callable[[str], str]]) -> Facts:
    known = {**{name: Output(0, "") for name in edits}, **facts.outputs}
    edited = {name: Output(0, edit(known[name].out)) for name, edit in edits.items()}
    return Facts(facts.place, {**known, **edited})


def _range(node: Node) -> IPv4Network:
    return IPv4Network((node.pod_cidr[0], 26))


def _announcing(item: Item) -> Item:
    node = next(each for each in FLANNEL.nodes if each.name == item["metadata"]["name"])
    annotations = {f"{calico.ANNOTATION}IPv4VXLANTunnelAddr": str(_range(node)[0])}
    return {**item, "metadata": {**item["metadata"], "annotations": annotations}}


def _block(node: Node) -> Item:
    pods = FLANNEL.pods_on(node)
    numbers = {pod.address: number for number, pod in enumerate(pods)}
    return {
        "cidr": str(_range(node)),
        "affinity": f"host:{node.name}",
        "allocations": [numbers.get(address) for address in _range(node)],
        "attributes": [{"secondary": {"namespace": pod.api.namespace, "pod": pod.api.name}} for pod in pods],
    }


def _of_node(node: Node, backend: str) -> dict[str, Callable[[str], str]]:
    ends = {pod.host_end.name: calico.host_end(pod.api) for pod in FLANNEL.pods_on(node) if pod.host_end}
    others = [each for each in FLANNEL.nodes if each is not node]
    tunnel, by_bird = TUNNELS.get(backend), backend != "vxlan"
    vias = {other: other.address if by_bird else _range(other)[0] for other in others}
    way = {"protocol": "bird" if by_bird else "boot", "flags": ["onlink"] if tunnel else []}
    routes: list[Item] = [
        {"type": "blackhole", "dst": str(_range(node)), "protocol": "bird" if by_bird else "80", "flags": []},
        *({"dst": str(_range(it)), "gateway": str(via), "dev": tunnel or "eth0", **way} for it, via in vias.items()),
        *(
            {"dst": str(pod.address), "dev": calico.host_end(pod.api), "scope": "link", "flags": []}
            for pod in FLANNEL.pods_on(node)
        ),
    ]

    def without(key: str) -> Callable[[list[Item]], list[Item]]:
        return lambda found: [each for each in found if each.get(key) not in OF_FLANNEL]

    def links(found: list[Item]) -> list[Item]:
        ours = without("ifname")(found)
        for each in ours:
            if name := ends.get(each["ifname"]):
                each |= {"ifname": name, "address": calico.HOST_MAC, "mtu": MTUS[backend], "master": ""}
        wraps = {
            "ifindex": 90,
            "ifname": tunnel,
            "flags": ["UP"],
            "mtu": MTUS[backend],
            "address": vxlan_mac(node),
        }
        return [*ours, wraps | {"linkinfo": WRAPS[backend](node)}] if tunnel else ours

    def sysctls(text: str) -> str:
        lines = [line for line in text.splitlines() if not any(f"/{name}/" in line for name in OF_FLANNEL)]
        renamed = "\n".join(re.sub(r"veth[0-9a-f]{8}", lambda at: ends.get(at[0], at[0]), line) for line in lines)
        return re.sub(r"(/cali\w+/proxy_arp):0", r"\1:1", renamed)

    known = [{"dst": str(vias[it]), "dev": tunnel, "lladdr": vxlan_mac(it), "state": ["PERMANENT"]} for it in others]
    behind = [{"mac": vxlan_mac(it), "ifname": tunnel, "dst": str(it.address), "flags": ["self"]} for it in others]
    peers = [f" Mesh_{str(it.address).replace('.', '_')} BGP master up 13:54:38 Established" for it in others]
    plugins = {"plugins": [{"type": name} for name in calico.PLUGINS]}
    return {
        "links": _list(links),
        "addresses": _list(without("ifname")),
        "routes": _list(lambda found: [*without("dev")(found), *map(_main, routes)]),
        "proc_routes": lambda text: _proc(text, routes),
        "neighbours": _list(lambda found: [*without("dev")(found), *([] if by_bird else known)]),
        "fdb": _list(lambda found: [*without("ifname")(found), *([] if by_bird else behind)]),
        "sysctls": sysctls,
        "cni_config": lambda _: f"==> /etc/cni/net.d/{calico.CONFIG_FILE} <==\n{json.dumps(plugins)}\n",
        "bgp": lambda _: "\n".join(peers if by_bird else ()),
    }


def _of_pod(address: IPv4Address, mtu: int) -> dict[str, Callable[[str], str]]:
    routes: list[Item] = [
        {"dst": "default", "gateway": str(calico.GATEWAY), "dev": "eth0", "flags": []},
        {"dst": str(calico.GATEWAY), "dev": "eth0", "scope": "link", "flags": []},
    ]

    def alone(found: list[Item]) -> list[Item]:
        for each in (info for link in found for info in link["addr_info"] if info["local"] == str(address)):
            each |= {"prefixlen": 32}
        return found

    return {
        "addresses": _list(alone),
        "links": _list(lambda found: [each | ({"mtu": mtu} if each["ifname"] == "eth0" else {}) for each in found]),
        "routes": _list(
            lambda found: [*(each for each in found if each["table"] == "local"), *map(_main, routes)],
        ),
        "proc_routes": lambda text: _proc(text.splitlines()[0], routes),
        "neighbours": _list(lambda _: [{"dst": str(calico.GATEWAY), "dev": "eth0", "lladdr": calico.HOST_MAC}]),
    }


def _list(edit: Callable[[list[Item]], list[Item]]) -> Callable[[str], str]:
    return lambda text: json.dumps(edit(json.loads(text)))


def _main(route: Item) -> Item:
    return {"type": "unicast", "table": "main", "protocol": "boot", "scope": "global", **route}


def _proc(text: str, routes: list[Item]) -> str:
    """/proc/net/route with more routes: addresses are numbers, their bytes in the order of the machine."""

    def number(address: IPv4Address) -> str:
        return address.packed[::-1].hex().upper()

    lines = [line for line in text.splitlines() if not line.startswith(OF_FLANNEL)]
    for route in routes:
        dst = ANYWHERE if route["dst"] == "default" else IPv4Network(route["dst"])
        via = IPv4Address(route.get("gateway", "0.0.0.0"))
        flags = 1 | (2 if int(via) else 0) | (4 if dst.prefixlen == 32 else 0)
        ends = (number(dst[0]), number(via), f"{flags:04X}", "0", "0", "0", number(dst.netmask), "0", "0", "0")
        lines.append("\t".join((route.get("dev", "*"), *ends)))
    return "\n".join(lines)
