"""The learners' pages that there are: each can be recorded, and its prose names nothing that a recording changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from hoplab.devtools import pages
from hoplab.devtools.pages import (
    Block,
    OnLab,
    Step,
    parse,
    recorded,
    substitute,
    written,
)
from hoplab.observe.script import Output
from hoplab.verify.claims import listed
from tests.support.learners_pages import LAB

pytestmark = pytest.mark.docs

REAL = {page.name: page for page in pages.load().values()}


@dataclass(frozen=True)
class Told(OnLab):
    """Its commands fail where they should."""

    fails: frozenset[int] = frozenset()

    def run(self, machine: str, steps: Iterable[Step]) -> dict[int, Output]:
        return {step.line: Output(int(step.line in self.fails), f"{machine} says\n") for step in steps}


@pytest.mark.parametrize("name", REAL)
def test_every_page_there_is_can_be_recorded(name: str) -> None:
    """Its places and values exist, and it stays the same page."""
    texts = ["\n".join(REAL[name].lines)]
    for _ in range(2):
        found = parse(name, texts[-1])
        fails = frozenset(step.line for block in found.blocks if block.fails for step in block.steps)
        texts.append(written(found, recorded(found, Told(LAB.session, "blue", fails))))
    assert texts[1] == texts[2]
    prompts = [[step.prompt for step in block.steps] for block in parse(name, texts[2]).blocks]
    assert prompts == [[step.prompt for step in block.steps] for block in pages_of(name, LAB)]


def pages_of(name: str, lab: OnLab) -> list[Block]:
    return [pages.bind_values(REAL[name], block, lab.values) for block in REAL[name].blocks]


@pytest.mark.parametrize("name", REAL)
def test_prose_names_nothing_that_another_recording_changes(name: str) -> None:
    found = REAL[name]
    taken = {number for block in found.blocks for number in range(block.steps[0].line - 2, _end(block))}
    prose = "\n".join(line for number, line in enumerate(found.lines) if number not in taken)
    names = {
        f"{of}{name}" for of in ("", "app2-") for name in ("home", "away", "home-address", "away-address")
    }  # nodes' names and addresses are the spec's
    values = [value for block in found.blocks for name, value in block.values.items() if name not in names]
    used = {value for value in values if substitute(prose, {value: "\0"}) != prose}
    assert not used, f"write it without {listed(sorted(used))}, or in a console block"


def _end(block: Block) -> int:
    last = block.steps[-1]
    return last.line + 1 + last.command.count("\n") + len(last.output)
