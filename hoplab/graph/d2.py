"""A graph in the language D2."""

from __future__ import annotations

import json

from hoplab.graph.model import OK, Edge, Graph, Vertex
from hoplab.graph.outline import BOTH_WAYS, Outline, clean

SHAPES = {"service": "oval", "ingress": "oval", "network": "hexagon", "route": "page"}
RED = '"#cf222e"'


def d2(graph: Graph) -> str:
    """Return a graph for `d2`."""
    outline = Outline(graph)
    lines = [*(f"# {comment}" for comment in outline.comments), "direction: right"]
    for node, inside in outline.nodes:
        lines.append(f"{outline.ids[node.id]}: {_quoted(*Outline.lines(node))} {{")
        lines += ["  " + line for vertex in inside for line in _vertex(outline, vertex)]
        lines += [f"  style.stroke: {RED}"] if node.failures else []
        lines.append("}")
    lines += [line for vertex in outline.others for line in _vertex(outline, vertex)]
    lines += [_edge(outline, edge) for edge in outline.edges]
    return "\n".join(lines) + "\n"


def _vertex(outline: Outline, vertex: Vertex) -> list[str]:
    more = [f"shape: {shape}"] if (shape := SHAPES.get(vertex.kind)) else []
    more += [f"style.stroke: {RED}", "style.stroke-width: 3"] if vertex.failures else []
    head = f"{outline.ids[vertex.id]}: {_quoted(*Outline.lines(vertex))}"
    return [head + (f" {{{'; '.join(more)}}}" if more else "")]


def _edge(outline: Outline, edge: Edge) -> str:
    more = ["style.stroke-dash: 4"] if edge.state != OK or edge.kind in ("over", "bgp") else []
    more += [f"style.stroke: {RED}", "style.stroke-width: 3"] if edge.failures else []
    ends = [_full(outline, end) for end in (edge.source, edge.target)]
    label = f": {_quoted(clean(edge.label))}" if edge.label else ": " if more else ""
    return (
        f" {'--' if edge.kind in BOTH_WAYS else '->'} ".join(ends) + label + (f" {{{'; '.join(more)}}}" if more else "")
    )


def _full(outline: Outline, key: str) -> str:
    """Return the id of a vertex with that of its node before it."""
    parent = outline.graph.by_id[key].parent
    return f"{outline.ids[parent]}.{outline.ids[key]}" if parent in outline.ids else outline.ids[key]


def _quoted(*lines: str) -> str:
    return json.dumps("\n".join(lines), ensure_ascii=False)
