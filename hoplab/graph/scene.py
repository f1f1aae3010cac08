"""A drawing: rectangles, texts and lines at their places, in groups. The layouter makes it; a renderer writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from hoplab.graph.style import FONTS, MONO_WIDTH


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels."""

    x: float
    y: float
    w: float
    h: float

    @property
    def right(self) -> float:
        return self.x + self.w

    @property
    def bottom(self) -> float:
        return self.y + self.h

    @property
    def middle(self) -> float:
        return self.y + self.h / 2

    def overlaps(self, other: Box) -> bool:
        return (
            self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom
        )  # boxes that only touch do not

    def contains(self, other: Box) -> bool:
        return self.x <= other.x and other.right <= self.right and self.y <= other.y and other.bottom <= self.bottom

    def port(self, index: int, count: int, margin: float = 8) -> float:
        """Return the height of one of several lines that end at a side of it, from the top.

        >>> Box(0, 0, 10, 40).port(0, 1), Box(0, 0, 10, 40).port(1, 2)
        (20.0, 26.0)
        """
        gap = min((self.h - 2 * margin) / max(count - 1, 1), 12)
        return self.middle + gap * (index - (count - 1) / 2)


@dataclass(frozen=True)
class Text:
    """A line of text; ``y`` is its baseline."""

    x: float
    y: float
    text: str
    style: str  # of style.FONTS
    anchor: Literal["start", "middle", "end"] = "start"
    upright: bool = True  # False: it runs from bottom to top
    more: tuple[tuple[str, str], ...] = ()  # texts that follow it, with their styles

    @property
    def box(self) -> Box:
        """Return the place that it takes at most."""
        width, size = text_width(self.text, self.style), FONTS[self.style.split()[0]].size
        width += sum(text_width(*part) for part in self.more)
        before = {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        if self.upright:
            return Box(self.x - before, self.y - 0.8 * size, width, size)
        return Box(self.x - 0.8 * size, self.y - width + before, size, width)


@dataclass(frozen=True)
class Rect:
    box: Box
    style: str
    radius: float = 6


@dataclass(frozen=True)
class Line:
    """A path, as the attribute ``d`` of SVG has it."""

    path: str
    style: str
    edge: str = ""  # id of the edge of the graph


Item = Rect | Text | Line


@dataclass(frozen=True)
class Group:
    """Items that belong together, with a tooltip."""

    style: str
    items: tuple[Item, ...]
    title: str = ""
    vertex: str = ""  # id of the vertex of the graph

    @property
    def box(self) -> Box | None:
        """Return its rectangle: the first one, which holds the others."""
        return next((item.box for item in self.items if isinstance(item, Rect)), None)


@dataclass
class Scene:
    """A drawing, from the back to the front."""

    width: float = 0
    height: float = 0
    title: str = ""
    description: str = ""
    back: list[Group] = field(default_factory=list)  # panels
    lines: list[Group] = field(default_factory=list)
    front: list[Group] = field(default_factory=list)  # what texts are on

    @property
    def groups(self) -> Iterator[Group]:
        yield from (*self.back, *self.lines, *self.front)


def text_width(text: str, style: str) -> float:
    """Return how wide a text is at most in the fonts of a style, in pixels."""
    font = FONTS[style.split(maxsplit=1)[0]]
    if font.mono:
        return len(text) * font.size * MONO_WIDTH
    return sum(map(_width_of, text)) * font.size * (1.08 if font.weight > 500 else 1)


def _width_of(character: str) -> float:
    """Return the width of a character of a wide sans-serif font, in parts of its size."""
    if character in "iljI|.,:;'! ":
        return 0.36
    if character in 'frt()[]/-`"':
        return 0.45
    if character in "mwMW@%→—":
        return 0.98
    return 0.72 if character.isupper() else 0.63


def shortened(text: str, style: str, width: float) -> str:
    """Return a text that fits into a width, with an ellipsis in its middle where it was too long."""
    if text_width(text, style) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        head = (kept + 1) // 2
        if text_width(found := f"{text[:head]}…{text[len(text) - kept + head :]}", style) <= width:
            return found
    return "…"


def wrapped(text: str, style: str, width: float) -> list[str]:
    """Return a text in lines that fit into a width; a word that is too long gets a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", style) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(shortened(word, style, width))
    return lines


def moved(items: Iterable[Item], dx: float, dy: float) -> tuple[Item, ...]:
    """Return rectangles and texts at another place."""
    found: list[Item] = []
    for item in items:
        if isinstance(item, Rect):
            box = item.box
            found.append(replace(item, box=Box(box.x + dx, box.y + dy, box.w, box.h)))
        elif isinstance(item, Text):
            found.append(replace(item, x=item.x + dx, y=item.y + dy))
    return tuple(found)
