"""What is above and below the drawing itself: the title, failed claims, the steps of a path, a legend, notes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hoplab.graph import cards
from hoplab.graph.model import Graph
from hoplab.graph.scene import Group, Item, Line, Scene, Text, shortened, text_width, wrapped

LEGEND = {
    "pair": "veth pair and bridge",
    "endpoint": "endpoint of a service",
    "backend": "backend of an Ingress",
    "leads": "route",
    "over": "wrapped packets",
    "tunnel": "tunnel",
    "bgp": "BGP session",
    "link": "link",
}
WIDE = 860  # pixels of a line of text


def draw(graph: Graph, scene: Scene, x: float, y: float) -> None:
    """Add the texts above and below; set the height of the drawing."""
    scene.width = max(scene.width, 640)
    _head(graph, scene, x)
    if graph.failures:
        y = _failures(graph, scene, x, y)
    for number, step in enumerate(graph.steps, 1):
        lines = wrapped(step, "why", min(scene.width - 2 * x - 26, WIDE))
        items: list[Item] = [Text(x, y, f"{number}", "to")]
        for line, parts in enumerate(_marked(lines)):
            items.append(Text(x + 26, y + 18 * line, "", "why", more=parts))
        scene.front.append(Group("step", tuple(items)))
        y += 18 * len(lines) + 2
    y = _legend(graph, scene, x, y + (10 if graph.steps else 0))
    for note in graph.notes:
        for text in wrapped(note, "quiet", min(scene.width - 2 * x, WIDE)):
            scene.front.append(Group("note", (Text(x, y, text, "quiet"),)))
            y += 15
    scene.height = y + 8


def _marked(lines: Sequence[str]) -> Iterator[tuple[tuple[str, str], ...]]:
    """Yield the parts of each line with their styles: what is between `ticks` is code, also over the end of a line."""
    code = False
    for line in lines:
        parts = []
        for number, part in enumerate(line.split("`")):
            code = code != bool(number)
            parts += [(part, "mono" if code else "why")] if part else []
        yield tuple(parts)


def _head(graph: Graph, scene: Scene, x: float) -> None:
    verdict, style = _verdict(graph)
    room = max(scene.width, WIDE) - 2 * x - (text_width(verdict, style) + 22 if verdict else 0)
    of_title = "title" if text_width(graph.title, "title") <= room else "node"
    title = Text(x, 44, shortened(graph.title, of_title, room), of_title)
    items: list[Item] = [title]
    if verdict:
        items.append(Text(title.box.right + 22, 43, verdict, style))
    about = wrapped(" · ".join(graph.about), "about", max(scene.width, WIDE) - 2 * x)[:1]
    items += [Text(x, 66, text, "about") for text in about]
    right = max(item.box.right for item in items if isinstance(item, Text))
    scene.width = max(scene.width, right + x)
    scene.front.insert(0, Group("head", tuple(items)))


def _verdict(graph: Graph) -> tuple[str, str]:
    """Return how many claims fail or hold, and the style of that; an empty text where none were checked."""
    number = len(graph.failures)
    if not number:
        return (f"all {graph.held} claims hold" if graph.held else "", "verdict good")
    more = sum(failure.consequences for failure in graph.failures)
    words = f"{number} {'claim fails' if number == 1 else 'claims fail'}"
    return words + (f", and {more} because of {'it' if number == 1 else 'them'}" if more else ""), "verdict bad"


def _failures(graph: Graph, scene: Scene, x: float, y: float) -> float:
    room = min(scene.width - 2 * x - 30, WIDE)
    for number, failure in enumerate(graph.failures, 1):
        lines = wrapped(failure.why, "why", room)
        items: list[Item] = [*cards.badge((number,), x + 18, y - 4)]
        for parts in _marked(lines):
            items.append(Text(x + 26, y, "", "why", more=parts))
            y += 17
        if failure.shows:
            for text in wrapped(failure.shows, "small", room):
                items.append(Text(x + 26, y, text, "small"))
                y += 16
        scene.front.append(Group("failure", tuple(items), failure.claim))
        y += 5
    return y + 8


def _legend(graph: Graph, scene: Scene, x: float, y: float) -> float:
    kinds = [kind for kind in LEGEND if any(edge.kind == kind for edge in graph.edges)]
    items: list[Item] = []
    at = x
    for kind in kinds:
        words = graph.more.get(kind, LEGEND[kind])
        if at > x and at + 30 + text_width(words, "quiet") > scene.width - x:
            at, y = x, y + 17
        items += [Line(f"M{at:g} {y - 4:g}H{at + 22:g}", f"line {kind}"), Text(at + 29, y, words, "quiet")]
        at = round(at + 29 + text_width(words, "quiet") + 20)
    if items:
        scene.front.append(Group("legend", tuple(items)))
    return y + 20 if items else y
