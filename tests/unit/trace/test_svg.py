"""Traces as drawings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import pytest

from hoplab.graph.scene import Box, Group, Line, Text, text_width
from hoplab.trace import render
from hoplab.trace.model import OTHERWISE, SEEN, Sent, Trace
from hoplab.trace.svg import WIDEST, drawing, scene
from tests.support.recordings import recording
from tests.support.traced_faults import FAULTS, trace_of, traced


def groups(trace: Trace, style: str) -> list[Group]:
    """What is drawn with a style: "place", "hop", "row"."""
    return [group for group in scene(trace).groups if group.style.split()[0] == style]


def lines(trace: Trace, style: str) -> list[str]:
    """The paths of a style."""
    items = [item for group in scene(trace).groups for item in group.items if isinstance(item, Line)]
    return [item.path for item in items if item.style == f"line {style}"]


def said(group: Group) -> str:
    texts = [item for item in group.items if isinstance(item, Text)]
    return " ".join("".join([item.text, *(text for text, _ in item.more)]) for item in texts)


def test_it_is_drawn_so(golden: Callable[[str, str], None]) -> None:
    golden("trace_flannel_vxlan_pods.svg", drawing(traced(recording("flannel-vxlan"), "single", "far")))


def test_each_namespace_has_a_line_and_each_link_an_arrow() -> None:
    trace = traced(recording("flannel-vxlan"), "single", "far")
    assert [group.title.split()[0] for group in groups(trace, "place")] == ["pod", "node", "node", "pod"]
    assert len(lines(trace, "over")) == 4
    assert len(lines(trace, "leads")) == 4  # from pod to node and from node to pod, and back
    assert len(lines(trace, "tunnel")) == 2  # from node to node, wrapped
    assert lines(trace, "bad") == []


def test_nothing_is_drawn_outside_or_over_another_text() -> None:
    for name in ("single", "nobody"):
        found = scene(traced(recording("flannel-vxlan"), "far", name))
        paper = Box(0, 0, found.width, found.height)
        texts = [item for group in found.groups for item in group.items if isinstance(item, Text)]
        assert all(paper.contains(text.box) for text in texts)
        assert [(one.text, two.text) for one, two in combinations(texts, 2) if one.box.overlaps(two.box)] == []


def test_the_end_is_a_cross_on_the_line_of_the_last_place() -> None:
    trace = trace_of(next(fault for fault in FAULTS if fault.file == "an-fdb-entry-is-gone"))
    [cross] = lines(trace, "bad")
    [line] = [item for item in groups(trace, "place")[1].items if isinstance(item, Line)]  # of worker2
    middle = int(line.path[1:].split()[0])
    assert re.match(rf"M{middle - 6} [\d.]+L{middle + 6} ", cross)
    assert any("has no host for de:16:64:34:95:3f" in said(row) for row in groups(trace, "row"))


def test_a_long_text_is_cut_off_and_whole_in_its_tooltip() -> None:
    trace = traced(recording("flannel-vxlan"), "single", "nobody")
    [why] = [row for row in groups(trace, "row") if said(row).startswith("`-A KUBE-SERVICES")]
    assert "…" in said(why) and text_width(said(why), "why") <= WIDEST
    assert why.title.startswith("`-A KUBE-SERVICES") and why.title.endswith("rejects it")


def test_the_connection_of_an_ingress_controller_is_below() -> None:
    trace = traced(recording("flannel-vxlan"), "outside", "app1-service", via="ingress")
    rows = [said(row) for row in groups(trace, "row")]
    assert rows.count("there") == 2 == rows.count("back")
    assert any(row.startswith("then pod ingress-readable/") for row in rows)


def test_how_a_hop_of_a_real_packet_is_known_is_a_dot_beside_it() -> None:
    inferred = traced(recording("flannel-vxlan"), "single", "near")
    assert {group.style for group in groups(inferred, "hop")} == {"hop"}
    way = inferred.shown
    there = (replace(way.there[0], evidence=SEEN), replace(way.there[1], evidence=OTHERWISE), *way.there[2:])
    sent = Sent("connected", 8, 2, 1, wrong=("worker2 changes it",))
    real = replace(inferred, ways=(replace(way, there=there),), sent=sent)
    assert [group.style for group in groups(real, "hop")][:3] == ["hop good", "hop odd", "hop ring"]
    rows = [said(row) for row in groups(real, "row")]
    assert rows[-2:] == ["connected: 2 of 8 hops seen, 1 as predicted", "worker2 changes it"]


def test_what_xml_cannot_have_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "outcome", lambda _trace: "arrives\x00<b>")
    root = ElementTree.fromstring(drawing(traced(recording("flannel-vxlan"), "single", "far")))
    assert "arrives\N{REPLACEMENT CHARACTER}<b>" in "".join(root.itertext())
