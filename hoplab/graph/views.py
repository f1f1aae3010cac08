"""Parts of a graph: nodes alone, services with their pods, the path between two places."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import replace

from hoplab.core.errors import LabError
from hoplab.graph.model import Graph, Kind, Vertex

NODES: frozenset[Kind] = frozenset({"node", "bridge", "routing", "route", "device", "network", "host"})
PODS: frozenset[Kind] = frozenset({"node", "pod", "host_pod", "service", "ingress"})
NEAR = 5  # names in an error


class UnknownPlace(LabError):
    """A name that no pod, node or service has, or that several of them have."""


def nodes(graph: Graph) -> Graph:
    """Return nodes with their interfaces and routes, without pods."""
    return replace(only(graph, (vertex.id for vertex in graph.vertices if vertex.kind in NODES)), of="nodes")


def pods(graph: Graph) -> Graph:
    """Return services and Ingresses with the pods behind them, by node."""
    kept = [vertex.id for vertex in graph.vertices if vertex.kind in PODS]
    kept += [edge.target for edge in graph.edges_of("endpoint") if graph.by_id[edge.target].kind == "host"]
    return replace(only(graph, kept), of="pods")


def only(graph: Graph, kept: Iterable[str]) -> Graph:
    """Return these vertices, with the edges between them."""
    found = frozenset(kept)
    return replace(
        graph,
        vertices=tuple(vertex for vertex in graph.vertices if vertex.id in found),
        edges=tuple(edge for edge in graph.edges if edge.source in found and edge.target in found),
    )


def place(graph: Graph, name: str) -> Vertex:
    """Return the pod, node, service or host of a name: "worker1", "hoplab-verify/echo-w8kjg", "single", "10.244.1.6".

    The namespace may be left out, as may what a controller adds to a pod's name, where one thing is left then. Raise
    UnknownPlace with names that are near where nothing is found, and with all of them where several are.
    """
    there = graph.of_kind("pod", "host_pod", "node", "service", "host")
    for called in (_whole, _short, _beginning):
        found = [vertex for vertex in there if name in called(vertex)]
        if len(found) == 1:
            return found[0]
        pods = [vertex for vertex in found if vertex.kind == "pod"]
        if len(pods) == 1 and all(vertex.kind == "service" for vertex in found if vertex is not pods[0]):
            return pods[0]  # a service and a pod of one name: the packet ends at the pod
        if found:
            raise UnknownPlace(
                f"{name!r} is the name of several things: {_listed(map(full_name, found))}",
                remedy="name one of them in full",
            )
    names = {word: vertex for vertex in there for called in (_whole, _short, _beginning) for word in called(vertex)}
    near = difflib.get_close_matches(name, sorted(names), NEAR, 0.5)
    known = list(dict.fromkeys(full_name(names[word]) for word in near))
    known = known or [vertex.label for vertex in there if vertex.kind == "node"]
    raise UnknownPlace(
        f"{graph.title} has no pod, node or service {name!r}",
        remedy=f"{'near to it' if near else 'its nodes'}: {_listed(known)}",
    )


def full_name(vertex: Vertex) -> str:
    """Return the name by which ``place`` finds exactly this vertex."""
    return vertex.id.partition("/")[2] if vertex.kind in ("pod", "host_pod", "service") else vertex.label


def _whole(vertex: Vertex) -> Collection[str]:
    return {full_name(vertex), vertex.id, *(vertex.names if vertex.kind != "service" else ())}


def _short(vertex: Vertex) -> Collection[str]:
    return {vertex.label}


def _beginning(vertex: Vertex) -> Collection[str]:
    words = vertex.label.split("-")
    return {"-".join(words[:number]) for number in range(1, len(words))} if vertex.kind == "pod" else ()


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[: 2 * NEAR]) + (", ..." if len(found) > 2 * NEAR else "")
