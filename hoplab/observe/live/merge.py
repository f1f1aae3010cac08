"""The packets of several places in the order of time, each held back for a bounded while; pure.

A packet of a slow place arrives after later packets of a fast one. Each is held back ``delay`` nanoseconds after its
arrival, so packets whose ways here differ by less are in order. One that comes even later follows out of order.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Merge(Generic[T]):
    """Items that wait for their turn."""

    def __init__(self, delay: int) -> None:
        self._delay = delay
        self._count = 0
        self._by_time: list[tuple[int, int, T]] = []  # a heap: time, number of arrival
        self._arrivals: deque[tuple[int, int, int]] = deque()  # when held back until, time, number
        self._given = (-1, -1)  # the greatest time and number that were returned
        self.late = 0  # items that came after later ones had been returned

    def push(self, time: int, item: T, now: int) -> None:
        """Take an item that happened at ``time`` and arrives ``now``; both in nanoseconds, of different clocks."""
        heapq.heappush(self._by_time, (time, self._count, item))
        self._arrivals.append((now + self._delay, time, self._count))
        self.late += (time, self._count) < self._given
        self._count += 1

    def due(self, now: int) -> list[tuple[int, T]]:
        """Return, in the order of time, every item that has been held back long enough, and all before it."""
        found = []
        while self._arrivals and self._arrivals[0][0] <= now:
            _, time, number = self._arrivals.popleft()
            found += self._up_to((time, number))
        return found

    def _up_to(self, last: tuple[int, int]) -> list[tuple[int, T]]:
        found = []
        while self._by_time and self._by_time[0][:2] <= last:
            time, number, item = heapq.heappop(self._by_time)
            self._given = max(self._given, (time, number))
            found.append((time, item))
        return found

    def next_due(self) -> int | None:
        """Return when the next item is due, in nanoseconds of the clock of arrivals; None where none waits."""
        return self._arrivals[0][0] if self._arrivals else None

    def flush(self) -> list[tuple[int, T]]:
        """Return all items that wait, in the order of time."""
        self._arrivals.clear()
        return self._up_to((1 << 80, 0))
