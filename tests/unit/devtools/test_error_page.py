"""docs/troubleshooting.md has the message of every error, from the code."""

from __future__ import annotations

import ast

import pytest

from hoplab.devtools import error_page
from hoplab.devtools.error_page import Message, messages, template


@pytest.mark.docs
def test_the_page_has_every_error() -> None:
    text = error_page.PAGE.read_text(encoding="utf-8")
    assert error_page.page(text) == text, "run: python -m hoplab.devtools.error_page"
    for heading in ("### there is no lab … here", "### lab … is protected", "## HostError", "### port … of"):
        assert any(line.startswith(heading) for line in text.splitlines()), heading


CODE = """
raise HostError("the [disk] is full", remedy=f"free {gib} GiB of `my_disk`")
raise LabError(f"there is no {name!r}: " + why + "\\nmore", remedy="it has " + there if there else "none")
raise LabError(text, remedy="of another text")
raise ValueError("not ours")
raise HostError(f"{path}: {why}")
self.refuse(path, f"is {text}", "at least 1")
SpecIssue(path, problem, "a hint")
other.refuse(path)
"""


def test_messages_of_a_module() -> None:
    classes = {"LabError": "", "HostError": ""}
    assert list(messages(ast.parse(CODE), "m.py", classes)) == [
        Message("HostError", "the \\[disk] is full", "free … GiB of `my_disk`", "m.py"),
        Message("LabError", "there is no …: …", "it has", "m.py"),
        Message("SpecError", "is …", "at least 1", "m.py"),
    ]


CLASSES = '''
class LabError(Exception):
    """A failure.

    More.
    """
class B(A):
    """Second."""
class A(LabError): pass
class C(Other): pass
'''


def test_classes_of_errors_are_found_with_their_bases() -> None:
    tree = ast.parse(CLASSES)
    assert error_page.error_classes({error_page.PAGE: tree}) == {"LabError": "A failure.", "A": "", "B": "Second."}


@pytest.mark.parametrize(
    ("code", "text"),
    [("'a' + b", "a…"), ("f'{a}b'", "…b"), ("'a' if x else 'b'", "a"), ("call()", "…"), ("5", "…")],
)
def test_what_differs_is_a_gap(code: str, text: str) -> None:
    statement = ast.parse(code).body[0]
    assert isinstance(statement, ast.Expr) and template(statement.value) == text
