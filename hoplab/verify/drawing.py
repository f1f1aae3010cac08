"""`lab graph`: look at a lab or a recording, check its claims, and draw the part that is wanted."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from hoplab.core.paths import LabPaths
from hoplab.graph import views
from hoplab.graph.build import build
from hoplab.graph.formats import FORMATS
from hoplab.graph.model import Graph
from hoplab.graph.path import path
from hoplab.observe import recording_format
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import picture, runner, session
from hoplab.verify.report import ConsoleReporter, Report

SUFFIXES = {".svg": "svg", ".mmd": "mermaid", ".dot": "dot", ".gv": "dot", ".d2": "d2", ".json": "json"}


def draw(
    paths: LabPaths,
    *,
    recording: Path | None = None,
    format: str = "svg",
    of: str = "all",
    ends: Sequence[str] = (),
    claims: bool = True,
    say: Callable[[str], None] = lambda _text: None,
) -> str:
    """Return the topology of a running lab, or of a recording, in one of the formats.

    With ``claims`` the lessons that read facts alone are checked, and what fails is marked; no packets are sent.
    """
    with ExitStack() as stack:
        lab = (
            recording_format.load(recording) if recording else stack.enter_context(session.opened(paths, say)).snapshot
        )
        graph = build(lab)
        part = _part(lab, graph, of, ends)  # first: an unknown name needs no claims
        if claims:
            say("checking the claims that need no packets")
            checked = picture.with_failures(graph, _report(lab, recording))
            part = _part(lab, checked, of, ends)
    return FORMATS[format](part)


def _part(lab: Snapshot, graph: Graph, of: str, ends: Sequence[str]) -> Graph:
    match of:
        case "nodes":
            return views.nodes(graph)
        case "pods":
            return views.pods(graph)
        case "path":
            return path(lab, graph, *ends)
        case _:
            return graph


def _report(lab: Snapshot, recording: Path | None) -> Report:
    report = runner.new_report(lab, recording)
    runner.check(lab, report, ConsoleReporter(io.StringIO(), quiet=True))
    return report


def format_of(file: Path | None) -> str:
    """Return the format that the name of a file stands for; SVG for any other name."""
    return SUFFIXES.get(file.suffix, "svg") if file else "svg"
