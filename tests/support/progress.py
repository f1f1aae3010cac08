"""A progress that keeps what it is told."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field


@dataclass
class RecordingProgress:
    """A progress that remembers."""

    tasks: list[str] = field(default_factory=list)

    def phase(self, title: str) -> AbstractContextManager[None]:
        return nullcontext()

    def task(self, text: str) -> None:
        self.tasks.append(text)

    def note(self, text: str) -> None:
        raise AssertionError(text)
