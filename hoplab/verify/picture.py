"""The graph of a verified lab: what failed is red in it; pure."""

from __future__ import annotations

from hoplab.core.errors import LabError
from hoplab.graph.blame import blame
from hoplab.graph.build import build
from hoplab.graph.model import Failure, Graph
from hoplab.graph.svg import svg
from hoplab.observe.snapshot import Snapshot
from hoplab.verify.report import Report


def failures_of(report: Report) -> tuple[Failure, ...]:
    """Return the causes of a report as what a graph shows of them."""
    return tuple(
        Failure(cause.why, report.sentences.get(cause.name, ""), len(cause.consequences), cause.shows)
        for cause in report.causes
    )


def with_failures(graph: Graph, report: Report) -> Graph:
    """Return the graph of a lab with the claims that fail there."""
    return blame(graph, failures_of(report), held=report.number("passed"))


def for_page(lab: Snapshot, report: Report) -> str:
    """Return the drawing for the HTML report; "" for a lab of which nothing can be drawn."""
    try:
        return svg(with_failures(build(lab), report))
    except LabError:  # the report itself says what could not be looked at
        return ""
