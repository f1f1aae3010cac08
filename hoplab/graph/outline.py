"""What the text formats share: nodes with what is on them, short ids, and labels of several lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from hoplab.core.xml_text import xml_text
from hoplab.graph.model import OK, Edge, Graph, Vertex

BOTH_WAYS = ("pair", "port", "over", "link", "tunnel", "bgp", "routed")  # kinds of edges without a direction


class Outline:
    """A graph in the order in which text formats write it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    @cached_property
    def ids(self) -> Mapping[str, str]:
        """Return a short id of each vertex, with letters and digits alone: "n3"."""
        return {vertex.id: f"n{number}" for number, vertex in enumerate(self.graph.vertices)}

    @property
    def nodes(self) -> Iterator[tuple[Vertex, list[Vertex]]]:
        """Yield each node with what is on it."""
        for node in self.graph.of_kind("node"):
            yield node, [vertex for vertex in self.graph.vertices if vertex.parent == node.id]

    @property
    def others(self) -> list[Vertex]:
        """Return what is on no node."""
        there = {node.id for node in self.graph.of_kind("node")}
        return [vertex for vertex in self.graph.vertices if vertex.kind != "node" and vertex.parent not in there]

    @property
    def edges(self) -> Iterator[Edge]:
        """Yield the edges; a route is below the routing of its node."""
        yield from self.graph.edges
        for route in self.graph.of_kind("route"):
            if f"{route.parent}/routing" in self.graph.by_id:
                yield Edge("routed", f"{route.parent}/routing", route.id, state=route.state, failures=route.failures)

    @staticmethod
    def lines(vertex: Vertex) -> list[str]:
        """Return the texts of a vertex: its name, then details, then the numbers of failed claims."""
        failed = [f"claim {number} fails" for number in vertex.failures]
        state = [vertex.state] if vertex.state != OK else []
        to = [f"to {vertex.to}"] if vertex.to else []
        return [clean(line) for line in (vertex.label, *vertex.details, *to, *state, *failed)]

    @property
    def comments(self) -> list[str]:
        """Return the lines above the graph: its title, and the claims that fail."""
        failures = [f"{number}: {failure.why}" for number, failure in enumerate(self.graph.failures, 1)]
        lines = [f"{self.graph.title}: {', '.join(self.graph.about)}", *failures, *self.graph.steps, *self.graph.notes]
        return [clean(line) for line in lines]


def clean(text: str) -> str:
    """Return a text on one line, without control characters."""
    return xml_text(" ".join(text.split()))
