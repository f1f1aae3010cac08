"""A fleet whose labs are a script of ours, and a progress that remembers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hoplab.lab.fleet_members import Fleet


@dataclass
class Heard:
    """A progress that remembers."""

    phases: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        self.phases.append(title)
        yield

    def task(self, text: str) -> None:
        self.tasks.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


def stand_in(of: Fleet, text: str) -> None:
    """A ``./lab`` of ours: $1 is the verb, $3 the lab."""
    script = of.project / "lab"
    script.write_text(f"#!/bin/bash\n{text}\n")
    script.chmod(0o755)
