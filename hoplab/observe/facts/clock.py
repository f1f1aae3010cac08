"""The clock of a node beside the clock of the machine that looks at it.

``hoplab.observe.snapshot.take`` writes the times at which the look began and ended before and after the node's own: the
node's was read at some moment between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact

FAR = 1e11  # seconds since 1970, in the year 5138


@dataclass(frozen=True)
class Clock:
    """One reading, in seconds since 1970."""

    began: float  # of the machine that looks
    node: float
    ended: float  # of the machine that looks

    @property
    def least(self) -> float:
        """Return by how many seconds the node's clock is ahead at least; below 0 it may be behind."""
        return self.node - self.ended

    @property
    def most(self) -> float:
        """Return by how many seconds it is ahead at most; below 0 it is behind."""
        return self.node - self.began


def parse(text: str) -> Clock:
    """Parse ``1795902780.1 1795902783.402913511 1795902791.7``, or a node's time alone, of a look at any time."""
    try:
        times = [float(word) for word in text.split()]
    except ValueError:
        times = []
    began, node, ended = (-math.inf, *times, math.inf) if len(times) == 1 else times if len(times) == 3 else (1, 0, 0)
    if not (began <= ended and all(0 <= time < FAR for time in times)):  # "nan" is in no order
        raise FactError(f"{text[:60]!r} is not the time of a node in a look", remedy="run `date +%s.%N` there")
    return Clock(began, node, ended)


CLOCK = Fact("clock", "date +%s.%N", parse)
