"""The tables of docs/lessons/README.md: no claim without lesson, control and page, and all that they name exists.

UPDATE_GOLDEN=1 writes the table of faults anew from tests/system/faults.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from hoplab import practice
from hoplab.core.paths import PROJECT
from tests.support.edited import calico, cilium, dns, filters, flannel, hosts, ingress_classes, machines, tls
from tests.support.lesson_functions import lessons
from tests.system import faults

pytestmark = pytest.mark.docs

README = PROJECT / "docs" / "lessons" / "README.md"
PAGES = tuple(sorted([*README.parent.glob("*.md"), *(PROJECT / "docs" / "days").glob("*.md")]))
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
MISSING = "missing"
HEAD = ["claim", "lesson", "negative control", "page"]
BEGIN, END = "<!-- faults -->", "<!-- end of faults -->"

CAUGHT = {fault.name: {*fault.lessons} for fault in faults.FAULTS}
EDITED = (
    *flannel.FAULTS,
    *filters.FAULTS,
    *calico.FAULTS,
    *cilium.FAULTS,
    *machines.FAULTS,
    *hosts.FAULTS,
    *dns.FAULTS,
    *tls.FAULTS,
    *ingress_classes.FAULTS,
)
CAUGHT_ON_RECORDINGS = {fault.name: set(fault.caught_by) for fault in EDITED}


@dataclass(frozen=True)
class Row:
    claim: str
    lesson: str
    control: str
    page: str

    @property
    def lessons(self) -> set[str]:
        """Those it links to; exercises are not among them."""
        return {text.strip("`") for text, target in LINK.findall(self.lesson) if "/tests/lessons/" in target}

    @property
    def faults(self) -> dict[str, set[str]]:
        """What it names in italics, tried on a real lab: the lessons that each of its faults is caught by."""
        return {name: CAUGHT[name] for name, where in self._named if not where}

    @property
    def faults_of_recordings(self) -> dict[str, set[str]]:
        return {name: CAUGHT_ON_RECORDINGS[name] for name, where in self._named if where}

    @property
    def _named(self) -> list[tuple[str, str]]:
        return re.findall(r"\*([^*]+)\*( \(on a recording: \S)?", self.control)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _rows() -> Iterator[Row]:
    inside = False
    for line in README.read_text().splitlines():
        if not line.startswith("|"):
            inside = False
        elif _cells(line) == HEAD:
            inside = True
        elif inside and not line.startswith("|---"):
            cells = _cells(line)
            assert len(cells) == len(HEAD), line
            yield Row(*cells)


ROWS = tuple(_rows())


def test_there_are_rows_for_every_chapter() -> None:
    chapters = re.findall(r"^### (\d) ", README.read_text(), flags=re.MULTILINE)
    assert chapters == ["1", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert len(ROWS) > 60
    assert len({row.claim for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.claim)
def test_no_row_is_empty(row: Row) -> None:
    for cell in (row.claim, row.lesson, row.control, row.page):
        assert cell
    exercises = re.findall(r"lab practice start (\w+)", row.lesson)
    assert row.lessons or exercises or MISSING in row.lesson
    assert {name for name in exercises} <= {exercise.name for exercise in practice.discover()}
    assert LINK.search(row.page)


@pytest.mark.parametrize("row", [row for row in ROWS if row.lessons], ids=lambda row: row.claim)
def test_a_row_names_lessons_that_exist_and_faults_that_they_catch(row: Row) -> None:
    for text, target in LINK.findall(row.lesson):
        if "/tests/lessons/" in target:
            source = lessons()[text.strip("`")].function.__code__.co_filename
            assert Path(target).name == Path(source).name
    assert row.faults or row.faults_of_recordings or LINK.search(row.control)
    for name, caught_by in {**row.faults, **row.faults_of_recordings}.items():
        assert caught_by & row.lessons, f"none of {row.lessons} catches {name!r}"
    if not row.faults:  # so nothing on a node can break what it is about
        known = {name for names in CAUGHT.values() for name in names}
        assert not row.lessons & known, f"{row.lessons & known} is caught on a real lab too"


def test_every_lesson_and_every_exercise_is_in_the_table() -> None:
    assert {name for row in ROWS for name in row.lessons} == set(lessons())
    named = re.findall(r"lab practice start (\w+)", "".join(row.lesson for row in ROWS))
    assert {*named, "gateway"} == {exercise.name for exercise in practice.discover()}  # no claim is about `gateway`


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.claim)
def test_the_page_names_the_lesson(row: Row) -> None:
    sections = "".join(_section(README.parent / target) for _, target in LINK.findall(row.page))
    assert {name for name in row.lessons if f"`{name}`" not in sections} == set()


def _section(target: Path) -> str:
    """A section of a page, by its anchor; without one the whole page."""
    file, _, anchor = str(target).partition("#")
    parts = re.split(r"^(?=#+ )", Path(file).read_text(), flags=re.MULTILINE)
    return "".join(part for part in parts if not anchor or anchor == _slug(part.splitlines()[0] if part else ""))


def _slug(heading: str) -> str:
    """A heading's anchor, as the usual renderers of markdown make it.

    >>> _slug("## A node's `address`")
    'a-nodes-address'
    """
    return re.sub(r"[^\w -]", "", heading.lstrip("# ").lower()).replace(" ", "-")


@cache
def _anchors(file: Path) -> list[str]:
    found = re.findall(r"^#+ .*$", FENCED.sub("", file.read_text()), flags=re.MULTILINE)
    return [_slug(heading) for heading in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert len(set(_anchors(page))) == len(_anchors(page)), "two headings have the same anchor"
    for _, target in LINK.findall(FENCED.sub("", page.read_text())):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{target} is no file"
        assert file.is_relative_to(PROJECT)
        assert not anchor or anchor in _anchors(file), f"{target} has no such heading"


def test_a_control_that_is_a_test_exists() -> None:
    for text, target in (found for row in ROWS for found in LINK.findall(row.control)):
        if text.startswith("`test_") and not text.endswith(".py`"):
            assert f"def {text.strip('`')}(" in (README.parent / target).read_text()


@pytest.mark.parametrize("exercise", practice.discover(), ids=lambda exercise: exercise.name)
def test_every_exercise_has_its_day(exercise: practice.Exercise) -> None:
    text = (PROJECT / "docs" / "days" / f"day-{exercise.day}.md").read_text()
    assert f"\n./lab practice start {exercise.name}\n" in text
    assert f"`{exercise.name}`" in (PROJECT / "docs" / "days" / "README.md").read_text()


def test_no_fault_is_for_the_shell_that_it_is_in() -> None:
    """A shell's command line has the pattern that it looks for in it."""
    sources = "".join(file.read_text() for file in sorted(Path(faults.__file__).parent.glob("*.py")))
    patterns = re.findall(r"pgrep -f '([^']+)'", sources)
    assert len(patterns) > 3
    for pattern in patterns:
        assert not re.search(pattern, f"sh -c kill $(pgrep -f '{pattern}')"), pattern


