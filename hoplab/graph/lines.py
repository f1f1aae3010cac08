"""The lines of a drawing: where each edge of the graph begins and ends, and how it bends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hoplab.graph.model import OK, Edge, EdgeKind, Graph
from hoplab.graph.panel import Panel
from hoplab.graph.scene import Box, Group, Line

LANE = 15  # from one line between nodes to the next


def lines(
    graph: Graph, places: Mapping[str, Box], panels: Mapping[str, Panel], lanes: Mapping[str, int], right: float
) -> Iterator[Group]:
    """Yield the lines in groups; those of one service are a group, so that all of them answer to the pointer.

    ``lanes`` are the places of lines between nodes, to the right of ``right``.
    """
    drawn = _Lines(graph, places, panels, lanes, right)
    bars = [(found.routed, found.places.get(f"{name}/routing")) for name, found in panels.items()]
    ways = [(bar, table) for bar, table in bars if bar and table and bar != table]
    if ways:
        found = (Line(straight(bar.right, table.middle, table.x), "line routed missing") for bar, table in ways)
        yield Group("node", tuple(found))
    for kind, groups in (
        ("backend", _by_source(graph, "backend")),
        ("endpoint", _by_source(graph, "endpoint")),
        ("node", [list(graph.edges_of("pair", "port", "routed", "over", "leads"))]),
        ("between", [list(graph.edges_of("link", "tunnel", "bgp"))]),
    ):
        for edges in groups:
            items = [item for edge in edges for item in drawn.line(edge)]
            style = {"backend": "ingress", "endpoint": "service"}.get(kind, kind)
            if items:
                yield Group(style, tuple(items))


def _by_source(graph: Graph, kind: EdgeKind) -> list[list[Edge]]:
    found: dict[str, list[Edge]] = {}
    for edge in graph.edges_of(kind):
        found.setdefault(edge.source, []).append(edge)
    return list(found.values())


class _Lines:
    """Draws edges between the places of vertices. Lines that end at one side of a box end apart from each other."""

    def __init__(
        self,
        graph: Graph,
        places: Mapping[str, Box],
        panels: Mapping[str, Panel],
        lanes: Mapping[str, int],
        right: float,
    ) -> None:
        self.graph, self.places, self.panels, self.lanes, self.right = graph, places, panels, lanes, right
        self.left = min((found.box.x for found in panels.values()), default=right)
        self._at: dict[tuple[str, str, str], list[tuple[float, str]]] = {}
        for edge in graph.edges:
            if edge.source in places and edge.target in places:
                source, target = places[edge.source], places[edge.target]
                self._at.setdefault((edge.source, edge.kind, "out"), []).append((target.middle, edge.id))
                self._at.setdefault((edge.target, edge.kind, "in"), []).append((source.middle, edge.id))

    def line(self, edge: Edge) -> Iterator[Line]:
        """Yield the lines of an edge; none where one of its ends is not drawn."""
        if edge.source not in self.places or edge.target not in self.places:
            return
        state = "" if edge.state == OK else f" {edge.state}"
        style = f"line {edge.kind}{state}" + (" bad" if edge.failures else "")
        path = self._path(edge, self.places[edge.source], self.places[edge.target])
        if path and edge.kind == "tunnel":
            yield Line(path, "line pipe" + (" bad" if edge.failures else ""))
        if path:
            yield Line(path, style, edge.id)

    def _path(self, edge: Edge, one: Box, other: Box) -> str:
        target = self.graph.by_id[edge.target].kind
        match edge.kind:
            case "endpoint" | "backend":
                return self._to_pod(edge, one, other)
            case "routed":
                return self._to_routes(edge, one)
            case "leads":
                bar = target != "device"  # a bridge has a line to the route that leads to it
                return "" if bar else curve(one.right + 4, one.middle, other.x, self._end(edge.target, edge, "in"))
            case "over":
                begin, end = (one.bottom, other.y) if other.y > one.y else (one.y, other.bottom)
                return f"M{_n(one.x + 22)} {_n(begin)}V{_n(end)}"
            case "tunnel" | "bgp":
                return self._between(edge, one, other)
            case _:
                return between(one, other)

    def _end(self, vertex: str, edge: Edge, way: str) -> float:
        ends = sorted(self._at[vertex, edge.kind, way])
        return self.places[vertex].port([key for _, key in ends].index(edge.id), len(ends))

    def _to_pod(self, edge: Edge, one: Box, other: Box) -> str:
        """Return the path from a service; to a host outside of the nodes it goes below all of them."""
        begin, end = self._end(edge.source, edge, "out"), self._end(edge.target, edge, "in")
        if self.graph.by_id[edge.target].kind == "host":
            return f"{curve(one.right, begin, min(other.x, self.left), end)}H{_n(other.x)}"
        return curve(one.right, begin, other.x - 1, end)

    def _to_routes(self, edge: Edge, one: Box) -> str:
        """Return the path from a bridge to the route that leads to it, or to the head of the routes where none does.

        A pair without a bridge ends at the bar of those pairs.
        """
        source = self.graph.by_id[edge.source]
        bar = self.panels[source.parent].routed if source.kind == "veth" else None
        if bar:
            return straight(one.right, one.middle, bar.x)
        leads = (lead.source for lead in self.graph.edges_of("leads") if lead.target == edge.source)
        to = next(leads, edge.target)
        row = self.places.get(to, self.places[edge.target])
        begin = min(max(row.middle, one.y + 10), one.bottom - 10)
        return curve(one.right, begin, row.x - (4 if to != edge.target else 0), row.middle)

    def _between(self, edge: Edge, one: Box, other: Box) -> str:
        """Return the path between two nodes: a tunnel from device to device, a session from node to node."""
        x = self.right + 20 + LANE * self.lanes[edge.id]
        if edge.kind == "tunnel":
            return bracket((one.right, other.right), (one.middle, other.middle), x)
        begin, end = (self.panels[self.graph.by_id[key].parent].box.y + 22 for key in (edge.source, edge.target))
        return bracket((self.right, self.right), (begin, end), x)


def between(one: Box, other: Box) -> str:
    """Return a path from a box to another one: straight where the other one is beside it."""
    if one.x > other.x:
        one, other = other, one
    if other.y <= one.middle <= other.bottom:
        return straight(one.right, one.middle, other.x)
    if one.y <= other.middle <= one.bottom:
        return straight(one.right, other.middle, other.x)
    return curve(one.right, one.middle, other.x, other.middle)


def curve(x: float, y: float, to_x: float, to_y: float) -> str:
    """Return a path that begins and ends horizontally."""
    bend = (to_x - x) * 0.5
    if abs(to_y - y) < 0.5:
        return straight(x, y, to_x)
    return f"M{_n(x)} {_n(y)}C{_n(x + bend)} {_n(y)} {_n(to_x - bend)} {_n(to_y)} {_n(to_x)} {_n(to_y)}"


def straight(x: float, y: float, to_x: float) -> str:
    return f"M{_n(x)} {_n(y)}H{_n(to_x)}"


def bracket(starts: tuple[float, float], heights: tuple[float, float], x: float) -> str:
    """Return a path that leaves two boxes to the right and is vertical at ``x``, with round corners."""
    (first, second), (begin, end) = starts, heights
    turn = 8 if end > begin else -8
    return (
        f"M{_n(first)} {_n(begin)}H{_n(x - 8)}Q{_n(x)} {_n(begin)} {_n(x)} {_n(begin + turn)}"
        f"V{_n(end - turn)}Q{_n(x)} {_n(end)} {_n(x - 8)} {_n(end)}H{_n(second)}"
    )


def _n(number: float) -> str:
    """Return a number with at most one digit after the point.

    >>> _n(12.0), _n(3.14)
    ('12', '3.1')
    """
    return f"{number:.1f}".removesuffix(".0")
