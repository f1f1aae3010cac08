"""A graph in the language of Graphviz."""

from __future__ import annotations

from hoplab.graph.model import OK, Edge, Graph, Vertex
from hoplab.graph.outline import BOTH_WAYS, Outline, clean

SHAPES = {"bridge": "box3d", "network": "hexagon", "service": "ellipse", "ingress": "ellipse", "route": "note"}
RED = "#cf222e"


def dot(graph: Graph) -> str:
    """Return a graph for `dot`, `fdp` and other programs of Graphviz."""
    outline = Outline(graph)
    lines = [f"// {comment}" for comment in outline.comments]
    lines += [
        "digraph lab {",
        f"  label={_quoted(clean(graph.title))}; labelloc=t; rankdir=LR; compound=true;",
        '  node [shape=box, style=rounded, fontname="sans-serif", fontsize=11];',
        '  edge [fontname="sans-serif", fontsize=9];',
    ]
    for node, inside in outline.nodes:
        lines.append(f"  subgraph cluster_{outline.ids[node.id]} {{")
        lines.append(f"    label={_quoted(*Outline.lines(node))};{_red(node)}")
        lines.append(f"    {outline.ids[node.id]} [style=invis, shape=point];")
        lines += [f"    {_vertex(outline, vertex)}" for vertex in inside]
        lines.append("  }")
    lines += [f"  {_vertex(outline, vertex)}" for vertex in outline.others]
    lines += [f"  {_edge(outline, edge)}" for edge in outline.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _red(vertex: Vertex) -> str:
    return f' color="{RED}";' if vertex.failures else ""


def _vertex(outline: Outline, vertex: Vertex) -> str:
    found = {"label": _quoted(*Outline.lines(vertex))}
    if shape := SHAPES.get(vertex.kind):
        found["shape"] = shape
    if vertex.failures:
        found |= {"color": f'"{RED}"', "penwidth": "3"}
    return f"{outline.ids[vertex.id]} [{', '.join(f'{name}={value}' for name, value in found.items())}];"


def _edge(outline: Outline, edge: Edge) -> str:
    found = {"dir": "none"} if edge.kind in BOTH_WAYS else {}
    if edge.label:
        found["label"] = _quoted(clean(edge.label))
    if edge.state != OK or edge.kind in ("over", "bgp"):
        found["style"] = "dashed"
    if edge.kind == "tunnel":
        found["penwidth"] = "2"
    if edge.failures:
        found |= {"color": f'"{RED}"', "penwidth": "3"}
    more = f" [{', '.join(f'{name}={value}' for name, value in found.items())}]" if found else ""
    return f"{outline.ids[edge.source]} -> {outline.ids[edge.target]}{more};"


def _quoted(*lines: str) -> str:
    """Return a text of several lines as a string of Graphviz.

    >>> print(_quoted('a "b"', "c"))
    "a \\"b\\"\\nc"
    """
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'
