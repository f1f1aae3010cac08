"""Fonts and colours of drawings, light and dark, as the style sheet of an SVG.

Every rule is below ``.hoplab``, so that a drawing inside of a page changes nothing else there. There are no variables
of CSS: programs other than browsers do not have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SANS = "Inter, 'Segoe UI', system-ui, -apple-system, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
MONO_WIDTH = 0.61  # of a character, in parts of the font's size: DejaVu Sans Mono, the widest of these


@dataclass(frozen=True)
class Font:
    size: float
    weight: int = 400
    mono: bool = False


FONTS: Mapping[str, Font] = {
    "title": Font(24, 700),
    "about": Font(12.5),
    "verdict": Font(13, 600),
    "caption": Font(11, 600),
    "node": Font(16, 700),
    "name": Font(12, 600),
    "quiet": Font(10.5),
    "mono": Font(11, mono=True),
    "small": Font(10, mono=True),
    "to": Font(10.5, 600),
    "bar": Font(11.5, 600),
    "number": Font(10, 700),
    "why": Font(12.5),
}


@dataclass(frozen=True)
class Palette:
    """The colours of a drawing."""

    paper: str
    ink: str
    quiet: str
    line: str
    panel: str
    card: str
    pod: str
    pod_line: str
    service: str
    service_line: str
    ingress: str
    bridge: str
    bridge_fill: str
    tunnel: str
    tunnel_fill: str
    bgp: str
    wire: str
    wire_fill: str
    bad: str
    bad_fill: str
    good: str


LIGHT = Palette(
    paper="#ffffff",
    ink="#1b2430",
    quiet="#667282",
    line="#d3dbe4",
    panel="#f5f7fa",
    card="#ffffff",
    pod="#2f6fde",
    pod_line="#b4cbf3",
    service="#7a4fd0",
    service_line="#d0c1f1",
    ingress="#c2418c",
    bridge="#0d7f73",
    bridge_fill="#d8f1ed",
    tunnel="#cf6a06",
    tunnel_fill="#fff1e0",
    bgp="#8d7400",
    wire="#566576",
    wire_fill="#e6ebf1",
    bad="#cf222e",
    bad_fill="#ffefed",
    good="#17793a",
)
DARK = Palette(
    paper="#0e1319",
    ink="#e7ecf2",
    quiet="#95a2b1",
    line="#2b3744",
    panel="#141b23",
    card="#1b2530",
    pod="#74a9ff",
    pod_line="#31517f",
    service="#b79cff",
    service_line="#4d3f78",
    ingress="#ff8ecb",
    bridge="#4fd3c1",
    bridge_fill="#12352f",
    tunnel="#ffa552",
    tunnel_fill="#33240f",
    bgp="#e2c453",
    wire="#9aabbd",
    wire_fill="#222e3a",
    bad="#ff7b72",
    bad_fill="#371c1e",
    good="#56c97f",
)


def sheet() -> str:
    """Return the style sheet: fonts and light colours, then dark ones for screens that prefer them."""
    rules = [f".hoplab text {{ font-family: {SANS}; text-rendering: geometricPrecision; }}"]
    for name, font in FONTS.items():
        family = f" font-family: {MONO};" if font.mono else ""
        rules.append(f".hoplab .{name} {{ font-size: {font.size}px; font-weight: {font.weight};{family} }}")
    rules += [
        ".hoplab .line { fill: none; stroke-width: 1.4; stroke-linecap: round; stroke-linejoin: round; }",
        ".hoplab .endpoint, .hoplab .backend { stroke-width: 1.3; stroke-opacity: .55; }",
        ".hoplab .pipe { stroke-width: 9; stroke-opacity: .2; }",
        ".hoplab .tunnel { stroke-width: 1.8; }",
        ".hoplab .link { stroke-width: 2.4; }",
        ".hoplab .over { stroke-dasharray: 2 4; }",
        ".hoplab .bgp { stroke-dasharray: 1 4; stroke-width: 2; }",
        ".hoplab .missing, .hoplab .down { stroke-dasharray: 5 4; }",
        ".hoplab .bad { stroke-width: 2.2; stroke-opacity: 1; }",
        ".hoplab .service:hover .line, .hoplab .ingress:hover .line { stroke-width: 2.6; stroke-opacity: 1; }",
    ]
    dark = "\n".join(f"  {rule}" for rule in _colours(DARK))
    return "\n".join([*rules, *_colours(LIGHT), "@media screen and (prefers-color-scheme: dark) {", dark, "}"])


def _colours(of: Palette) -> list[str]:
    fills = {
        "paper": of.paper,
        "title, .hoplab .node, .hoplab .name, .hoplab .mono, .hoplab .why": of.ink,
        "about, .hoplab .caption, .hoplab .quiet, .hoplab .small": of.quiet,
        "to": of.tunnel,
        "bar": of.bridge,
        "wired": of.wire,
        "ink": of.ink,
        "good": of.good,
        "odd": of.tunnel,
        "onbad": of.paper,
    }
    boxes = {
        "panel": (of.panel, of.line),
        "card": (of.card, of.line),
        "podbox": (of.card, of.pod_line),
        "servicebox": (of.card, of.service_line),
        "ingressbox": (of.card, of.ingress),
        "bridgebox": (of.bridge_fill, of.bridge),
        "routedbox": (of.panel, of.bridge),
        "tunnelbox": (of.tunnel_fill, of.tunnel),
        "nicbox": (of.wire_fill, of.wire),
        "vethbox": (of.bridge_fill, of.bridge_fill),
        "strip": (of.pod, of.pod),
        "row": ("none", "none"),
        "ring": ("none", of.quiet),
    }
    strokes = (
        (("pair", "port", "routed"), of.bridge),
        (("leads", "over", "link"), of.wire),
        (("tunnel", "pipe"), of.tunnel),
        (("bgp",), of.bgp),
        (("endpoint",), of.service),
        (("backend",), of.ingress),
    )
    rules = [f".hoplab .{name} {{ fill: {colour}; }}" for name, colour in fills.items()]
    rules += [f".hoplab .{name} {{ fill: {fill}; stroke: {line}; }}" for name, (fill, line) in boxes.items()]
    for kinds, colour in strokes:
        selector = ", ".join(f".hoplab .line.{kind}" for kind in kinds)
        rules.append(f"{selector} {{ stroke: {colour}; }}")
    return [
        *rules,
        f".hoplab .line.bad {{ stroke: {of.bad}; }}",
        f".hoplab rect.bad {{ stroke: {of.bad}; fill: {of.bad_fill}; }}",
        f".hoplab rect.panel.bad {{ fill: {of.panel}; }}",
        f".hoplab text.bad {{ fill: {of.bad}; }}",
        f".hoplab .badge {{ fill: {of.bad}; stroke: none; }}",
    ]
