"""Writes docs/troubleshooting.md: every message of an error as a heading, with its remedy, from the code.

python -m hoplab.devtools.error_page
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hoplab.core import fs
from hoplab.core.paths import PROJECT
from hoplab.devtools.marks import between

PAGE = PROJECT / "docs" / "troubleshooting.md"
PACKAGE = PROJECT / "hoplab"
BEGIN, END = "<!-- generated: errors -->", "<!-- end of errors -->"
GAP = "…"  # stands for what differs from case to case


@dataclass(frozen=True)
class Message:
    """One error that the code raises."""

    kind: str  # name of its class
    text: str  # first line of the message
    remedy: str
    module: str  # "hoplab/host/netns.py"


def page(text: str) -> str:
    """Return the page with the generated part made anew."""
    return between(text, BEGIN, END, f"\n\n{errors()}\n")


def errors() -> str:
    """Return a section for each class of errors, and a heading for each message in it."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}
    classes = error_classes(trees)
    found: dict[str, dict[str, Message]] = {}
    for file, tree in trees.items():
        for message in messages(tree, str(file.relative_to(PROJECT)), classes):
            found.setdefault(message.kind, {}).setdefault(message.text, message)
    lines: list[str] = []
    for kind in [name for name in classes if name in found]:
        lines += [f"## {kind}", "", classes[kind], ""]
        for message in sorted(found[kind].values(), key=lambda message: message.text.lstrip(f"{GAP} ").lower()):
            lines += [f"### {message.text}", "", f"{message.remedy} (`{message.module}`)".lstrip(), ""]
    return "\n".join(lines)


def error_classes(trees: Mapping[Path, ast.Module]) -> dict[str, str]:
    """Return the names of LabError and of all classes below it, each with the first line of its docstring."""
    defined = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found = {"LabError": next(_summary(node) for node in defined if node.name == "LabError")}
    grown = True
    while grown:
        new = {
            node.name: _summary(node)
            for node in defined
            if node.name not in found and any(isinstance(base, ast.Name) and base.id in found for base in node.bases)
        }
        found |= new
        grown = bool(new)
    return found


def _summary(node: ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0].replace("``", "`")


def messages(tree: ast.AST, module: str, classes: Mapping[str, str]) -> Iterator[Message]:
    """Yield the errors that a module makes with a message of its own."""
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        if name in classes and call.args:
            remedy = next((template(word.value) for word in call.keywords if word.arg == "remedy"), "")
            kind, text = name, template(call.args[0])
        elif len(call.args) == 3 and (name == "SpecIssue" or _is_refusal(call.func)):
            kind, text, remedy = "SpecError", template(call.args[1]), template(call.args[2])
        else:
            continue
        text = text.partition("\n")[0].strip()
        if text.strip(f"{GAP} :'`,;()"):
            yield Message(kind, _plain(text), _plain(remedy.replace("\n", " ").strip(f" {GAP}")), module)


def _is_refusal(function: ast.expr) -> bool:
    """Return whether this is the reader's method that adds an issue of a spec."""
    return isinstance(function, ast.Attribute) and function.attr == "refuse"


def template(node: ast.expr) -> str:
    """Return the text of an expression, with a gap for what is not written in it.

    >>> template(ast.parse("f'port {port} is taken' + why").body[0].value)
    'port … is taken…'
    """
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(template(value) for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left) + template(right)
        case ast.IfExp(body=body):
            return template(body)
    return GAP


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it is; between backticks it does anyway."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([<*\[_])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def main() -> None:
    """Write the page."""
    fs.write_if_changed(PAGE, page(PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
