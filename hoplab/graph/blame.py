"""Where a failed claim belongs: the thing that its sentence names first, on the node that it names.

A sentence names a route as `ip route` prints it, a pod by namespace and name, an interface, an address, a MAC. A claim
that names nothing of the graph is of its nodes; without a node it is only listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hoplab.graph.model import Edge, Failure, Graph, Vertex

WORD = re.compile(r"[^\s`'\"()|]+")
PORT = re.compile(r"(.+?):\d+(?:/[a-z]+)?")
ALONG = {"route": ("leads",), "veth": ("pair", "port", "routed"), "pod": ("pair",)}  # lines that are red with a thing
LATE = ("network", "host")  # things that a sentence mentions rather than is about


@dataclass(frozen=True)
class _Thing:
    """A vertex or an edge, by the id of either, and the nodes that it is on."""

    id: str
    names: frozenset[str]
    nodes: frozenset[str]
    late: bool = False


def blame(graph: Graph, failures: Sequence[Failure], held: int | None = None) -> Graph:
    """Return the graph with the failed claims at what they are about; ``held`` is the number of those that hold."""
    found: dict[str, list[int]] = {}
    things = list(_things(graph))
    nodes = {vertex.id for vertex in graph.of_kind("node")}
    for number, failure in enumerate(failures, 1):
        for thing in _about(failure.why, things, nodes):
            found.setdefault(thing, []).append(number)
    vertices = tuple(replace(vertex, failures=tuple(found.get(vertex.id, ()))) for vertex in graph.vertices)
    by_id = {vertex.id: vertex for vertex in vertices}
    edges = tuple(replace(edge, failures=_along(edge, by_id, found)) for edge in graph.edges)
    return replace(graph, vertices=vertices, edges=edges, failures=tuple(failures), held=held)


def _things(graph: Graph) -> Iterator[_Thing]:
    by_id = graph.by_id
    for vertex in graph.vertices:
        if vertex.kind != "node":
            on = frozenset([vertex.parent] if vertex.parent else [])
            yield _Thing(vertex.id, vertex.names, on, vertex.kind in LATE)
    for edge in graph.edges:
        if edge.names:
            on = frozenset(by_id[end].parent for end in (edge.source, edge.target) if end in by_id)
            yield _Thing(edge.id, edge.names, on)


def _about(why: str, things: Sequence[_Thing], nodes: Iterable[str]) -> list[str]:
    """Return the ids of what a sentence is about."""
    words = list(_words(why))
    order = {word: number for number, word in reversed(list(enumerate(words)))}
    named = frozenset(nodes) & set(words)
    candidates: dict[tuple[bool, bool, int], list[_Thing]] = {}
    for thing in things:
        phrases = [name for name in thing.names if " " in name and re.search(rf"{re.escape(name)}(?!\w)", why)]
        places = [order[name] for name in thing.names if name in order]
        places += [len(list(_words(why[: why.index(name)]))) for name in phrases]
        if places and (not named or not thing.nodes or named & thing.nodes):
            printed = any(" dev " in name for name in phrases)
            candidates.setdefault((not printed, thing.late, min(places)), []).append(thing)
    for _, found in sorted(candidates.items(), key=lambda candidate: candidate[0]):
        if named or len({thing.nodes for thing in found}) == 1:  # else it is a name that every node has, as eth0
            return [thing.id for thing in found]
    return sorted(named)


def _words(text: str) -> Iterator[str]:
    """Yield the words of a sentence; an address with a port is also the address alone."""
    for found in WORD.finditer(text):
        word = found.group().rstrip(".,:;")
        yield word
        if (cut := PORT.fullmatch(word)) and ":" not in cut[1]:
            yield cut[1]


def _along(edge: Edge, by_id: dict[str, Vertex], found: dict[str, list[int]]) -> tuple[int, ...]:
    """Return the claims of an edge: its own, and those of a route or of an interface at its end."""
    numbers = list(found.get(edge.id, ()))
    for end in (edge.source, edge.target):
        vertex = by_id.get(end)
        if vertex and edge.kind in ALONG.get(vertex.kind, ()):
            numbers += [number for number in vertex.failures if number not in numbers]
    return tuple(numbers)
