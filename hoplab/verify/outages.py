"""Outages in reports: first on the screen, first in JUnit XML, part of the summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from xml.etree import ElementTree

from rich import markup

from hoplab.observe.outage import Outage
from hoplab.verify.claims import counted

TITLE = "Outages"


def counts(found: Sequence[Outage], not_checked: int) -> str:
    """Return the end of the summary: what was not checked, and how many outages there are; "" without outages.

    >>> counts([Outage("worker2", "worker2 is off")], 31)
    ', 31 not checked; 1 outage'
    """
    unchecked = f", {not_checked} not checked" if found or not_checked else ""
    return unchecked + (f"; {counted(len(found), 'outage')}" if found else "")


def text(found: Sequence[Outage]) -> Iterator[str]:
    """Return the lines for the terminal, with rich's markup."""
    if found:
        yield f"[bold]{TITLE}[/bold]"
    for outage in found:
        yield f"  [red]✗ {markup.escape(outage.problem)}[/red]"
        yield from (f"        {markup.escape(line)}" for line in outage.evidence)
        if outage.remedy:
            yield f"        -> {markup.escape(outage.remedy)}"


def add_suite(root: ElementTree.Element, found: Sequence[Outage], xml: Callable[[str], str]) -> None:
    """Add a suite with an error for each outage, before the claims; ``xml`` replaces what XML 1.0 does not allow."""
    if not found:
        return
    number = str(len(found))
    for counter in ("tests", "errors"):
        root.set(counter, str(int(root.attrib[counter]) + len(found)))
    suite = ElementTree.SubElement(
        root, "testsuite", name=TITLE, tests=number, errors=number, failures="0", skipped="0", time="0.000"
    )
    for outage in found:
        case = ElementTree.SubElement(suite, "testcase", classname="outages", name=xml(outage.place), time="0.000")
        error = ElementTree.SubElement(case, "error", message=xml(outage.problem), type="Outage")
        error.text = xml("\n".join((outage.problem, *outage.evidence, *([outage.remedy] if outage.remedy else []))))
