"""Each format has the whole graph, and nothing that breaks its syntax, whatever the names are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from hoplab.cli import draw
from hoplab.graph import views
from hoplab.graph.blame import blame
from hoplab.graph.build import build
from hoplab.graph.d2 import d2
from hoplab.graph.dot import dot
from hoplab.graph.formats import FORMATS, json_text
from hoplab.graph.mermaid import mermaid
from hoplab.graph.model import Edge, Failure, Graph, Vertex
from hoplab.graph.path import path
from hoplab.graph.style import FONTS, LIGHT, sheet
from hoplab.graph.svg import svg
from tests.support.recordings import recording

NASTY = '</text><script>alert(1)</script> "quoted" `tick` & % | ; \\ {} [] \x00\x1b[31m\nend %% -->'
SVG = "{http://www.w3.org/2000/svg}"


def nasty() -> Graph:
    """Return a graph whose every text is hostile."""
    vertices = (
        Vertex("network", "network", NASTY, (NASTY,)),
        Vertex("a", "node", NASTY, (NASTY,), tip=NASTY, failures=(1,)),
        Vertex("a/routing", "routing", NASTY, parent="a"),
        Vertex("a/route", "route", NASTY, (NASTY,), "a", "missing", tip=NASTY, to=NASTY),
        Vertex("a/dev", "device", NASTY, (NASTY,), "a", tip=NASTY),
        Vertex("a/veth", "veth", NASTY, (), "a"),
        Vertex("pod", "pod", NASTY, (NASTY, NASTY), "a", failures=(1,)),
        Vertex("service", "service", NASTY, (NASTY, NASTY, NASTY), failures=(1,)),
        Vertex("ingress", "ingress", NASTY, (NASTY, NASTY)),
    )
    edges = (
        Edge("pair", "pod", "a/veth", NASTY, failures=(1,)),
        Edge("leads", "a/route", "a/dev", NASTY, "down"),
        Edge("endpoint", "service", "pod", NASTY),
        Edge("backend", "ingress", "service", NASTY),
        Edge("link", "a/dev", "network"),
    )
    return Graph(NASTY, (NASTY,), vertices, edges, (NASTY,), (Failure(NASTY, NASTY, 2, NASTY),), steps=(NASTY,))


def small() -> Graph:
    lab = recording("broken/an-fdb-entry-is-gone")
    graph = blame(build(lab), [Failure("worker2 has no FDB entry de:16:64:34:95:3f dev flannel.1 dst 192.168.77.20")])
    return path(lab, graph, "echo-w8kjg", "hoplab-verify/single-659bfc6785-8hptb")


@pytest.mark.parametrize(("render", "ending"), [(mermaid, "mmd"), (dot, "dot"), (d2, "d2"), (json_text, "json")])
def test_a_path_in_each_text_format(
    render: Callable[[Graph], str], ending: str, golden: Callable[[str, str], None]
) -> None:
    golden(f"graph_path.{ending}", render(small()))


@pytest.mark.parametrize("graph", [nasty(), small()], ids=["nasty", "small"])
def test_mermaid_is_well_formed(graph: Graph) -> None:
    text = mermaid(graph)
    head, *lines = text.splitlines()
    assert head == "flowchart LR"
    shapes = r'n\d+(\("[^"]*"\)|\(\["[^"]*"\]\)|\[\["[^"]*"\]\]|>"[^"]*"\]|\{\{"[^"]*"\}\}|\[/"[^"]*"/\]|\["[^"]*"\])'
    arrow = r'(---|-->|-\.-|-\.->|===|==>)(\|"[^"]*"\|)?'
    known = rf'%% .*|subgraph n\d+\["[^"]*"\]|end|{shapes}|n\d+ {arrow} n\d+|classDef bad .*|class n[\dn,]+ bad'
    for line in lines:
        assert re.fullmatch(rf" +(?:{known}|linkStyle \d+ stroke.*)", line), line
    assert text.count("subgraph ") == len(re.findall(r"^ +end$", text, re.MULTILINE))
    defined = set(re.findall(r"^ +(?:subgraph )?(n\d+)[(\[{>]", text, re.MULTILINE))
    assert len(defined) == len(graph.vertices)
    assert set(re.findall(r"\bn\d+\b", re.sub(r'"[^"]*"|%%.*', "", text))) == defined


@pytest.mark.parametrize("graph", [nasty(), small()], ids=["nasty", "small"])
def test_dot_is_well_formed(graph: Graph) -> None:
    text = "\n".join(line for line in dot(graph).splitlines() if not line.startswith("//"))
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "TEXT", text)
    assert '"' not in bare and "\\" not in bare
    assert bare.count("{") == bare.count("}") == 1 + len(graph.of_kind("node"))
    pairs = r"[a-z]+=[\w-]+"
    known = (
        rf"(?:{pairs}; ?)+|n\d+ -> n\d+( \[{pairs}(, {pairs})*\])?;|n\d+ \[{pairs}(, {pairs})*\];|(node|edge) \[.*\];"
    )
    for line in bare.splitlines()[1:-1]:
        assert re.fullmatch(rf" *(?:{known}|subgraph cluster_n\d+ \{{|\}})", line), line
    assert len(re.findall(r"^ +n\d+ \[", bare, re.MULTILINE)) == len(graph.vertices)


@pytest.mark.parametrize("graph", [nasty(), small()], ids=["nasty", "small"])
def test_d2_is_well_formed(graph: Graph) -> None:
    text = "\n".join(line for line in d2(graph).splitlines() if not line.startswith("#"))
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "TEXT", text)
    style = r"\{(?:(?:shape|style\.[a-z-]+): \w+(?:; )?)+\}"
    known = rf"direction: right|n\d+: TEXT(?: \{{| {style})?|style\.stroke: TEXT|\}}"
    ends = r"(?:n\d+\.)?n\d+ (?:--|->) (?:n\d+\.)?n\d+(?:: (?:TEXT)?)?(?: ?" + style + ")?"
    for line in bare.splitlines():
        assert re.fullmatch(rf" *(?:{known}|{ends})", line), line
    assert len(re.findall(r"^ *n\d+: TEXT", bare, re.MULTILINE)) == len(graph.vertices)


def test_json_is_the_graph() -> None:
    graph = small()
    document = json.loads(json_text(graph))
    assert [vertex["id"] for vertex in document["vertices"]] == [vertex.id for vertex in graph.vertices]
    assert {edge["kind"] for edge in document["edges"]} >= {"pair", "port", "leads", "tunnel", "link"}
    assert [edge["failures"] for edge in document["edges"] if edge["kind"] == "tunnel"] == [[1]]
    assert document["failures"][0]["why"].startswith("worker2 has no FDB entry")
    assert document["steps"] == list(graph.steps)
    assert "\u0000" not in json_text(nasty())


@pytest.mark.parametrize("graph", [nasty(), small(), build(recording("flannel-vxlan"))], ids=["nasty", "small", "all"])
def test_svg_is_well_formed_and_has_no_script(graph: Graph) -> None:
    root = ElementTree.fromstring(svg(graph))
    assert root.tag == f"{SVG}svg"
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "style", "g", "title", "rect", "path", "text", "tspan"}
    texts = ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]
    assert any(graph.title.split()[0] in text for text in texts)
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]


def test_every_class_of_a_drawing_is_below_one_of_its_own() -> None:
    selectors = [line.partition("{")[0] for line in sheet().splitlines() if "{" in line and "@media" not in line]
    assert selectors and all(
        part.strip().startswith(".hoplab ") for selector in selectors for part in selector.split(",")
    )
    root = ElementTree.fromstring(svg(build(recording("flannel-vxlan"))))
    assert root.attrib["class"] == "hoplab"


def test_style_sheet_has_light_colours_and_dark_ones_for_screens_alone() -> None:
    light, dark = sheet().split("@media screen and (prefers-color-scheme: dark)")
    assert LIGHT.paper in light and LIGHT.paper not in dark
    assert "var(" not in sheet()
    assert all(f".{name} " in light for name in FONTS)


def test_red_is_what_fails() -> None:
    graph = views.nodes(
        blame(build(recording("flannel-vxlan")), [Failure("cni0 on worker2 has the MTU 1400, not 1450")])
    )
    root = ElementTree.fromstring(svg(graph))
    bad = [element for element in root.iter() if "bad" in element.attrib.get("class", "").split()]
    assert [element.tag.removeprefix(SVG) for element in bad if element.tag == f"{SVG}rect"] == ["rect"]
    assert "cni0 on worker2 has the MTU 1400, not 1450" in "".join(root.itertext())


def test_the_command_has_every_format() -> None:
    assert tuple(FORMATS) == draw.FORMATS
