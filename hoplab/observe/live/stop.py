"""Ctrl-C, SIGTERM and the end of the terminal as something that a loop can wait for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class Stop:
    """Whether the run has to end; ``fileno()`` becomes readable then."""

    def __init__(self) -> None:
        self.asked = 0  # how often
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        return self._read

    def ask(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """End the run; for the second time: without waiting for anything."""
        self.asked += 1
        with suppress(BlockingIOError):
            os.write(self._write, b".")

    def seen(self) -> None:
        """Make ``fileno()`` wait for the next signal."""
        with suppress(BlockingIOError):
            os.read(self._read, 64)

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@contextmanager
def on_signals() -> Iterator[Stop]:
    """Give a Stop that signals ask for, as long as the body runs."""
    stop = Stop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop.ask) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        stop.close()
