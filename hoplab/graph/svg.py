"""A drawing as SVG: one file without scripts, readable as text, light and dark."""

from __future__ import annotations

from xml.etree import ElementTree

from hoplab.core.xml_text import xml_text
from hoplab.graph.layout import layout
from hoplab.graph.model import Graph
from hoplab.graph.scene import Box, Group, Item, Line, Rect, Scene, Text
from hoplab.graph.style import sheet


def svg(graph: Graph) -> str:
    """Return a graph as an SVG document."""
    return written(layout(graph))


def written(scene: Scene) -> str:
    """Return a drawing as an SVG document; groups in which nothing is drawn are left out."""
    width, height = round(scene.width), round(scene.height)
    root = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": "hoplab",
            "viewBox": f"0 0 {width} {height}",
            "width": str(width),
            "height": str(height),
            "role": "img",
            "aria-label": xml_text(f"{scene.title}: {scene.description}"),
        },
    )
    ElementTree.SubElement(root, "style").text = f"\n{sheet()}\n"
    _add(root, Rect(Box(0, 0, width, height), "paper", 0))
    for group in scene.groups:
        _group(root, group)
    _indent(root)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True) + "\n"


def _group(root: ElementTree.Element, group: Group) -> None:
    if not group.items:
        return
    found = ElementTree.SubElement(root, "g", {"class": group.style})
    if group.title:
        ElementTree.SubElement(found, "title").text = xml_text(group.title)
    for item in group.items:
        _add(found, item)


def _add(parent: ElementTree.Element, item: Item) -> None:
    match item:
        case Rect(box, style, radius):
            places = {"x": box.x, "y": box.y, "width": box.w, "height": box.h, **({"rx": radius} if radius else {})}
            ElementTree.SubElement(parent, "rect", {"class": style, **_numbers(places)})
        case Line(path, style):
            ElementTree.SubElement(parent, "path", {"class": style, "d": path})
        case Text(x, y, text, style, anchor, upright, parts):
            more: dict[str, str] = {} if anchor == "start" else {"text-anchor": anchor}
            if not upright:
                more["transform"] = "rotate(-90 {x} {y})".format(**_numbers({"x": x, "y": y}))
            found = ElementTree.SubElement(parent, "text", {"class": style, **_numbers({"x": x, "y": y}), **more})
            found.text = xml_text(text)
            for part, of_part in parts:
                ElementTree.SubElement(found, "tspan", {"class": of_part}).text = xml_text(part)


def _indent(root: ElementTree.Element) -> None:
    """Put each element on a line of its own; not within texts, where blanks are drawn."""
    for number, child in enumerate(root):
        child.tail = "\n "
        if child.tag == "g":
            child.text = "\n  "
            for item in child:
                item.tail = "\n  "
            child[-1].tail = "\n "
        if number == len(root) - 1:
            child.tail = "\n"
    root.text = "\n "


def _numbers(values: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.1f}".removesuffix(".0") for name, value in values.items()}
