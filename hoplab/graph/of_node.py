"""One node: its pods and their veth pairs, bridges, and the other interfaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hoplab.core.ip import IPAddress
from hoplab.graph.look import Look
from hoplab.graph.model import DOWN, MISSING, OK, Edge, Vertex, names
from hoplab.observe.facts.addresses import ADDRESSES, ADDRESSES6, AddressOf
from hoplab.observe.facts.api_pods import ApiPod
from hoplab.observe.facts.bpf_programs import BPF_PROGRAMS
from hoplab.observe.facts.links import LINKS, Link
from hoplab.observe.facts.routes import ROUTES, ROUTES6
from hoplab.observe.setting import Setting
from hoplab.observe.snapshot import Node, Pod

WORDS = {"wireguard": "WireGuard", "ipip": "IPIP", "": "NIC", "vxlan": "VXLAN", "geneve": "Geneve"}
SHOWN = 3  # addresses of a device
Part = tuple[list[Vertex], list[Edge]]


def device_id(node: Node, name: str) -> str:
    return f"{node.name}/{name}"


def pod_id(name: object) -> str:
    return f"pod/{name}"


def routing_id(node: Node) -> str:
    return f"{node.name}/routing"


def vertex(node: Node, of_lab: Setting) -> Vertex:
    """Return the node itself: its addresses, and the range of its pods."""
    api = node.known
    address = (api and api.address) or node.planned or of_lab.nodes.get(node.name)
    details = [str(address)] if address else []
    details += [str(api.address6)] if api and api.address6 else []
    ranges = [str(cidr) for cidr in (api.pod_cidr, api.pod_cidr6) if cidr] if api else []
    tip = node.facts.unavailable or (f"not Ready: {api.why_not_ready}" if api and not api.ready else "")
    return Vertex(
        id=node.name,
        kind="node",
        label=node.name,
        details=(*details, *(f"pods {cidr}" for cidr in ranges)),
        state=DOWN if tip else OK,
        names=names(node.name, *details),
        tip=tip,
    )


def pod_vertex(api: ApiPod, pod: Pod | None) -> Vertex:
    """Return a pod: ``DOWN`` where it does not run, ``MISSING`` where its network namespace was not found."""
    addresses = [str(address) for address in (api.address, api.address6) if address]
    seen = pod is not None or api.host_network
    netns = pod.netns if pod else ""
    tip = "" if seen and api.running else "its network namespace was not found" if api.running else "it does not run"
    return Vertex(
        id=pod_id(api),
        kind="host_pod" if api.host_network else "pod",
        label=api.name,
        details=(api.namespace, *([] if api.host_network else addresses)),
        parent=api.node,
        state=DOWN if not api.running else OK if seen else MISSING,
        names=names(api, netns, *([] if api.host_network else addresses)),
        tip=tip or ("" if api.ready else "not Ready"),
    )


def unseen(node: Node, known: Iterable[ApiPod]) -> Part:
    """Return the pods that the API has on a node that could not be looked at."""
    return [pod_vertex(pod, None) for pod in known], []


def inside(node: Node, known: Iterable[ApiPod], pods: Mapping[str, Pod], look: Look) -> Part:
    """Return what is on a node and what connects it; raise FactError where its interfaces are not known."""
    links = node[LINKS]
    addresses = _addresses(node, look)
    vertices: list[Vertex] = [Vertex(routing_id(node), "routing", "routes", parent=node.name)]
    edges: list[Edge] = []
    ends: set[str] = set()
    for api in sorted(known, key=lambda pod: (pod.host_network, pod.namespace, pod.name)):
        pod = pods.get(str(api))
        vertices.append(pod_vertex(api, pod))
        if pod and (end := _end(pod, links)):
            edges.append(Edge("pair", pod_id(api), device_id(node, end.name), "eth0"))
            ends.add(end.name)
    veths = [link for link in links if link.leads_elsewhere or (link.name in ends and link.kind != "bridge")]
    for link in links:
        if link.kind == "bridge":
            vertices.append(_bridge(node, link, addresses.get(link.name, ())))
        elif link in veths:
            vertices.append(_veth(node, link))
        elif _shown(node, link, addresses):
            vertices.append(_device(node, link, addresses.get(link.name, ())))
    edges += _attached(node, links, veths, look)
    return vertices, edges


def _end(pod: Pod, links: Iterable[Link]) -> Link | None:
    """Return the node's interface to a pod: the other end of a pair, or the interface below a macvlan."""
    eth0 = pod.eth0
    below = eth0.parent_index if eth0 else 0
    return pod.host_end or next((link for link in links if below and link.index == below), None)