def test_the_table_of_faults_is_what_is_tried() -> None:
    lines = ["| fault | read-only lessons that fail | lessons with traffic that fail |", "|---|---|---|"]
    for fault in faults.FAULTS:
        cells = [", ".join(f"`{name}`" for name in names) or "-" for names in (fault.caught_by, fault.traffic)]
        lines.append(f"| {fault.name} | {cells[0]} | {cells[1]} |")
    wanted = "\n".join([BEGIN, "", *lines, "", END])
    text = README.read_text()
    before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
    if os.environ.get("UPDATE_GOLDEN"):
        README.write_text(f"{before}{wanted}{after}")
    assert README.read_text() == f"{before}{wanted}{after}", "if that is intended: UPDATE_GOLDEN=1 ./lab test --fast"


def test_faults_that_are_made_at_once_have_no_lesson_in_common() -> None:
    groups = faults.together(faults.FAULTS)
    assert sorted(fault.name for group in groups for fault in group) == sorted(fault.name for fault in faults.FAULTS)
    for group in (group for group in groups if len(group) > 1):
        assert len({lesson for fault in group for lesson in fault.lessons}) == sum(
            len(fault.lessons) for fault in group
        )
        assert not any(fault.alone or fault.traffic or fault.needs != group[0].needs for fault in group)
    assert len(groups[0]) > 1
