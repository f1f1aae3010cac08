"""A graph as a flowchart of Mermaid, which GitHub and GitLab draw in Markdown."""

from __future__ import annotations

from hoplab.graph.model import OK, Edge, Graph, Vertex
from hoplab.graph.outline import BOTH_WAYS, Outline, clean

SHAPES = {
    "pod": ("(", ")"),
    "host_pod": ("(", ")"),
    "service": ("([", "])"),
    "ingress": ("([", "])"),
    "bridge": ("[[", "]]"),
    "route": (">", "]"),
    "network": ("{{", "}}"),
    "host": ("[/", "/]"),
}
ESCAPES = {"&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;"}


def mermaid(graph: Graph) -> str:
    """Return a graph as Mermaid."""
    outline = Outline(graph)
    lines = ["flowchart LR", *(f"    %% {comment.replace('%%', '%')}" for comment in outline.comments)]
    for node, inside in outline.nodes:
        lines.append(f'    subgraph {outline.ids[node.id]}["{_text(node)}"]')
        lines += [f"        {_vertex(outline, vertex)}" for vertex in inside]
        lines.append("    end")
    lines += [f"    {_vertex(outline, vertex)}" for vertex in outline.others]
    edges = list(outline.edges)
    lines += [f"    {_edge(outline, edge)}" for edge in edges]
    bad = [outline.ids[vertex.id] for vertex in graph.vertices if vertex.failures]
    if bad:
        lines += ["    classDef bad stroke:#cf222e,stroke-width:3px", f"    class {','.join(bad)} bad"]
    for number, edge in enumerate(edges):
        if edge.failures:
            lines.append(f"    linkStyle {number} stroke:#cf222e,stroke-width:3px")
    return "\n".join(lines) + "\n"


def _vertex(outline: Outline, vertex: Vertex) -> str:
    begin, end = SHAPES.get(vertex.kind, ("[", "]"))
    return f'{outline.ids[vertex.id]}{begin}"{_text(vertex)}"{end}'


def _text(vertex: Vertex) -> str:
    return "<br>".join(map(_escaped, Outline.lines(vertex)))


def _escaped(line: str) -> str:
    return "".join(ESCAPES.get(character, character) for character in line)


def _edge(outline: Outline, edge: Edge) -> str:
    solid = edge.state == OK and edge.kind not in ("over", "bgp")
    arrow = "==" if edge.kind == "tunnel" and solid else "--" if solid else "-."
    head = {"==": "===", "--": "---", "-.": "-.-"}[arrow]
    if edge.kind not in BOTH_WAYS:
        head = {"==": "==>", "--": "-->", "-.": "-.->"}[arrow]
    label = f'|"{_escaped(clean(edge.label))}"|' if edge.label else ""
    return f"{outline.ids[edge.source]} {head}{label} {outline.ids[edge.target]}"
