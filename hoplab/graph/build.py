"""The graph of a snapshot: what facts show of nodes, pods, services and the network between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from hoplab.core.errors import LabError, UnavailableError
from hoplab.graph import between, of_node, of_services
from hoplab.graph.look import Look
from hoplab.graph.model import Edge, Graph, Vertex, names, unique
from hoplab.observe.facts.api_pods import API_PODS
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.snapshot import Node, Snapshot

NETWORK = "network"


def build(lab: Snapshot) -> Graph:
    """Return the topology of a lab; raise LabError where no node of it could be looked at.

    What else could not be looked at is missing in it, and is one of its notes.
    """
    look = Look()
    nodes = _nodes(lab)
    seen = [node for node in nodes if not node.facts.unavailable]
    pods = {str(pod): pod for pod in reversed(look.call(lambda: lab.pods))}
    known = look.at(lab.api, API_PODS)
    vertices: list[Vertex] = [_network(lab)]
    edges: list[Edge] = []
    for node in nodes:
        vertices.append(of_node.vertex(node, of_lab=lab.setting))
        on_it = [pod for pod in known if pod.node == node.name]
        more, links = of_node.inside(node, on_it, pods, look) if node in seen else of_node.unseen(node, on_it)
        vertices += more
        edges += links
    vertices += [of_node.pod_vertex(pod, None) for pod in known if pod.node not in {node.name for node in nodes}]
    routes, leads = between.routes(lab, seen, look)
    vertices += routes
    edges += leads
    for more, links in (of_services.services(lab, vertices, look), of_services.ingresses(lab, look)):
        vertices += more
        edges += links
    edges += _links(lab, seen, vertices)
    edges += chain(between.tunnels(seen, look), between.sessions(seen, look))
    there = {vertex.id for vertex in vertices}
    return Graph(
        title=f"{'cluster' if lab.setting.foreign else 'lab'} {lab.setting.lab}",
        about=_about(lab, nodes, vertices),
        vertices=tuple({vertex.id: vertex for vertex in reversed(vertices)}.values())[::-1],
        edges=unique(edge for edge in edges if edge.source in there and edge.target in there),
        notes=tuple(dict.fromkeys([*(outage.problem for outage in lab.outages), *look.notes])),
        more=between.words(seen),
    )


def _nodes(lab: Snapshot) -> Sequence[Node]:
    try:
        nodes = lab.cluster_nodes
    except UnavailableError as error:
        raise LabError(f"there is nothing to draw: {error.message}", remedy=error.remedy or "./lab doctor") from None
    if not any(not node.facts.unavailable for node in nodes):
        why = "; ".join(dict.fromkeys(node.facts.unavailable for node in nodes)) or "the API lists no node of the lab"
        raise LabError(f"there is nothing to draw: {why}", remedy="./lab status shows the machines of a lab")
    order = list(lab.setting.nodes)
    return sorted(nodes, key=lambda node: order.index(node.name) if node.name in order else len(order))


def _network(lab: Snapshot) -> Vertex:
    has = lab.setting
    ranges = [str(has.network), *([str(has.ipv6.network)] if has.ipv6 else [])]
    what = "nodes' network" if has.foreign else "lab network"
    return Vertex(NETWORK, "network", what, tuple(ranges), names=names(*ranges))


def _links(lab: Snapshot, nodes: Iterable[Node], vertices: Iterable[Vertex]) -> Iterator[Edge]:
    """Yield what hangs on the lab network: the uplink of each node, and hosts."""
    for node in nodes:
        yield Edge("link", of_node.device_id(node, node.uplink), NETWORK)
    for vertex in vertices:
        if vertex.kind == "host":
            yield Edge("link", vertex.id, NETWORK)


def _about(lab: Snapshot, nodes: Sequence[Node], vertices: Iterable[Vertex]) -> tuple[str, ...]:
    has = lab.setting
    kinds = [vertex.kind for vertex in vertices]
    words = [
        f"{has.cni} {has.backend}".strip(),
        has.proxy,
        "dual-stack" if has.ipv6 else "",
        f"Kubernetes {lab.versions['kubernetes']}" if "kubernetes" in lab.versions else "",
        _counted(len(nodes), "node"),
        _counted(kinds.count("pod"), "pod") if API_PODS.name in lab.api.outputs else "",
        _counted(kinds.count("service"), "service") if API_SERVICES.name in lab.api.outputs else "",
    ]
    return tuple(word for word in words if word)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
