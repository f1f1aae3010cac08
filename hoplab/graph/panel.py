"""One node of a drawing: pods, their pairs, bridges, routes and devices, from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hoplab.graph import cards
from hoplab.graph.model import DOWN, MISSING, Graph, Vertex
from hoplab.graph.scene import Box, Group, Item, Rect, Text, shortened, text_width

PADDING, HEADER, GAP = 16, 46, 8
ROW = 20  # height of a route, and of the node's end of a pair
BAR = 30  # width of a bridge
ROUTE_HEAD = 24


@dataclass(frozen=True)
class Columns:
    """Widths of the columns in every node, and where they begin; a width of 0 is a column that is not there."""

    pods: float
    veths: float
    bars: float
    routes: float
    devices: float

    @classmethod
    def of(cls, graph: Graph) -> Columns:
        pods = graph.of_kind("pod", "host_pod")
        veths, bridges = graph.of_kind("veth"), graph.of_kind("bridge")
        routed = [edge for edge in graph.edges_of("routed") if graph.by_id[edge.source].kind == "veth"]
        routes = graph.of_kind("route")
        return cls(
            pods=max(cards.wanted_width(pods), 170) if pods else 0,
            veths=max(map(_veth_width, veths), default=0),
            bars=BAR if bridges or routed else 0,
            routes=max((_route_width(route) for route in routes), default=0) + 24 if routes else 0,
            devices=cards.wanted_width(graph.of_kind("device")),
        )

    @property
    def x(self) -> dict[str, float]:
        """Return where each column begins, from the node's left side, and where the last one ends."""
        found: dict[str, float] = {}
        at = float(PADDING)
        for name, width, gap in (
            ("pods", self.pods, 18),
            ("veths", self.veths, 22),
            ("bars", self.bars, 32),
            ("routes", self.routes, 48),
            ("devices", self.devices, PADDING),
        ):
            found[name] = at
            at += width + gap if width else 0
        return {**found, "end": max(at if self.devices else at - 18 + PADDING if not self.veths else at, 200)}


def _veth_width(veth: Vertex) -> float:
    return text_width(veth.label, "small") + 16 + 2 * cards.badge_width(veth.failures)


def _route_width(route: Vertex) -> float:
    words = [
        (route.label, "mono"),
        *((text, "small") for text in route.details),
        *([(route.to, "to")] if route.to else []),
    ]
    return sum(text_width(*word) for word in words) + 8 * (len(words) - 1) + cards.badge_width(route.failures)


@dataclass
class Panel:
    """A node at its place."""

    box: Box
    groups: list[Group] = field(default_factory=list)
    places: dict[str, Box] = field(default_factory=dict)  # of vertices, by id
    routed: Box | None = None  # the bar on which pods hang that have no bridge


def draw(graph: Graph, node: Vertex, columns: Columns, x: float, y: float) -> Panel:
    """Return a node whose left upper corner is there."""
    found = Panel(Box(x, y, 0, 0))
    top = y + HEADER
    bottom = max(_pods(graph, node, columns, found, x, top), _right(graph, node, columns, found, x, top))
    if found.routed:  # no route of the node itself is drawn: pairs end at their bar all the same
        found.places.setdefault(f"{node.id}/routing", found.routed)
    found.box = Box(x, y, columns.x["end"], bottom + PADDING - y)
    found.groups.insert(0, _frame(node, found))
    return found


def _frame(node: Vertex, panel: Panel) -> Group:
    box = panel.box
    bad = " bad" if node.failures else ""
    items: list[Item] = [Rect(box, f"panel {node.state}{bad}", 12)]
    at = box.x + PADDING
    items.append(Text(at, box.y + 28, node.label, f"node{bad}"))
    at += text_width(node.label, "node") + 14
    for words in node.details:
        style = "quiet" if " " in words else "mono"
        if at + text_width(words, style) < box.right - PADDING - 40:
            items.append(Text(at, box.y + 28, words, style))
            at += text_width(words, style) + 12
    if node.tip and (room := box.right - PADDING - at - (30 if node.failures else 0)) > 60:
        items.append(Text(at, box.y + 28, shortened(node.tip, "quiet", room), "quiet bad"))
    if node.failures:
        items += cards.badge(node.failures, box.right - 12, box.y + 22)
    panel.places[node.id] = Box(box.x, box.y + 12, box.w, 22)  # lines end at its head
    return Group("node", tuple(items), cards.tip(node), node.id)


