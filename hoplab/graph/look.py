"""Facts that a picture can do without: what is missing becomes a note, not an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from hoplab.core.errors import FactError, UnavailableError
from hoplab.observe.facts import Fact, Facts

T = TypeVar("T")


@dataclass
class Look:
    """Reads facts, and keeps what could not be read."""

    notes: list[str] = field(default_factory=list)

    def at(self, facts: Facts, fact: Fact[Iterable[T]], *, quiet: bool = False) -> tuple[T, ...]:
        """Return the records of a fact; none where it could not be read, and a note that says so unless quiet."""
        return self.call(lambda: facts[fact], quiet=quiet)

    def call(self, read: Callable[[], Iterable[T]], *, quiet: bool = False) -> tuple[T, ...]:
        """Return the records that a function reads, likewise."""
        try:
            return tuple(read())
        except (FactError, UnavailableError) as error:
            if not quiet and error.message not in self.notes:
                self.notes.append(error.message)
            return ()
