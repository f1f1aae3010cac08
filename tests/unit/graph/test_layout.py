"""A drawing is legible: no text leaves its box, no box is over another one, and all of it is on the paper."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoplab.graph import views
from hoplab.graph.blame import blame
from hoplab.graph.build import build
from hoplab.graph.layout import layout
from hoplab.graph.lines import between
from hoplab.graph.model import Failure, Graph
from hoplab.graph.path import path
from hoplab.graph.scene import Box, Group, Line, Rect, Scene, Text, shortened, text_width, wrapped
from tests.support.graphs import large
from tests.support.recordings import RECORDED_LABS, recording

NAMES = (*RECORDED_LABS, "broken/a-veth-that-belongs-to-no-pod", "broken/a-host-end-left-the-bridge")
PANELS = ("node", "routing")  # they contain what others draw


def cards(scene: Scene) -> list[tuple[Group, Box]]:
    return [(group, group.box) for group in scene.front if group.vertex and group.box and group.style not in PANELS]


def texts(group: Group) -> list[tuple[Text, Box]]:
    return [(item, item.box) for item in group.items if isinstance(item, Text)]


def apart(boxes: list[tuple[object, Box]]) -> None:
    """Require that no two boxes overlap: only those that begin before another one ends can."""
    before: list[tuple[object, Box]] = []
    for what, box in sorted(boxes, key=lambda entry: entry[1].y):
        before = [entry for entry in before if entry[1].bottom > box.y]
        assert [other for other, there in before if box.overlaps(there)] == [], what
        before.append((what, box))


def check(graph: Graph) -> Scene:
    scene = layout(graph)
    paper = Box(0, 0, scene.width, scene.height)
    placed = cards(scene)
    for group, box in placed:
        assert paper.contains(box), group.vertex
        room = Box(box.x - 1, box.y - 1, box.w + 2, box.h + 2)
        assert [text for text, place in texts(group) if not room.contains(place)] == [], group.vertex
        apart([*texts(group)])
    panels = [group for group in scene.groups if not group.vertex or group.style in PANELS]
    free = [entry for group in panels for entry in texts(group)]
    assert [text for text, box in free if not paper.contains(box)] == []
    apart([*((group.vertex, box) for group, box in placed), *free])
    return scene


@pytest.mark.parametrize("name", NAMES)
def test_no_label_is_over_another_box_in_the_drawing_of_a_recording(name: str) -> None:
    lab = recording(name)
    graph = build(lab)
    scene = check(graph)
    drawn = {group.vertex for group in scene.groups}
    assert {vertex.id for vertex in graph.vertices} <= drawn
    check(views.nodes(graph))
    check(views.pods(graph))
    one, other = (next(str(pod) for pod in lab.pods_on(node)) for node in lab.nodes[:2])
    check(path(lab, graph, one, other))


@pytest.mark.parametrize("graph", [large(), large(1, 1, 1), large(6, 30, 30), large(3, 90, 3), large(2, 0, 0)])
def test_a_large_lab_and_a_small_one_are_legible(graph: Graph) -> None:
    check(graph)


def test_failed_claims_have_room_for_their_numbers() -> None:
    graph = build(recording("flannel-vxlan"))
    things = ["worker1", "10.244.0.0/24 of worker1", "worker1 cni0", "worker2 flannel.1", "worker2 veth545521a3"]
    things += ["hoplab-verify/echo-w8kjg", "hoplab-verify/single", "192.168.77.1", "192.168.77.0/24"]
    failures = [Failure(f"{thing} is broken " + "in many ways " * 20) for thing in things * 3]
    failed = blame(graph, failures)
    assert sum(bool(vertex.failures) for vertex in failed.vertices) >= len(things)
    check(failed)


def test_every_edge_is_drawn_but_routes_to_a_bridge_and_lines_stay_on_the_paper() -> None:
    graph = large()
    scene = layout(graph)
    drawn = {getattr(item, "edge", "") for group in scene.lines for item in group.items}
    assert {edge.id for edge in graph.edges} <= drawn


def test_tunnels_between_many_nodes_are_not_over_each_other() -> None:
    graph = large(5, 5, 0)
    paths = [
        item.path
        for group in layout(graph).lines
        for item in group.items
        if isinstance(item, Line) and item.edge.startswith("tunnel")
    ]
    assert len(paths) == 10 == len(set(paths))


def test_the_same_graph_gives_the_same_drawing() -> None:
    assert layout(large()) == layout(large())


def test_panels_are_below_each_other_and_contain_what_is_on_them() -> None:
    graph = large()
    scene = layout(graph)
    panels = {group.vertex: group.items[0].box for group in scene.back if isinstance(group.items[0], Rect)}
    for one, other in combinations(panels.values(), 2):
        assert not one.overlaps(other)
    for group, box in cards(scene):
        if parent := graph.by_id[group.vertex].parent:
            assert panels[parent].contains(box)


@settings(max_examples=30)
@given(st.text(max_size=40), st.floats(20, 400))
def test_a_shortened_text_fits(text: str, width: float) -> None:
    assert text_width(shortened(text, "name", width), "name") <= max(width, text_width("…", "name"))


@given(st.lists(st.text("abc", min_size=1, max_size=12)), st.floats(80, 400))
def test_wrapped_lines_fit_and_lose_no_word(words: list[str], width: float) -> None:
    lines = wrapped(" ".join(words), "why", width)
    assert all(text_width(line, "why") <= width for line in lines)
    assert " ".join(lines).split() == [shortened(word, "why", width) for word in words]


def test_a_line_is_straight_where_the_boxes_are_beside_each_other() -> None:
    assert between(Box(0, 0, 10, 20), Box(30, 0, 10, 90)) == "M10 10H30"
    assert between(Box(30, 0, 10, 90), Box(0, 0, 10, 20)) == "M10 10H30"
    assert between(Box(0, 0, 10, 90), Box(30, 50, 10, 20)) == "M10 60H30"
    assert between(Box(0, 0, 10, 20), Box(30, 50, 10, 20)).startswith("M10 10C")
