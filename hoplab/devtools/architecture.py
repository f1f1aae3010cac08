"""The generated parts of docs/architecture.md: the table of folders and the diagram of their imports.

``python -m hoplab.devtools.architecture`` writes them from the code.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hoplab.core import fs
from hoplab.core.paths import PROJECT

PACKAGE = PROJECT / "hoplab"
PAGE = PROJECT / "docs" / "architecture.md"
COMMAND = "python -m hoplab.devtools.architecture"
BASE = "core"  # every folder may import it, so the diagram has no arrows to it
ROUNDED_TO = 100  # lines of code
SIZES = re.compile(r"^(\| `\w+/` \|.*?)\| \d+ \| \d+ \|", re.MULTILINE)

Imports = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Folder:
    """A folder of the package."""

    name: str
    purpose: str  # the first sentence of its docstring
    files: int  # Python files, those of its folders included
    lines: int  # of these files
    imports: frozenset[str]  # names of other folders


def folders(package: Path = PACKAGE) -> tuple[Folder, ...]:
    """Return the folders of a package, by name.

    Every import counts, inside functions too.
    """
    found = []
    names = {path.parent.name for path in package.glob("*/__init__.py")}
    for name in sorted(names):
        sources = {path: path.read_text() for path in sorted((package / name).rglob("*.py"))}
        imported = {other for text in sources.values() for other in imported_folders(text, package.name)}
        found.append(
            Folder(
                name=name,
                purpose=purpose(sources[package / name / "__init__.py"]),
                files=len(sources),
                lines=sum(text.count("\n") for text in sources.values()),
                imports=frozenset(imported & names - {name}),
            )
        )
    return tuple(found)


def purpose(source: str) -> str:
    """Return the first paragraph of a module's docstring as one line.

    >>> purpose('\"\"\"Look at a\\nrunning lab.\\n\\nMore.\"\"\"')
    'Look at a running lab.'
    """
    text = ast.get_docstring(ast.parse(source)) or ""
    return " ".join(text.partition("\n\n")[0].split())


def imported_folders(source: str, package: str) -> set[str]:
    """Return the folders of the package that a module imports.

    >>> sorted(imported_folders("from hoplab.core import fs\\nimport hoplab.host, json", "hoplab"))
    ['core', 'host']
    """
    modules: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            modules += [f"{package}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.append(node.module)
    return {module.split(".")[1] for module in modules if module.startswith(f"{package}.")}


def layer_order(pyproject: str) -> tuple[str, ...]:
    """Return the folders in the order of the import contract, highest first."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return tuple(name for layer in layers for name in re.split(r"\s*[|:]\s*", layer.strip("()")))


def reduced(imports: Imports) -> dict[str, frozenset[str]]:
    """Return the imports without those that other imports imply (transitive reduction).

    >>> sorted(reduced({"a": frozenset("bc"), "b": frozenset("c"), "c": frozenset()})["a"])
    ['b']
    """

    def reachable(name: str) -> set[str]:
        return {name}.union(*(reachable(other) for other in imports[name]))

    return {
        name: frozenset(
            other for other in direct if not any(other in reachable(between) for between in direct - {other})
        )
        for name, direct in imports.items()
    }


def table(found: Iterable[Folder]) -> str:
    """Return a table in Markdown with a row for each folder; its lines are rounded to hundreds."""
    rows = ["| folder | what it is | files | lines | imports |", "|---|---|---|---|---|"]
    for folder in found:
        lines = max(round(folder.lines / ROUNDED_TO), 1) * ROUNDED_TO
        names = ", ".join(sorted(folder.imports)) or "nothing"
        rows.append(f"| `{folder.name}/` | {folder.purpose} | {folder.files} | {lines} | {names} |")
    return "\n".join(rows)


def diagram(found: Iterable[Folder]) -> str:
    """Return a Mermaid flowchart of the imports between folders, reduced."""
    kept = [folder for folder in found if folder.name != BASE]
    arrows = reduced({folder.name: folder.imports - {BASE} for folder in kept})
    lines = ["```mermaid", "flowchart TD"]
    lines += [f'    {folder.name}["{folder.name}/"]' for folder in kept]
    lines += [
        f"    {folder.name} --> {other.name}" for folder in kept for other in kept if other.name in arrows[folder.name]
    ]
    return "\n".join([*lines, "```"])


def regenerated(page: str, found: Iterable[Folder], order: Iterable[str]) -> str:
    """Return the page with regenerated parts, folders in the given order."""
    by_name = {folder.name: folder for folder in found}
    ordered = [by_name[name] for name in order if name in by_name]
    for name, text in (("folders", table(ordered)), ("imports", diagram(ordered))):
        begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}"
    return page


def without_sizes(page: str) -> str:
    """Return the page without numbers of files and lines, which change with every commit."""
    return SIZES.sub(r"\1", page)


def current(page: str) -> str:
    """Return the page with its parts regenerated from this project's code."""
    return regenerated(page, folders(), layer_order((PROJECT / "pyproject.toml").read_text()))


def main() -> None:
    """Regenerate the generated parts of docs/architecture.md."""
    fs.write(PAGE, current(PAGE.read_text()))


if __name__ == "__main__":
    main()
