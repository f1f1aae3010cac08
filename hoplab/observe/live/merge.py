"""The packets of several hosts in the order of time, each held back for a bounded while; pure.

A packet of a slow host arrives after later packets of a quick one. Each is held back ``delay`` nanoseconds after its
arrival, so packets whose ways here differ by less are in order. One that comes even later follows out of order. What
is known of a host's clock when a packet leaves counts, not when it arrives.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
Key = tuple[int, int, int]  # time, rank of the place, number of arrival


@dataclass(frozen=True)
class _Arrival:
    until: int  # when it has been held back long enough
    host: str
    key: Key


class Merge(Generic[T]):
    """Items that wait for their turn."""

    def __init__(self, delay: int, ahead: Callable[[str], int] = lambda _host: 0) -> None:
        """Take the delay, and what returns by how many nanoseconds the clock of a host is ahead."""
        self._delay = delay
        self._ahead = ahead
        self._count = 0
        self._waiting: dict[str, list[tuple[Key, T]]] = {}  # a heap for each host
        self._arrivals: deque[_Arrival] = deque()
        self._given: Key = (-1, -1, -1)
        self.late = 0  # items that were returned after later ones

    def push(self, host: str, time: int, rank: int, item: T, now: int) -> None:
        """Take an item that happened at ``time``, of its host's clock, and arrives ``now``, of the caller's.

        Of items of one moment the one with the lowest ``rank`` is the first.
        """
        key = (time, rank, self._count)
        self._count += 1
        heapq.heappush(self._waiting.setdefault(host, []), (key, item))
        self._arrivals.append(_Arrival(now + self._delay, host, key))

    def due(self, now: int) -> list[tuple[int, T]]:
        """Return, in the order of time, every item that has been held back long enough, and all before it.

        The times are those of this machine's clock.
        """
        found = []
        while self._arrivals and self._arrivals[0].until <= now:
            arrival = self._arrivals.popleft()
            found += self._up_to(self._corrected(arrival.host, arrival.key))
        return found

    def flush(self) -> list[tuple[int, T]]:
        """Return all items that wait, in the order of time."""
        self._arrivals.clear()
        return self._up_to(None)

    def next_due(self) -> int | None:
        """Return when the next item is due, of the clock of arrivals; None where none waits."""
        return self._arrivals[0].until if self._arrivals else None

    def _up_to(self, last: Key | None) -> list[tuple[int, T]]:
        found = []
        while heads := [(self._corrected(host, heap[0][0]), host) for host, heap in self._waiting.items() if heap]:
            key, host = min(heads)
            if last is not None and key > last:
                break
            _, item = heapq.heappop(self._waiting[host])
            self.late += key < self._given
            self._given = max(self._given, key)
            found.append((key[0], item))
        return found

    def _corrected(self, host: str, key: Key) -> Key:
        return (key[0] - self._ahead(host), *key[1:])
