"""Test modules import nothing from each other: what they share is in tests/support and tests/system/faults."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoplab.core.paths import PROJECT

TESTS = PROJECT / "tests"


def imported(file: Path) -> Iterator[str]:
    """Yield the full names of what a module imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} has a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def module_of(name: str) -> str:
    """Return the module of an imported name, which may be one itself."""
    is_module = (PROJECT / name.replace(".", "/")).with_suffix(".py").exists()
    return name if is_module else name.rpartition(".")[0]


@pytest.mark.parametrize("file", sorted(TESTS.rglob("*.py")), ids=lambda file: str(file.relative_to(TESTS)))
def test_no_test_module_is_imported(file: Path) -> None:
    names = [name for name in imported(file) if name.startswith("tests.")]
    assert [name for name in names if any(part.startswith("test_") for part in module_of(name).split("."))] == []
