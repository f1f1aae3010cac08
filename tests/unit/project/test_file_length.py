"""A Python file has at most 400 lines: longer ones are split by subject."""

from __future__ import annotations

from hoplab.core.paths import PROJECT

LIMIT = 400
FILES = sorted(
    str(file.relative_to(PROJECT))
    for folder in ("hoplab", "tests", "benchmarks", "playbooks", "roles", "inventory")
    for file in (PROJECT / folder).rglob("*.py")
)


def lines(file: str) -> int:
    return len((PROJECT / file).read_text().splitlines())


def test_files_are_short() -> None:
    assert {file: lines(file) for file in FILES if lines(file) > LIMIT} == {}
