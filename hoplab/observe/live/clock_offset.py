"""How far the clock of a node is ahead of this machine's, from questions and answers as NTP has them; pure.

    this machine   sent ---------\\            /------- received
    node                          read its clock

The node read its clock at some moment between ``sent`` and ``received``. The quickest answer bounds that best. A clock
that is set meanwhile, or drifts, gives an answer that the earlier ones exclude: then only the new one counts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MILLISECOND = 1_000_000  # nanoseconds
KEPT = 32  # samples


@dataclass(frozen=True)
class Sample:
    """One question and its answer, in nanoseconds since 1970."""

    sent: int  # of this machine's clock
    node: int  # of the node's clock
    received: int  # of this machine's clock

    @property
    def least(self) -> int:
        """Return by how much the node's clock is ahead at least; below 0 it may be behind."""
        return self.node - self.received

    @property
    def most(self) -> int:
        return self.node - self.sent

    @property
    def width(self) -> int:
        return self.received - self.sent


class ClockOffset:
    """What is known of the clock of one node."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT)

    def add(self, sample: Sample) -> None:
        """Take one more answer into account."""
        best = self._best
        if best and (sample.least > best.most or sample.most < best.least):
            self._samples.clear()
        self._samples.append(sample)

    @property
    def _best(self) -> Sample | None:
        return min(self._samples, key=lambda sample: sample.width, default=None)

    @property
    def ahead(self) -> int:
        """Return the nanoseconds by which the node's clock is ahead: the middle of what is possible, 0 if unknown."""
        best = self._best
        return (best.least + best.most) // 2 if best else 0

    @property
    def error(self) -> int:
        """Return by how many nanoseconds ``ahead`` is wrong at most."""
        best = self._best
        return best.width // 2 if best else 0

    def __str__(self) -> str:
        """Return it in words: "12.300 ms ahead, +/- 0.400 ms"."""
        way = "ahead" if self.ahead >= 0 else "behind"
        return f"{abs(self.ahead) / MILLISECOND:.3f} ms {way}, +/- {self.error / MILLISECOND:.3f} ms"
