"""Waiting: poll until there is a value, or until a deadline that grows with the slowness of the host.

def ready() -> Pod | NotYet:
    return pod if (pod := find()) else NotYet("no pod has this label")

pod = until(ready, 60)  # raises Expired with the last reason

Seconds are meant for an idle host with KVM. The slowness is measured when they are over: a wait that ends in time costs
nothing more, and one that does not is measured under the load which made it slow.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Literal, TypeVar

T = TypeVar("T")

TCG_FACTOR = 6.0  # measured: Python in an emulated guest against Python on the host
REFERENCE_S = 0.012  # what the measurement in `slowness` takes on an idle core


def slowness(accel: Literal["kvm", "tcg"] = "kvm") -> float:
    """Return the factor for deadlines: 1 on an idle host like those they were measured on, more on slower ones.

    It is how long a fixed piece of Python takes now (a slow core takes longer, at most 4 counts), times how many
    processes want each core (at most 3), times ``TCG_FACTOR`` for work that runs in emulated machines.
    """
    started = time.perf_counter()
    digest = b""
    for _ in range(20_000):
        digest = hashlib.sha256(digest).digest()
    taken = (time.perf_counter() - started) / REFERENCE_S
    crowd = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    return min(max(1.0, taken), 4.0) * min(max(1.0, crowd), 3.0) * (TCG_FACTOR if accel == "tcg" else 1.0)


@dataclass(frozen=True)
class NotYet:
    """The value that ``until`` waits for does not exist yet, with the reason."""

    reason: str


class Expired(Exception):
    """The deadline of a wait passed; ``seconds`` is how long it was, scaled."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(f"{reason} (after {seconds:.0f} s)")
        self.reason = reason
        self.seconds = seconds


class Deadline:
    """The end of a wait, or of several; also for those that block in the kernel (select, poll)."""

    def __init__(self, seconds: float, clock: Callable[[], float], slowness: Callable[[], float]) -> None:
        self.seconds = seconds
        self._clock, self._slowness = clock, slowness
        self._start = clock()
        self._scaled = False
        self._lock = Lock()  # threads that wait for the same deadline reach it at the same moment

    def left(self) -> float:
        """Return the seconds that are left, 0 when the deadline has passed."""
        with self._lock:
            left = self._start + self.seconds - self._clock()
            if left <= 0 and not self._scaled and self.seconds > 0:
                self._scaled = True
                self.seconds *= self._slowness()
                left = self._start + self.seconds - self._clock()
        return max(0.0, left)


@dataclass(frozen=True)
class Timing:
    """Clock, sleep and slowness of waits: those of the host, or a test's own."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    slowness: Callable[[], float] = slowness

    def deadline(self, seconds: float) -> Deadline:
        """Return a deadline that many seconds from now, scaled."""
        return Deadline(seconds, self.clock, self.slowness)

    def until(
        self,
        look: Callable[[], T | NotYet],
        seconds: float | Deadline,
        *,
        poll_s: float = 1.0,
        report: Callable[[str], None] = lambda _reason: None,
    ) -> T:
        """Return the first value of ``look`` that is not ``NotYet``; raise Expired with the last reason.

        ``look`` is called at least once, and ``poll_s`` seconds after each call that found nothing; ``report`` gets the
        reason of each of those. Several waits can have one deadline.
        """
        deadline = seconds if isinstance(seconds, Deadline) else self.deadline(seconds)
        while True:
            found = look()
            if not isinstance(found, NotYet):
                return found
            left = deadline.left()
            if not left:
                raise Expired(found.reason, deadline.seconds)
            report(found.reason)
            self.sleep(min(poll_s, left))

    def settled(self, look: Callable[[], T], good: Callable[[T], bool], seconds: float, *, poll_s: float = 0.2) -> T:
        """Return what ``look`` finds once it is good, or the last that it found before the deadline."""
        deadline = self.deadline(seconds)
        while True:
            found = look()
            left = 0.0 if good(found) else deadline.left()
            if not left:
                return found
            self.sleep(min(poll_s, left))


HOST = Timing()
until, settled, deadline = HOST.until, HOST.settled, HOST.deadline
