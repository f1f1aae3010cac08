"""What the person at the screen sees while long work goes on: phases with elapsed time and the current task."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """The reporting side that long work is given; ``hoplab.core.console`` has the ones people look at."""

    def phase(self, title: str) -> AbstractContextManager[None]:
        """Enter a phase: its title and elapsed time are shown until it ends; phases do not nest."""
        ...

    def task(self, text: str) -> None:
        """Say what is being done right now (replaces the previous task on a terminal)."""
        ...

    def note(self, text: str) -> None:
        """A line worth keeping on the screen (a retry, a warning, what was removed)."""
        ...


class _Shown:
    """Where work that is called from far away (a provider of the Pulumi program, run in this process) shows itself."""

    progress: Progress | None = None
    forks: bool = True  # whether this process may fork: not one of Pulumi's own, with gRPC's threads in it


SHOWN = _Shown()