@dataclass(frozen=True)
class _Row:
    """A pod and the node's end of its pair; either may be missing."""

    pod: Vertex | None
    veth: Vertex | None

    @property
    def height(self) -> float:
        return cards.height(self.pod) if self.pod else ROW


def _pods(graph: Graph, node: Vertex, columns: Columns, panel: Panel, x: float, top: float) -> float:
    """Place pods, pairs and bridges; return where they end."""
    at = {name: x + start for name, start in columns.x.items()}
    y = top
    for bundle in _bundles(graph, node):
        begin = y
        for row in bundle.rows:
            if row.pod:
                _put(panel, cards.card(row.pod, at["pods"], y, columns.pods))
            if row.veth:
                _put(panel, _veth(row.veth, at["veths"], y + (row.height - ROW) / 2, columns.veths))
            y += row.height + GAP
        if bundle.words:
            failed = bundle.bridge is not None and bool(bundle.bridge.failures)
            length = text_width(bundle.words, "bar") + 24 + (30 if failed else 0)
            box = Box(at["bars"], begin, BAR, max(y - GAP - begin, length))
            panel.groups.append(_bar(bundle, box))
            if bundle.bridge:
                panel.places[bundle.bridge.id] = box
            else:
                panel.routed = box
            y = max(y, box.bottom + GAP)
    guests = graph.of_kind("host_pod", parent=node.id)
    if guests:
        panel.groups.append(Group("note", (Text(at["pods"], y + 10, "in the node's network namespace", "quiet"),)))
        y += 17
        for guest in guests:
            _put(panel, cards.card(guest, at["pods"], y, columns.pods))
            y += cards.height(guest) + 4
    return y - GAP if y > top else top


@dataclass(frozen=True)
class _Bundle:
    """Rows that end at one bar: a bridge, or the routes that stand for one."""

    bridge: Vertex | None
    rows: list[_Row]
    words: str  # at the bar; "" where pairs end nowhere


def _bundles(graph: Graph, node: Vertex) -> list[_Bundle]:
    """Return the rows of each bridge, then those that are routed without one, then those that end nowhere."""
    pods = graph.of_kind("pod", parent=node.id)
    veths = graph.of_kind("veth", parent=node.id)
    ends = {edge.source: edge.target for edge in graph.edges_of("pair")}
    ports = {edge.source: edge.target for edge in graph.edges_of("port")}
    routed = {edge.source for edge in graph.edges_of("routed")}
    by_id = graph.by_id
    taken = {ends[pod.id] for pod in pods if pod.id in ends}
    rows = [_Row(pod, by_id.get(ends.get(pod.id, ""))) for pod in pods]
    rows = [_Row(row.pod, row.veth if row.veth and row.veth.kind == "veth" else None) for row in rows]
    rows += [_Row(None, veth) for veth in veths if veth.id not in taken]
    found = []
    for bridge in graph.of_kind("bridge", parent=node.id):
        own = [row for row in rows if row.veth and ports.get(row.veth.id) == bridge.id]
        found.append(_Bundle(bridge, own, "  ".join((bridge.label, *bridge.details[:1]))))
    found.sort(key=lambda bundle: -len(bundle.rows))
    rest = [row for row in rows if not (row.veth and row.veth.id in ports)]
    alone = [row for row in rest if row.veth and row.veth.id in routed]
    found += [_Bundle(None, alone, _at_the_bar(graph, alone))] if alone else []
    return [*found, _Bundle(None, [row for row in rest if row not in alone], "")]


def _at_the_bar(graph: Graph, rows: Sequence[_Row]) -> str:
    """Return what the bar of pairs without a bridge stands for: routes, or a program of eBPF."""
    taking = {edge.source for edge in graph.edges_of("routed") if edge.label}
    return "a program at each" if any(row.veth and row.veth.id in taking for row in rows) else "a route to each pod"


def _put(panel: Panel, group: Group) -> None:
    panel.groups.append(group)
    if group.box:
        panel.places[group.vertex] = group.box


