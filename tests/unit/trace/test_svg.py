"""Traces as drawings."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from hoplab.trace import render
from hoplab.trace.model import Trace
from hoplab.trace.svg import WIDEST, drawing
from tests.support.recordings import recording
from tests.support.traced_faults import FAULTS, trace_of, traced

SVG = "{http://www.w3.org/2000/svg}"


def elements(trace: Trace, name: str, kind: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(drawing(trace))
    return [found for found in root.iter(f"{SVG}{name}") if found.get("class", "") == kind]


def test_it_is_drawn_so(golden: Callable[[str, str], None]) -> None:
    golden("trace_flannel_vxlan_pods.svg", drawing(traced(recording("flannel-vxlan"), "single", "far")))


def test_each_namespace_has_a_line_and_each_link_an_arrow() -> None:
    trace = traced(recording("flannel-vxlan"), "single", "far")
    assert len(elements(trace, "line", "line")) == 4  # two pods, two nodes
    assert len(elements(trace, "line", "arrow")) == 6  # pod, node, node, pod, and back
    assert elements(trace, "path", "cross") == []


def test_the_end_is_a_cross_on_the_line_of_the_last_place() -> None:
    trace = trace_of(next(fault for fault in FAULTS if fault.file == "an-fdb-entry-is-gone"))
    [cross] = elements(trace, "path", "cross")
    names = [text for text in elements(trace, "text", "") if text.text == "node worker2"]
    middle = int(names[0].get("x", "")) + 6
    assert re.match(rf"M{middle - 6} \d+L{middle + 6} ", cross.get("d", ""))
    assert any("has no host for de:16:64:34:95:3f" in (text.text or "") for text in elements(trace, "text", "ends"))


def test_a_long_text_is_cut_off_and_whole_in_its_tooltip() -> None:
    trace = traced(recording("flannel-vxlan"), "single", "nobody")
    [why] = [text for text in elements(trace, "text", "ends") if (text.text or "").startswith("`-A KUBE-SERVICES")]
    title = why.find(f"{SVG}title")
    assert why.text and len(why.text) == WIDEST and why.text.endswith("...")
    assert title is not None and title.text and title.text.endswith("rejects it")


def test_the_connection_of_an_ingress_controller_is_below() -> None:
    trace = traced(recording("flannel-vxlan"), "outside", "app1-service", via="ingress")
    headings = [text.text for text in elements(trace, "text", "")]
    assert headings.count("there") == 2 == headings.count("back")


def test_what_xml_cannot_have_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "outcome", lambda _trace: "arrives\x00<b>")
    root = ElementTree.fromstring(drawing(traced(recording("flannel-vxlan"), "single", "far")))
    assert "arrives\N{REPLACEMENT CHARACTER}<b>" in "".join(root.itertext())
