"""docs/diff.md shows what `./lab diff` prints of recordings."""

from __future__ import annotations

import os
import re

import pytest
from click.testing import CliRunner

from hoplab import cli
from hoplab.core.paths import PROJECT

pytestmark = pytest.mark.docs

PAGE = PROJECT / "docs" / "diff.md"
BLOCK = re.compile(r"^```\n\$ \./lab (diff .+)\n((?:.*\n)*?)```$", re.MULTILINE)


def printed(command: str) -> str:
    return CliRunner().invoke(cli.cli, command.split(), catch_exceptions=False).stdout


def test_the_page_shows_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    text = PAGE.read_text()
    now = BLOCK.sub(lambda found: f"```\n$ ./lab {found[1]}\n{printed(found[1])}```", text)
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(now)
    assert now.count("$ ./lab diff") >= 5
    assert PAGE.read_text() == now, f"{PAGE} differs; if that is intended: UPDATE_GOLDEN=1 ./lab test --fast"
