"""`lab graph` and the drawing in the HTML report: what fails in a run is red in them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from hoplab.core.paths import LabPaths
from hoplab.graph.build import build
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import drawing, picture, runner, session
from hoplab.verify.causes import Cause
from hoplab.verify.report import Report, Result, html_text
from tests.support.files import RECORDINGS
from tests.support.hurt import without_nodes
from tests.support.recordings import recording

PATHS = LabPaths("dev")
BROKEN = RECORDINGS / "broken" / "the-mtu-of-cni0-is-wrong.json"
WHY = "cni0 on worker2 has the MTU 1400, not 1450"


def failed_report() -> Report:
    result = Result("2 Interfaces", "test_02_interfaces", "test_mtu", "All have one MTU.", "failed", "", WHY, (), 0.1)
    later = [replace(result, name=name, why="so it fails") for name in ("test_x", "test_y")]
    cause = Cause("test_mtu", WHY, "./lab ssh worker2 ip link", consequences=("test_x", "test_y"))
    return Report("dev", {}, {}, results=[result, *later], causes=(cause,))


def test_causes_are_the_failures_of_a_graph() -> None:
    (failure,) = picture.failures_of(failed_report())
    assert (failure.why, failure.claim, failure.consequences) == (WHY, "All have one MTU.", 2)
    graph = picture.with_failures(build(recording("flannel-vxlan")), failed_report())
    assert graph.by_id["worker2/cni0"].failures == (1,) and graph.held == 0


def test_a_recording_is_drawn_with_the_claims_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_lab: Snapshot, report: Report, *_: Any, **__: Any) -> None:
        report.causes = failed_report().causes

    monkeypatch.setattr(runner, "check", check)
    said: list[str] = []
    text = drawing.draw(PATHS, recording=BROKEN, of="nodes", say=said.append)
    assert WHY in "".join(ElementTree.fromstring(text).itertext())
    assert said == ["checking the claims that need no packets"]
    assert WHY not in drawing.draw(PATHS, recording=BROKEN, of="nodes", claims=False)


def test_a_running_lab_is_looked_at_as_verify_does(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened(paths: LabPaths, say: Any) -> Iterator[SimpleNamespace]:
        say(f"looking at {paths.lab}")
        yield SimpleNamespace(snapshot=recording("calico-bgp"))

    monkeypatch.setattr(session, "opened", opened)
    said: list[str] = []
    text = drawing.draw(PATHS, format="json", of="pods", claims=False, say=said.append)
    assert '"of": "pods"' in text and said == ["looking at dev"]


def test_the_name_of_a_file_says_its_format() -> None:
    names = ("a.svg", "a.mmd", "a.dot", "a.gv", "a.d2", "a.json", "a", "a.txt")
    wanted = ["svg", "mermaid", "dot", "dot", "d2", "json", "svg", "svg"]
    assert [drawing.format_of(Path(name)) for name in names] == wanted
    assert drawing.format_of(None) == "svg"


def test_the_html_page_has_the_drawing() -> None:
    report = failed_report()
    assert 'class="picture"' not in html_text(report)
    report.picture = picture.for_page(recording("flannel-vxlan"), report)
    page = html_text(report)
    assert '<details class="picture" open>' in page
    assert page.count("<svg ") == 1 and "&lt;svg" not in page and "flannel.1" in page


def test_a_lab_of_which_nothing_was_seen_has_a_page_without_a_drawing() -> None:
    hurt = without_nodes(recording("flannel-vxlan"), "worker1", "worker2")
    assert picture.for_page(hurt, failed_report()) == ""


def test_verify_puts_the_drawing_into_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(_lab: Snapshot, report: Report, *_: Any, **__: Any) -> None:
        report.results += failed_report().results
        report.causes = failed_report().causes

    monkeypatch.setattr(runner, "check", check)
    page = tmp_path / "report.html"
    assert runner.run(PATHS, recording=BROKEN, html=page, out=io.StringIO()) == 1
    assert "<svg " in page.read_text()
