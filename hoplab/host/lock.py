"""One command at a time on one thing: a lock file that says who holds it.

The kernel frees the lock when its holder ends, however it ends; there are no stale locks to remove.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from hoplab.core.errors import BusyError

LENT = "HOPLAB_LOCK_LENT"  # set for programs that work for a command which holds the lab's lock: they take none


@contextmanager
def held(path: Path, what: str, *, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock ``<lab>.lock`` for the body; ``what`` is the command that does, as its user knows it ("lab up").

    While another command holds it: ``BusyError`` naming that command, or, given ``wait`` (``progress.note``), say so
    once and wait for it to end.
    """
    descriptor = _take(path, wait)
    try:
        holder = {"pid": os.getpid(), "command": what, "since": datetime.now().strftime("%H:%M:%S")}
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still ours: a destroyed lab leaves no file
        os.close(descriptor)


def _take(path: Path, wait: Callable[[str], None] | None) -> int:
    """An open, locked descriptor of the file that is at ``path`` now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor, path.stem, wait)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    os.ftruncate(descriptor, 0)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder removed the file we waited for: take the one that is there now


def _lock(descriptor: int, name: str, wait: Callable[[str], None] | None) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        busy = f"{name} is being worked on by {_holder(descriptor)}"
        if wait is None:
            raise BusyError(busy, remedy="try again when it has ended") from None
        wait(f"{busy}; waiting for it to end")
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _holder(descriptor: int) -> str:
    """Who holds it: "`lab up` (pid 4711) since 12:00:01"."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"`{holder['command']}` (pid {holder['pid']}) since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another command"  # which has the lock, and has not written its name yet
