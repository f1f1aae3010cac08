"""Pages for readers: links lead somewhere, decisions are listed, roles are described."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from hoplab.core.paths import PROJECT
from tests.matrix.combinations import COMBINATIONS

pytestmark = pytest.mark.docs

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
ADRS = sorted((PROJECT / "docs" / "adr").glob("[0-9]*.md"))


def _pages() -> list[Path]:
    """Return the Markdown files of the project, as far as git has them or would take them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode:  # not a checkout
        folders = (PROJECT, *(PROJECT / name for name in ("docs", "roles", "tests")))
        return sorted({path for folder in folders for path in folder.glob("*.md" if folder == PROJECT else "**/*.md")})
    return sorted(path for line in listed.stdout.splitlines() if (path := PROJECT / line).exists())


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as the usual renderers of Markdown make it."""
    return re.sub(r"[^\w -]", "", heading.lstrip("# ").lower()).replace(" ", "-")


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of all headings of a page."""
    return frozenset(map(anchor, re.findall(r"^#+ .*$", FENCED.sub("", page.read_text()), flags=re.MULTILINE)))


def dead_links(page: Path) -> list[str]:
    """Return the relative links of a page that lead to no file of the project, or to no heading of one."""
    dead = []
    for target in LINK.findall(FENCED.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (heading and heading not in anchors(file)):
            dead.append(target)
    return dead


def test_links_lead_somewhere() -> None:
    pages = _pages()
    assert PROJECT / "README.md" in pages
    assert {str(page.relative_to(PROJECT)): dead for page in pages if (dead := dead_links(page))} == {}


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# A node's `address`\n")
    page.write_text(
        "[a](other.md) [b](other.md#a-nodes-address) [c](#here) [d](https://example.org)\n\n## Here\n"
        "[e](gone.md) [f](other.md#gone)\n\n```\n[g](gone.md)\n```\n"
    )
    assert dead_links(page) == ["gone.md", "other.md#gone"]


@pytest.mark.parametrize("record", ADRS, ids=lambda path: path.stem)
def test_a_decision_is_listed_and_has_its_parts(record: Path) -> None:
    text = record.read_text()
    assert f"]({record.name})" in (record.parent / "README.md").read_text()
    assert re.search(r"\d{4}-\d\d-\d\d", text)
    for part in ("Status", "Context", "Decision", "Alternatives", "Consequences"):
        assert part in text, f"no {part}"


def test_numbers_of_decisions_are_unique() -> None:
    numbers = [record.name[:4] for record in ADRS]
    assert len(numbers) == len(set(numbers))


def test_paths_that_pages_name_exist() -> None:
    """Pages quote paths as `hoplab/lab/state.py`; upper-case parts, <...> and wildcards stand for others."""
    gone = {
        f"{page.relative_to(PROJECT)}: {path}"
        for page in _pages()
        if page.name not in ("CHANGELOG.md", "CONTRIBUTING.md") and page.is_relative_to(PROJECT / "docs")
        for path in re.findall(r"`((?:hoplab|tests|roles|playbooks|benchmarks)/[\w./-]+)`", page.read_text())
        if not re.search(r"[A-Z]{3}", path) and not (PROJECT / path).exists()
    }
    assert gone == set()


def test_the_page_of_the_matrix_has_every_combination() -> None:
    rows = {row.split("|")[1].strip() for row in (PROJECT / "docs/matrix.md").read_text().splitlines() if "|" in row}
    assert {combination.name for combination in COMBINATIONS} <= rows