def _addresses(node: Node, look: Look) -> dict[str, list[AddressOf[Any, Any]]]:
    found: dict[str, list[AddressOf[Any, Any]]] = {}
    entries: list[AddressOf[Any, Any]] = [*look.at(node.facts, ADDRESSES)]
    if ADDRESSES6.name in node.facts.outputs:
        entries += [entry for entry in look.at(node.facts, ADDRESSES6) if entry.scope == "global"]
    for entry in entries:
        found.setdefault(entry.dev, []).append(entry)
    return found


def _shown(node: Node, link: Link, addresses: Mapping[str, Sequence[object]]) -> bool:
    """Return whether an interface is drawn: the uplink, and what is up or has an address; never lo."""
    return link.name != "lo" and (link.name == node.uplink or link.up or bool(addresses.get(link.name)))


def _written(addresses: Sequence[AddressOf[Any, Any]]) -> list[str]:
    words = [f"{entry.address}/{entry.network.prefixlen}" for entry in addresses]
    return words if len(words) <= SHOWN else [*words[: SHOWN - 1], f"and {len(words) - SHOWN + 1} more"]


def _bridge(node: Node, link: Link, addresses: Sequence[AddressOf[Any, Any]]) -> Vertex:
    return Vertex(
        id=device_id(node, link.name),
        kind="bridge",
        label=link.name,
        details=tuple(_written(addresses)),
        parent=node.name,
        state=OK if link.up else DOWN,
        names=names(link.name, link.mac, *(entry.address for entry in addresses)),
        tip=str(link),
    )


def _veth(node: Node, link: Link) -> Vertex:
    return Vertex(
        id=device_id(node, link.name),
        kind="veth",
        label=link.name,
        parent=node.name,
        state=OK if link.up else DOWN,
        names=names(link.name),  # Calico gives all of them one MAC
        tip=str(link),
    )


def _device(node: Node, link: Link, addresses: Sequence[AddressOf[Any, Any]]) -> Vertex:
    kind = WORDS.get(link.kind, link.kind)
    if link.vxlan:
        kind = "VXLAN" if link.vxlan.external else f"VXLAN {link.vxlan.id}, udp {link.vxlan.port}"
    return Vertex(
        id=device_id(node, link.name),
        kind="device",
        label=link.name,
        details=(f"{kind}, mtu {link.mtu}", *_written(addresses)),
        parent=node.name,
        state=OK if link.up else DOWN,
        names=names(link.name, link.mac, *(entry.address for entry in addresses if str(entry.address) != node.name)),
        tip=str(link),
    )


def _attached(node: Node, links: Sequence[Link], veths: Sequence[Link], look: Look) -> list[Edge]:
    """Return which interface is a port, which is routed or taken by a program, and which is above which."""
    by_name = {link.name: link for link in links}
    routes: list[Any] = [*look.at(node.facts, ROUTES), *look.at(node.facts, ROUTES6, quiet=True)]
    routed = {hop.dev for route in routes if route.table != "local" for hop in route.hops if not _link_local(route.dst)}
    programs = look.at(node.facts, BPF_PROGRAMS, quiet=True)
    taking = {program.dev: program.name for program in programs if program.direction == "ingress"}
    edges = []
    for link in links:
        here = device_id(node, link.name)
        if link.master in by_name:
            edges.append(Edge("port", here, device_id(node, link.master)))
        elif link in veths and link.name in taking:
            edges.append(Edge("routed", here, routing_id(node), taking[link.name]))
        elif (link in veths or link.kind == "bridge") and link.name in routed:
            edges.append(Edge("routed", here, routing_id(node)))
        below = (link.vxlan.dev if link.vxlan else "") or link.parent
        if link.kind in ("wireguard", "ipip"):
            below = node.uplink
        if below and link not in veths:
            edges.append(Edge("over", here, device_id(node, below)))
    return edges


def _link_local(network: Any) -> bool:
    address: IPAddress = network.network_address
    return address.is_link_local or address.is_multicast