def _veth(veth: Vertex, x: float, y: float, width: float) -> Group:
    box = Box(x, y, width, ROW)
    style = f"vethbox {veth.state}" + (" bad" if veth.failures else "")
    items: list[Item] = [Rect(box, style, ROW / 2), Text(x + width / 2, y + 13.5, veth.label, "small ink", "middle")]
    if veth.failures:
        items += cards.badge(veth.failures, x + width - 3, y + ROW / 2)
    return Group("veth", tuple(items), cards.tip(veth), veth.id)


def _bar(bundle: _Bundle, box: Box) -> Group:
    bridge = bundle.bridge
    bad = " bad" if bridge and bridge.failures else ""
    state = f"bridgebox {bridge.state}{bad}" if bridge else "routedbox missing"
    middle = box.x + box.w / 2
    items: list[Item] = [
        Rect(box, state, 8),
        Text(middle + 4, box.middle, bundle.words, f"bar{bad}", "middle", upright=False),
    ]
    if bridge and bridge.failures:
        items += cards.badge(bridge.failures, middle + cards.badge_width(bridge.failures) / 2, box.y + 13)
    title = cards.tip(bridge) if bridge else "no bridge: the node has a route to the address of each pod"
    return Group("bridge", tuple(items), title, bridge.id if bridge else "")


def _right(graph: Graph, node: Vertex, columns: Columns, panel: Panel, x: float, top: float) -> float:
    """Place routes and devices; return where they end."""
    at = {name: x + start for name, start in columns.x.items()}
    routes = graph.of_kind("route", parent=node.id)
    y = top
    if routes:
        box = Box(at["routes"], top, columns.routes, ROUTE_HEAD + ROW * len(routes) + 6)
        head: list[Item] = [Rect(box, "card", 8), Text(box.x + 12, top + 16, "routes", "caption")]
        panel.groups.append(Group("routing", tuple(head), f"routes of {node.label}", f"{node.id}/routing"))
        panel.places[f"{node.id}/routing"] = Box(box.x, top, box.w, ROUTE_HEAD)
        for number, route in enumerate(routes):
            _put(panel, _route(route, Box(box.x + 4, top + ROUTE_HEAD + ROW * number, box.w - 8, ROW)))
        y = box.bottom
    devices = _in_order(graph, node, routes)
    down = top
    for device in devices:
        _put(panel, cards.card(device, at["devices"], down, columns.devices, _device_style(device)))
        down += cards.height(device) + 22
    return max(y, down - 22) if devices else y


def _in_order(graph: Graph, node: Vertex, routes: Sequence[Vertex]) -> list[Vertex]:
    """Return devices in the order of the routes to them; what others are above comes last."""
    order = {route.id: number for number, route in enumerate(routes)}
    leads = graph.edges_of("leads")
    below = {edge.target for edge in graph.edges_of("over")}
    first: dict[str, int] = {}
    for edge in leads:
        first[edge.target] = min(first.get(edge.target, len(order)), order.get(edge.source, len(order)))
    devices = graph.of_kind("device", parent=node.id)
    return sorted(devices, key=lambda device: (device.id in below, first.get(device.id, len(order))))


def _device_style(device: Vertex) -> str:
    kind = device.details[0].split()[0] if device.details else ""
    return "tunnelbox" if kind in ("VXLAN", "WireGuard,", "IPIP,", "Geneve,", "VXLAN,") else "nicbox"


def _route(route: Vertex, box: Box) -> Group:
    bad = " bad" if route.failures else ""
    faint = " gone" if route.state in (MISSING, DOWN) else ""
    items: list[Item] = [Rect(box, f"row {route.state}{bad}", 4)]
    at = box.x + 8
    for text, style in [(route.label, f"mono{bad}{faint}"), *((text, f"small{bad}") for text in route.details)]:
        items.append(Text(at, box.y + 14, text, style))
        at += text_width(text, style) + 8
    right = box.right - 8
    if route.failures:
        items += cards.badge(route.failures, right + 3, box.middle)
        right -= cards.badge_width(route.failures) + 3
    if route.to:
        items.append(Text(right, box.y + 14, route.to, "to", "end"))
    return Group("route", tuple(items), route.tip, route.id)
