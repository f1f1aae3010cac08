"""The one layout of a graph: services, then nodes below each other, then the network that they share.

From left to right it is the way of a packet that leaves a pod. The layout depends on the graph alone: the same facts
give the same drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hoplab.graph import bottom_part, cards, lines, panel
from hoplab.graph.lines import LANE
from hoplab.graph.model import Graph, Vertex
from hoplab.graph.panel import Columns, Panel
from hoplab.graph.scene import Box, Group, Item, Rect, Scene, Text, text_width

MARGIN = 28
HEAD = 108  # title, sentence, and captions of the columns
BETWEEN = 24  # nodes
BUS = 30  # width of the network
CARD_GAP = 10


def layout(graph: Graph) -> Scene:
    """Return the drawing of a graph."""
    scene = Scene(title=graph.title, description=", ".join(graph.about))
    columns = Columns.of(graph)
    ingresses, services = graph.of_kind("ingress"), graph.of_kind("service")
    ingress_width, service_width = cards.wanted_width(ingresses), cards.wanted_width(services)
    service_x = MARGIN + (ingress_width + 80 if ingresses else 0)
    node_x = service_x + (service_width + 100 if services else 0)
    panels, low = _panels(graph, columns, node_x)
    places: dict[str, Box] = {key: box for found in panels.values() for key, box in found.places.items()}
    right = node_x + columns.x["end"]
    lanes = _lanes(graph, places)
    bus_x = right + (LANE * (max(lanes.values(), default=-1) + 1) + 44 if graph.of_kind("network") else 0)
    low = _hosts(graph, scene, places, Box(node_x, low + BETWEEN, columns.x["end"], 0))
    stacked = _stack(graph, scene, services, service_x, service_width, places)
    stacked = max(stacked, _stack(graph, scene, ingresses, MARGIN, ingress_width, places))
    low = max(low, stacked)
    for found in panels.values():
        scene.back.append(found.groups[0])
        scene.front += found.groups[1:]
    _bus(graph, scene, places, Box(bus_x, HEAD, BUS, low - HEAD))
    scene.lines += lines.lines(graph, places, panels, lanes, right)
    scene.width = max(bus_x + (BUS if graph.of_kind("network") else 0), right) + MARGIN
    starts = {"Ingress": MARGIN if ingresses else None, "Services": service_x if services else None}
    bus = bus_x if graph.of_kind("network") else None
    _captions(scene, starts, columns, node_x, bus, bridges=bool(graph.of_kind("bridge")))
    bottom_part.draw(graph, scene, MARGIN, low + 34)
    return scene


def _panels(graph: Graph, columns: Columns, x: float) -> tuple[dict[str, Panel], float]:
    found: dict[str, Panel] = {}
    y = float(HEAD)
    for node in graph.of_kind("node"):
        found[node.id] = panel.draw(graph, node, columns, x, y)
        y = found[node.id].box.bottom + BETWEEN
    strays = [pod for pod in graph.of_kind("pod", "host_pod") if pod.parent not in found]
    if strays:
        one = Vertex("", "node", "on no node of the lab")
        found[""] = panel.draw(_only(graph, strays), one, columns, x, y)
        y = found[""].box.bottom + BETWEEN
    return found, y - BETWEEN


def _only(graph: Graph, pods: Sequence[Vertex]) -> Graph:
    """Return a graph of pods without a node."""
    return Graph(graph.title, (), tuple(Vertex(**{**vars(pod), "parent": ""}) for pod in pods), ())


def _hosts(graph: Graph, scene: Scene, places: dict[str, Box], below: Box) -> float:
    """Place the hosts that are no nodes, at the right below the nodes; return where they end."""
    hosts = graph.of_kind("host")
    width = max(cards.wanted_width(hosts), 170)
    y = below.y
    for host in hosts:
        group = cards.card(host, below.right - panel.PADDING - width, y, width)
        scene.front.append(group)
        places[host.id] = group.box or below
        y = places[host.id].bottom + CARD_GAP
    return y - CARD_GAP if hosts else y - BETWEEN


def _stack(
    graph: Graph, scene: Scene, found: Sequence[Vertex], x: float, width: float, places: dict[str, Box]
) -> float:
    """Place cards below each other, each near to the middle of what it leads to; return where they end."""
    targets: dict[str, list[float]] = {}
    for edge in graph.edges_of("endpoint", "backend"):
        if edge.target in places:
            targets.setdefault(edge.source, []).append(places[edge.target].middle)
    middles = {key: sum(heights) / len(heights) for key, heights in targets.items()}
    last = max(middles.values(), default=0) + 1
    order = sorted(found, key=lambda vertex: (middles.get(vertex.id, last), vertex.id))
    heights = [cards.height(vertex) for vertex in order]
    tops: list[float] = []
    low = float(HEAD)
    for vertex, height in zip(order, heights, strict=True):
        tops.append(max(low, middles.get(vertex.id, low) - height / 2))
        low = tops[-1] + height + CARD_GAP
    limit = max(max((box.bottom for box in places.values()), default=0), HEAD + sum(heights) + CARD_GAP * len(order))
    for index in range(len(order) - 1, -1, -1):  # back up, where the last ones would be below everything else
        tops[index] = max(HEAD, min(tops[index], limit - heights[index]))
        limit = tops[index] - CARD_GAP
    for vertex, top in zip(order, tops, strict=True):
        group = cards.card(vertex, x, top, width)
        scene.front.append(group)
        places[vertex.id] = group.box or Box(x, top, width, 0)
    return tops[-1] + heights[-1] if order else 0


def _bus(graph: Graph, scene: Scene, places: dict[str, Box], box: Box) -> None:
    for network in graph.of_kind("network"):
        words = "   ".join((network.label, *network.details))
        box = Box(box.x, box.y, box.w, max(box.h, text_width(words, "bar") + 30))
        bad = " bad" if network.failures else ""
        items: tuple[Item, ...] = (
            Rect(box, f"nicbox{bad}", 8),
            Text(box.x + BUS / 2 + 4, box.middle, words, f"bar wired{bad}", "middle", upright=False),
        )
        if network.failures:
            items += tuple(
                cards.badge(network.failures, box.x + (BUS + cards.badge_width(network.failures)) / 2, box.y + 14)
            )
        scene.front.append(Group("network", items, cards.tip(network), network.id))
        places[network.id] = box


def _captions(
    scene: Scene,
    starts: Mapping[str, float | None],
    columns: Columns,
    node_x: float,
    bus_x: float | None,
    *,
    bridges: bool,
) -> None:
    at = columns.x
    words = [(text, x, "start") for text, x in starts.items() if x is not None]
    for text, name, width in (
        ("Pods", "pods", columns.pods),
        ("veth pairs", "veths", columns.veths),
        ("Routes", "routes", columns.routes),
        ("Interfaces", "devices", columns.devices),
    ):
        words += [(text, node_x + at[name], "start")] if width else []
    items = [Text(x, HEAD - 12, text, "caption") for text, x, _ in words]
    if columns.bars and bridges:
        items.append(Text(node_x + at["bars"] + panel.BAR / 2, HEAD - 12, "Bridge", "caption", "middle"))
    if bus_x is not None:
        items.append(Text(bus_x + BUS, HEAD - 12, "Network", "caption", "end"))
    scene.front.append(Group("captions", tuple(items)))


def _lanes(graph: Graph, places: Mapping[str, Box]) -> dict[str, int]:
    """Return a lane for each line between two nodes: short ones first, none over another one."""
    spans = []
    for edge in graph.edges_of("tunnel", "bgp"):
        if edge.source in places and edge.target in places:
            ends = sorted((places[edge.source].middle, places[edge.target].middle))
            spans.append((ends[1] - ends[0], edge.kind == "bgp", edge.id, ends))
    taken: list[list[list[float]]] = []
    found: dict[str, int] = {}
    for _, _, key, (begin, end) in sorted(spans):
        free = (n for n, lane in enumerate(taken) if all(end < other[0] + 1 or begin > other[1] - 1 for other in lane))
        lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append([begin, end])
        found[key] = lane
    return found
