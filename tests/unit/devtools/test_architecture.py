"""The page docs/architecture.md shows the folders and imports of the code."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from hoplab.core.paths import PROJECT
from hoplab.devtools import architecture
from hoplab.devtools.architecture import (
    COMMAND,
    PAGE,
    Folder,
    current,
    diagram,
    folders,
    layer_order,
    reduced,
    regenerated,
    table,
    without_sizes,
)

pytestmark = pytest.mark.docs

LAB = Folder("lab", "Operations on a lab.", 9, 1840, frozenset({"spec", "core"}))
SPEC = Folder("spec", "The spec.", 4, 12, frozenset({"core"}))
CORE = Folder("core", "The base.", 8, 700, frozenset())
PAGE_BEFORE = """# House

<!-- generated: folders -->
old
<!-- end of folders -->

Between.

<!-- generated: imports -->
<!-- end of imports -->
After.
"""


def test_the_page_shows_the_folders_and_imports_of_the_code() -> None:
    page = PAGE.read_text()
    assert without_sizes(page) == without_sizes(current(page)), f"run {COMMAND}"


def test_every_folder_is_in_the_import_contract_and_says_what_it_is() -> None:
    order = layer_order((PROJECT / "pyproject.toml").read_text())
    for folder in folders():
        assert folder.name in order
        assert folder.purpose.endswith(".")
        assert folder.files and folder.lines


def test_folders_of_a_package(tmp_path: Path) -> None:
    package = tmp_path / "house"
    for name, text in {
        "__init__.py": "",
        "attic/__init__.py": '"""The attic."""\n',
        "attic/box.py": "def open():\n    from house.cellar import wine\n    from house.attic import dust\n",
        "attic/deep/__init__.py": "import house.cellar.wine\nimport json\n",
        "cellar/__init__.py": '"""The cellar\nis cold.\n\nVery."""\n',
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert folders(package) == (
        Folder("attic", "The attic.", 3, 6, frozenset({"cellar"})),
        Folder("cellar", "The cellar is cold.", 1, 4, frozenset()),
    )


def test_imports_that_follow_from_others_have_no_arrow() -> None:
    direct = {"a": frozenset("bcd"), "b": frozenset("c"), "c": frozenset("d"), "d": frozenset[str]()}
    assert reduced(direct) == {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("d"), "d": frozenset()}


def test_diagram_leaves_out_the_base() -> None:
    assert diagram([LAB, SPEC, CORE]).splitlines() == [
        "```mermaid",
        "flowchart TD",
        '    lab["lab/"]',
        '    spec["spec/"]',
        "    lab --> spec",
        "```",
    ]


def test_table_rounds_lines() -> None:
    assert table([LAB, SPEC]).splitlines()[2:] == [
        "| `lab/` | Operations on a lab. | 9 | 1800 | core, spec |",
        "| `spec/` | The spec. | 4 | 100 | core |",
    ]


def test_generated_parts_are_replaced_and_the_rest_is_kept() -> None:
    page = regenerated(PAGE_BEFORE, [CORE, LAB, SPEC], ["cli", "lab", "spec", "core"])
    assert "\nold\n" not in page
    places = [page.index(text) for text in ("# House", "| `lab/`", "| `spec/`", "Between.", "lab -->", "After.")]
    assert places == sorted(places)
    assert regenerated(page, [CORE, LAB, SPEC], ["lab", "spec", "core"]) == page


def test_sizes_are_left_out_of_the_comparison() -> None:
    larger = Folder("lab", LAB.purpose, 10, 9000, LAB.imports)
    other = Folder("lab", LAB.purpose, 9, 1840, frozenset({"core"}))
    assert without_sizes(table([LAB])) == without_sizes(table([larger])) != without_sizes(table([other]))


def test_layer_order_takes_siblings_apart() -> None:
    contract = 'type = "layers"\nlayers = ["cli", "image | host", "core"]'
    text = f"[[tool.importlinter.contracts]]\n{contract}\n[[tool.importlinter.contracts]]\ntype = 'forbidden'"
    assert layer_order(text) == ("cli", "image", "host", "core")


def test_doctests() -> None:
    assert doctest.testmod(architecture).attempted >= 3
