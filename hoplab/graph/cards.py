"""The cards of a drawing: a rectangle with the texts of one vertex, at the origin until it is placed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hoplab.graph.model import MISSING, OK, Vertex
from hoplab.graph.scene import Box, Group, Item, Rect, Text, moved, shortened, text_width

PAD = 10
LINE = 14  # pixels from one line of text to the next
BADGE = 15
WIDEST = {"pod": 236, "host_pod": 236, "service": 236, "ingress": 260, "device": 250, "host": 280}
SUFFIX = re.compile(r"(-[0-9a-f]{8,10})?-[bcdfghjklmnpqrstvwxz2456789]{5}$")  # what a controller adds to a pod's name
BOXES = {"pod": "podbox", "host_pod": "podbox", "service": "servicebox", "ingress": "ingressbox", "host": "nicbox"}


@dataclass(frozen=True)
class Words:
    """One line of a card: a text at its left, and one at its right."""

    left: tuple[tuple[str, str], ...]  # texts with their styles, one after the other
    right: tuple[str, str] = ("", "quiet")

    @property
    def width(self) -> float:
        gap = 12 if self.right[0] else 0
        return sum(text_width(*part) for part in self.left) + gap + text_width(*self.right)


def lines_of(vertex: Vertex) -> list[Words]:
    """Return the lines of a vertex."""
    match vertex.kind:
        case "pod":
            return _pod(vertex)
        case "host_pod":
            return [Words(_split(vertex.label, "quiet"), (vertex.details[0] if vertex.details else "", "quiet"))]
        case "service":
            namespace, kind, *more = vertex.details
            lines = [Words(((vertex.label, "name"),), (kind, "quiet"))]
            first, *rest = more
            return [
                *lines,
                Words(((first, "mono"),), (namespace, "quiet")),
                *(Words(((text, "quiet"),)) for text in rest),
            ]
        case "ingress":
            namespace, *hosts = vertex.details
            head = Words(((vertex.label, "name"),), (f"Ingress of {namespace}", "quiet"))
            return [head, *(Words(((host, "mono"),)) for host in hosts)]
        case "host":
            return [Words(((vertex.label, "mono"),), (" · ".join(vertex.details), "quiet"))]
        case _:
            kind, *addresses = vertex.details or ("",)
            what, _, mtu = kind.rpartition(", ")
            lines = [Words(((vertex.label, "name"),), (mtu, "quiet"))]
            lines += [Words(((what, "quiet"),))] if what != "NIC" else []
            return [*lines, *(Words(((text, "mono"),)) for text in addresses)]


def _pod(vertex: Vertex) -> list[Words]:
    namespace, *addresses = vertex.details
    state = "" if vertex.state == OK and not vertex.tip else vertex.tip if vertex.tip == "not Ready" else "not running"
    if vertex.state == MISSING:
        state = "not seen"
    head = Words(_split(vertex.label, "name"), (state, "quiet"))
    first, *rest = addresses or ("no address",)
    return [head, Words(((first, "mono"),), (namespace, "quiet")), *(Words(((text, "small"),)) for text in rest)]


def _split(name: str, style: str) -> tuple[tuple[str, str], ...]:
    """Return the name of a pod in two parts: what its controller is called, and what that adds."""
    found = SUFFIX.search(name)
    if not found or not found.start():
        return ((name, style),)
    return ((name[: found.start()], "name" if style == "name" else style), (found.group(), "quiet"))


def wanted_width(vertices: Sequence[Vertex]) -> float:
    """Return the width of a column of these cards."""
    return max(
        (
            min(max(line.width for line in lines_of(vertex)) + 2 * PAD + _badge_room(vertex), limit)
            for vertex in vertices
            for limit in [WIDEST.get(vertex.kind, 250)]
        ),
        default=0,
    )


def _badge_room(vertex: Vertex) -> float:
    return badge_width(vertex.failures) + 4 if vertex.failures else 0


def height(vertex: Vertex) -> float:
    if vertex.kind == "host_pod":
        return 20
    return 10 + LINE * len(lines_of(vertex))


def card(vertex: Vertex, x: float, y: float, width: float, style: str = "") -> Group:
    """Return the card of a vertex at its place."""
    box = Box(0, 0, width, height(vertex))
    names = f"{style or BOXES.get(vertex.kind, 'card')} {vertex.state}" + (" bad" if vertex.failures else "")
    items: list[Item] = [Rect(box, names, 10 if vertex.kind == "host_pod" else 6)]
    if vertex.kind == "pod" and not vertex.failures:
        items.append(Rect(Box(0, 6, 3, box.h - 12), "strip", 1.5))
    room = width - 2 * PAD - _badge_room(vertex)
    for number, line in enumerate(lines_of(vertex)):
        baseline = 14 if vertex.kind == "host_pod" else 16 + LINE * number
        items += _line(line, baseline, PAD, room)
    if vertex.failures:
        items += badge(vertex.failures, width - 5, 12)
    return Group(vertex.kind, moved(items, x, y), tip(vertex), vertex.id)


def _line(line: Words, baseline: float, x: float, room: float) -> list[Item]:
    right, style = line.right
    most = room if line.width <= room + 0.5 else room / 2
    taken = min(text_width(right, style) + 12, most) if right else 0
    left, parts = room - taken, []
    for text, of_text in line.left:
        if left > 12:
            parts.append((shortened(text, of_text, left + 0.5), of_text))
            left -= text_width(*parts[-1])
    (first, of_first), *more = parts or [("", "quiet")]
    found: list[Item] = [Text(x, baseline, first, of_first, more=tuple(more))]
    if right:
        found.append(Text(x + room, baseline, shortened(right, style, taken - 12), style, "end"))
    return found


def badge(failures: Sequence[int], right: float, y: float) -> list[Item]:
    """Return the number of a failed claim in a red pill that ends there; a plus stands for more of them."""
    width = badge_width(failures)
    box = Box(right - width, y - BADGE / 2, width, BADGE)
    text = _numbers(failures)
    return [Rect(box, "badge", BADGE / 2), Text(right - width / 2, y + 3.6, text, "number onbad", "middle")]


def badge_width(failures: Sequence[int]) -> float:
    """Return the width of the pill, 0 without failed claims."""
    return max(BADGE, text_width(_numbers(failures), "number") + 6) if failures else 0


def _numbers(failures: Sequence[int]) -> str:
    return f"{failures[0]}{'+' if len(failures) > 1 else ''}" if failures else ""


def tip(vertex: Vertex) -> str:
    """Return the text that is shown where the pointer is on a vertex."""
    return "\n".join(text for text in (vertex.label, *vertex.details, vertex.tip) if text)
