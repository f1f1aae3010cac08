"""A trace as a drawing: a line for each namespace, an arrow for each link that the packet crosses; pure.

The same trace always gives the same text, so drawings are compared as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from hoplab.core.xml_text import xml_text
from hoplab.trace import render
from hoplab.trace.model import INFERRED, NOT_SEEN, OTHERWISE, SEEN, UNPREDICTED, Event, Hop, Place, Trace, Way

COLUMN, ROW, MARGIN = 96, 18, 16  # pixels: between two lines, between two rows, around the drawing
CHARACTER = 7.3  # pixels, of a monospaced font of 12 pixels
WIDEST = 130  # characters of a row's text; the rest is in its tooltip
STYLE = """\
text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1f2328}
.back{fill:#fff}.line{stroke:#8c959f;stroke-dasharray:2 3}.arrow{stroke:#0969da;stroke-width:1.5}
.head{fill:#0969da}.dot{fill:#0969da}.more{fill:#59636e}.ends{fill:#cf222e}.cross{stroke:#cf222e;stroke-width:2.5}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.back{fill:#0d1117}.more{fill:#9198a1}.arrow{stroke:#4493f8}
.head,.dot{fill:#4493f8}.ends{fill:#f85149}.cross{stroke:#f85149}}"""
REAL_STYLE = """
.seen{stroke:#1a7f37;fill:#1a7f37}.doubt{stroke:#8c959f;fill:none}.odd{stroke:#bc4c00;fill:#bc4c00}
.sum{fill:#1a7f37}.oddtext{fill:#bc4c00}.dim{fill:#8c959f}
@media (prefers-color-scheme:dark){.seen{stroke:#3fb950;fill:#3fb950}.odd{stroke:#db6d28;fill:#db6d28}.sum{fill:#3fb950}
.oddtext{fill:#db6d28}}"""
MARKS = {SEEN: "seen", INFERRED: "doubt", NOT_SEEN: "doubt", UNPREDICTED: "odd", OTHERWISE: "odd"}


@dataclass(frozen=True)
class _Row:
    """One row: a text, and what is drawn on the lines beside it."""

    text: str
    kind: str = ""  # "hop", "more", "ends", "" for a heading
    at: int = -1  # the line of a hop
    came: int = -1  # the line that an arrow comes from
    mark: str = ""  # beside a hop of a real packet: how it is known


def drawing(trace: Trace) -> str:
    """Return a trace as SVG, with the connections that a proxy opens below it."""
    traces = [trace, *trace.then]
    places = list(dict.fromkeys(hop.place for found in traces for hop in _hops(found.shown)))
    rows = [row for found in traces for row in _rows(found, places)]
    left = MARGIN + COLUMN * len(places)
    names = ROW * (len(places) + 1)
    width = left + int(CHARACTER * max(min(len(row.text), WIDEST) for row in rows)) + 2 * MARGIN
    height = names + ROW * (len(rows) + 1) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{_xml(f"{trace.source} to {trace.target}: {render.outcome(trace)}")}">',
        f"<style>{STYLE}{REAL_STYLE if trace.sent else ''}</style>",
        f'<rect class="back" width="{width}" height="{height}"/>',
        *_lines(places, height),
    ]
    for number, row in enumerate(rows):
        parts += _drawn(row, names + ROW * (number + 1), left)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _xml(text: str) -> str:
    return escape(xml_text(text))


def _hops(way: Way) -> tuple[Hop, ...]:
    return (*way.there, *way.back)


def _rows(trace: Trace, places: list[Place]) -> Iterator[_Row]:
    way = trace.shown
    yield _Row(f"{trace.source} to {trace.target}: {way.header.protocol.upper()} {way.header}")
    yield _Row(render.outcome(trace), "ends" if way.end else "more")
    for name, hops in (("there", way.there), ("back", way.back)):
        if hops:
            yield _Row(name)
        before: Place | None = None
        for hop in hops:
            came = places.index(before) if before and before != hop.place else -1
            mark = MARKS.get(hop.evidence, "") if trace.sent else ""
            yield _Row(_text(hop), "hop", places.index(hop.place), came, mark)
            yield from (_Row(f"  {_event(event)}", "more") for event in hop.events)
            before = hop.place
    if way.end:
        yield _Row(way.end.why, "ends", places.index(way.end.last) if way.end.last in places else -1)
    yield from (_Row(bend, "ends") for bend in way.bends)
    if trace.sent:
        yield _Row(f"{trace.sent.what}: {render.summary(trace.sent)}", "sum")
        yield from (_Row(sentence, "oddtext") for sentence in trace.sent.wrong)


def _text(hop: Hop) -> str:
    port = f" ({hop.port})" if hop.port else ""
    inner = f" [{hop.wrapped}: {hop.inner}]" if hop.inner else ""
    return f"{hop.interface or '-'}{port} {hop.direction} {hop.header}{inner}"


def _event(event: Event) -> str:
    return f"{event.kind} {event.result or event.text}"


def _x(line: int) -> int:
    return MARGIN + COLUMN // 2 + COLUMN * line


def _lines(places: list[Place], height: int) -> Iterator[str]:
    """Yield the line of each namespace with its name, each name on a row of its own above the lines."""
    for number, place in enumerate(places):
        top = ROW * (number + 1)
        yield f'<line class="line" x1="{_x(number)}" y1="{top + 4}" x2="{_x(number)}" y2="{height - MARGIN}"/>'
        yield f'<text x="{_x(number) - 6}" y="{top}">{_xml(str(place))}</text>'


def _drawn(row: _Row, y: int, left: int) -> Iterator[str]:
    middle = y - 4
    if row.came >= 0:
        start, end = _x(row.came), _x(row.at)
        tip = end - 7 if end > start else end + 7
        yield f'<line class="arrow" x1="{start}" y1="{middle}" x2="{tip}" y2="{middle}"/>'
        yield f'<path class="head" d="M{end} {middle}L{tip} {middle - 4}L{tip} {middle + 4}z"/>'
    elif row.kind == "hop":
        yield f'<circle class="dot" cx="{_x(row.at)}" cy="{middle}" r="3"/>'
    elif row.at >= 0:
        x = _x(row.at)
        cross = f"M{x - 6} {middle - 6}L{x + 6} {middle + 6}M{x + 6} {middle - 6}L{x - 6} {middle + 6}"
        yield f'<path class="cross" d="{cross}"/>'
    shown = row.text if len(row.text) <= WIDEST else f"{row.text[: WIDEST - 3]}..."
    whole = f"<title>{_xml(row.text)}</title>" if shown != row.text else ""
    if row.mark:
        yield f'<circle class="{row.mark}" cx="{left - 8}" cy="{middle}" r="3"/>'
    kind = f' class="{row.kind}"' if row.kind not in ("hop", "") else ""
    yield f'<text{kind} x="{left}" y="{y}" xml:space="preserve">{_xml(shown)}{whole}</text>'
