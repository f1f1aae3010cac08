"""The lines of another program, read so that this one looks up now and then."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from typing import IO

LOOK_S = 1.0  # the longest time between two looks, while nothing is printed


class PipeLines:
    """The lines of an unbuffered pipe as they come, with their ends; the last one may have none, as in a file.

    ``look`` is called before each wait, which is ``LOOK_S`` at most. An exception, a Ctrl-C too, loses nothing: the
    next line is the one that would have come. A signal that comes just before a wait is seen after it, where a read
    would keep it until the program prints something.
    """

    def __init__(self, pipe: IO[bytes], look: Callable[[], None] = lambda: None) -> None:
        self._pipe = pipe
        self._look = look
        self._rest = b""  # read, and not yet given
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while b"\n" not in self._rest and not self._ended:
            self._look()
            if select.select([self._pipe], [], [], LOOK_S)[0]:
                some = os.read(self._pipe.fileno(), 1 << 16)
                self._rest += some
                self._ended = not some
        if not self._rest:
            raise StopIteration
        line, end, self._rest = self._rest.partition(b"\n")
        return line + end
