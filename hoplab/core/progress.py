"""Progress of long work: phases with their elapsed time, and the current task."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """The interface that long work reports to; ``hoplab.core.console`` implements it for terminals and logs."""

    def phase(self, title: str) -> AbstractContextManager[None]:
        """Enter a phase: its title and elapsed time are shown until it ends; phases do not nest."""
        ...

    def task(self, text: str) -> None:
        """Show what is being done now (replaces the previous task on a terminal)."""
        ...

    def note(self, text: str) -> None:
        """Print a line that stays on the screen (a retry, a warning, what was removed)."""
        ...


class _Current:
    """Progress for the providers of the Pulumi program in this process, which can't be given one as a parameter."""

    progress: Progress | None = None
    forks: bool = True  # whether this process may fork: not one of Pulumi's own, with gRPC's threads in it


CURRENT = _Current()
