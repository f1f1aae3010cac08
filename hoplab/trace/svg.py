"""A trace as a drawing: a line for each namespace, an arrow for each link that the packet crosses; pure.

It looks like the graphs of a lab, and the same trace always gives the same text, so drawings are compared as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from hoplab.graph.scene import Box, Group, Item, Line, Rect, Scene, Text, shortened, text_width
from hoplab.graph.svg import written
from hoplab.trace import render
from hoplab.trace.model import INFERRED, NOT_SEEN, OTHERWISE, SEEN, UNPREDICTED, Event, Hop, Place, Trace, Way

COLUMN, MARGIN, GAP = (
    140,
    28,
    10,
)  # pixels: from line to line, around the drawing, from name to name
TOP, HEADER = 102, 38  # where the boxes begin, and their height
ROW, SMALL_ROW, SPACE = 22, 16, 12  # of a hop, of what happens there, before a heading
WIDEST = 720  # pixels of a row's text; the rest is in its tooltip
INDENT, KIND = 14, 74  # pixels: of what happens at a hop, of its name
RADIUS = 3.5  # of dots
BOXES = {"pod": "podbox", "node": "card", "outside": "nicbox", "wire": "nicbox"}
MARKS = {SEEN: "good", INFERRED: "ring", NOT_SEEN: "ring", UNPREDICTED: "odd", OTHERWISE: "odd"}


@dataclass(frozen=True)
class _Row:
    """One row: texts one after the other with their styles, and what is drawn on the lines beside it."""

    texts: tuple[tuple[str, str], ...]
    height: int = ROW
    indent: int = 0
    hop: Hop | None = None
    came: Place | None = None  # where an arrow comes from
    crossed: Place | None = None  # where the packet ends
    mark: str = ""  # beside a hop of a real packet: how it is known


def drawing(trace: Trace) -> str:
    """Return a trace as SVG, with the connections that a proxy opens below it."""
    return written(scene(trace))


def scene(trace: Trace) -> Scene:
    """Return what is drawn of a trace: a group of the back for each namespace, one of the front for each row."""
    traces = [trace, *trace.then]
    places = list(dict.fromkeys(hop.place for found in traces for hop in _hops(found.shown)))
    left = MARGIN + COLUMN * len(places) + 20
    found = Scene(title=f"{trace.source} to {trace.target}", description=render.outcome(trace))
    bottom: float = TOP + HEADER + SPACE
    for number, one in enumerate(traces):
        for row in _rows(one, heading=number > 0):
            bottom += row.height
            found.front.append(_drawn(row, bottom - 7, left, places))
    found.front.insert(0, Group("row", tuple(_title(trace))))
    found.back = [_line(place, number, bottom) for number, place in enumerate(places)]
    items = [item for group in found.groups for item in group.items]
    found.width = max(item.box.right for item in items if isinstance(item, (Rect, Text))) + MARGIN
    found.height = bottom + MARGIN
    return found


def _title(trace: Trace) -> Iterator[Text]:
    way = trace.shown
    yield Text(MARGIN, 44, f"{trace.source} to {trace.target}", "node")
    yield Text(MARGIN, 66, f"{way.header.protocol_name} {way.header}", "mono")
    yield Text(MARGIN, 84, render.outcome(trace), f"verdict {'bad' if way.end else 'good'}")


def _hops(way: Way) -> tuple[Hop, ...]:
    return (*way.there, *way.back)


def _rows(trace: Trace, *, heading: bool) -> Iterator[_Row]:
    way = trace.shown
    if heading:
        yield _Row(((f"then {trace.source} to {trace.target}: {way.header.protocol_name} ", "name"),), ROW + SPACE)
        yield _Row(((render.outcome(trace), "verdict bad" if way.end else "verdict good"),))
    for name, hops in (("there", way.there), ("back", way.back)):
        if hops:
            yield _Row(((name, "caption"),), SMALL_ROW + SPACE)
        for before, hop in pairwise((None, *hops)):
            assert hop
            came = before.place if before and before.place != hop.place else None
            yield _Row(_texts(hop), hop=hop, came=came, mark=MARKS.get(hop.evidence, "") if trace.sent else "")
            yield from (_Row(_event(event), SMALL_ROW, INDENT) for event in hop.events)
    if way.end:
        yield _Row(((way.end.why, "why bad"),), ROW + SPACE, crossed=way.end.last)
    yield from (_Row(((bend, "why bad"),)) for bend in way.bends)
    if trace.sent:
        yield _Row(((f"{trace.sent.what}: {render.summary(trace.sent)}", "verdict good"),), ROW + SPACE)
        yield from (_Row(((sentence, "why odd"),)) for sentence in trace.sent.wrong)


def _texts(hop: Hop) -> tuple[tuple[str, str], ...]:
    port = f" ({hop.port})" if hop.port else ""
    inner = (f"  {hop.wrapped}: {hop.inner}", "to") if hop.inner else ("", "to")
    return ((f"{hop.interface or '-'}{port} {hop.direction}  ", "name"), (str(hop.header), "mono"), inner)


def _event(event: Event) -> tuple[tuple[str, str], ...]:
    """
    >>> _event(Event("mark", "mark 0x4000"))
    (('mark', 'quiet'), ('0x4000', 'small'))
    """
    return ((event.kind, "quiet"), ((event.result or event.text).removeprefix(f"{event.kind} "), "small"))


def _x(number: int) -> int:
    return MARGIN + COLUMN // 2 + COLUMN * number


def _line(place: Place, number: int, bottom: float) -> Group:
    """Return the line of a namespace, below a box with its name."""
    width = COLUMN - GAP
    box = Box(_x(number) - width / 2, TOP, width, HEADER)
    group, _, name = place.name.rpartition("/")
    about = group or (place.kind if name else "")
    shown = shortened(name or place.kind, "name", width - 12)
    items: list[Item] = [
        Line(f"M{_x(number)} {box.bottom}V{bottom}", "line over"),
        Rect(box, BOXES[place.kind]),
        Text(_x(number), TOP + (17 if about else 23), shown, "name", "middle"),
        Text(_x(number), TOP + 31, shortened(about, "quiet", width - 12), "quiet", "middle"),
    ]
    return Group("place", tuple(items), title=str(place))


def _drawn(row: _Row, y: float, left: float, places: list[Place]) -> Group:
    middle, items = y - 4, list[Item]()
    if row.hop and row.came:
        start, end = _x(places.index(row.came)), _x(places.index(row.hop.place))
        back = 7 if end > start else -7
        kind = "tunnel" if row.hop.inner else "leads"
        head = f"M{end - back} {middle - 4}L{end} {middle}L{end - back} {middle + 4}"
        items.append(Line(f"M{start} {middle}H{end}{head}", f"line {kind}"))
    elif row.hop:
        items.append(_dot(_x(places.index(row.hop.place)), middle, "wired"))
    elif row.crossed in places:
        x = _x(places.index(row.crossed))
        cross = f"M{x - 6} {middle - 6}L{x + 6} {middle + 6}M{x + 6} {middle - 6}L{x - 6} {middle + 6}"
        items.append(Line(cross, "line bad"))
    if row.mark:
        items.append(_dot(left - 10, middle, row.mark))
    texts, whole = _fitting(row)
    first, *more = texts
    if row.indent:  # what happens at a hop: names in a column
        items += [Text(left + row.indent, y, *first), Text(left + row.indent + KIND, y, *more[0])]
    else:
        items.append(Text(left, y, *first, more=tuple(more)))
    return Group(" ".join(filter(None, ("hop" if row.hop else "row", row.mark))), tuple(items), title=whole)


def _fitting(row: _Row) -> tuple[list[tuple[str, str]], str]:
    """Return the texts of a row, cut off where they are too wide, and all of the text if so."""
    texts = [(text, style) for text, style in row.texts if text]
    found, room = list[tuple[str, str]](), float(WIDEST)
    for text, style in texts:
        if text_width(text, style) > room:
            return [*found, (shortened(text, style, room), style)], "".join(text for text, _ in texts)
        found.append((text, style))
        room -= text_width(text, style)
    return found, ""


def _dot(x: float, y: float, style: str) -> Rect:
    return Rect(Box(x - RADIUS, y - RADIUS, 2 * RADIUS, 2 * RADIUS), style, RADIUS)
