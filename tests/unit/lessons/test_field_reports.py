"""The tables of docs/field-reports.md: what verification says first of each public report, on an edited recording.

UPDATE_GOLDEN=1 writes them anew from tests/support/field_reports.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

from hoplab.core.paths import PROJECT
from tests.support.field_reports import FAULTS, HEALTHY, INPUTS, FaultReport, OrdinaryReport
from tests.support.lesson_functions import causes_of, failures, lessons, read_only
from tests.system import faults

PAGE = PROJECT / "docs" / "field-reports.md"
UNIT = PROJECT / "tests" / "unit"
NOT_YET = "not checked yet"
LIVE = {fault.name for fault in faults.FAULTS}


def row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def of_fault(report: FaultReport) -> str:
    """A row: the lesson that is named first on the edited recording, and what it says."""
    if not report.lesson:
        return row(report.number, report.source, report.happened, NOT_YET, "", "")
    says = report.says
    if report.broken:
        lab = report.broken()
        first = causes_of(failures(read_only(), lab), lab)[0]
        assert first.name == report.lesson, (report.number, first)
        says = first.why
    else:
        live_fault = next(fault for fault in faults.FAULTS if fault.name == report.live)
        assert live_fault.named_first[0] == report.lesson and live_fault.says in says, report.number
    file = lessons()[report.lesson].function.__code__.co_filename.rpartition("/")[2]
    linked = f"[`{report.lesson}`](../tests/lessons/{file})"
    live = f"*{report.live}*" if report.live else ""
    return row(report.number, report.source, report.happened, linked, says, live)


def of_ordinary(report: OrdinaryReport, says: str) -> str:
    text = (UNIT / report.test).read_text()
    assert not [words for words in report.words if words not in text], (report.number, report.test)
    return row(report.number, report.what, says, f"[{report.test.rpartition('/')[2]}](../tests/unit/{report.test})")


def table(name: str, head: tuple[str, ...], rows: Iterable[str]) -> tuple[str, str, str]:
    """The marks around a table of the page, and what belongs between them."""
    lines = [row(*head), f"|{'---|' * len(head)}", *rows]
    return f"<!-- {name} -->", "\n".join(lines), f"<!-- end of {name} -->"


def tables() -> list[tuple[str, str, str]]:
    ordinary = ("id", "what", "claim that fails", "tested in")
    return [
        table(
            "faults",
            ("id", "source", "what happened", "claim that fails", "says first", "fault on machines"),
            map(of_fault, FAULTS),
        ),
        table("healthy", ordinary, (of_ordinary(report, "none: healthy") for report in HEALTHY)),
        table("inputs", ordinary, (of_ordinary(report, "none: read as it is meant") for report in INPUTS)),
    ]


@pytest.mark.docs
def test_the_page_says_of_each_report_what_verification_says() -> None:
    text = PAGE.read_text()
    wanted = text
    for begin, lines, end in tables():
        before, after = wanted[: wanted.index(begin)], wanted[wanted.index(end) + len(end) :]
        wanted = f"{before}{begin}\n\n{lines}\n\n{end}{after}"
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(wanted)
        text = wanted
    assert text == wanted, "if that is intended: UPDATE_GOLDEN=1 ./lab test --fast"


def test_faults_on_machines_exist() -> None:
    assert {report.live for report in FAULTS if report.live} <= LIVE
    assert all(report.lesson for report in FAULTS if report.live)


def test_every_report_has_a_row_once() -> None:
    rows = [(report.number, report.happened) for report in FAULTS]
    rows += [(report.number, report.what) for report in (*HEALTHY, *INPUTS)]
    assert len(set(rows)) == len(rows)
