"""The lock of a lab and of the node image: one command at a time has it. The lock file names its holder.

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

LOCK_INHERITED = "HOPLAB_LOCK_INHERITED"  # set for programs that a command runs while it holds the lab's lock


@contextmanager
def locked(path: Path, what: str, *, name: str = "", wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path`` for the body; ``what`` is the command that holds it, as typed ("lab up").

    While another command holds it: raise BusyError with that command or, given ``wait`` (``progress.note``), report it
    once and wait for it to end. ``name`` is what is locked, by default the stem of the path (a lab's name).
    """
    descriptor = _take(path, name or path.stem, wait)
    try:
        holder = {"pid": os.getpid(), "command": what, "since": datetime.now().strftime("%H:%M:%S")}
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still locked: a destroyed lab leaves no file
        os.close(descriptor)


def _take(path: Path, name: str, wait: Callable[[str], None] | None) -> int:
    """Return an open, locked descriptor of the file that is at ``path`` now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor, name, wait)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    os.ftruncate(descriptor, 0)
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder removed that file: lock the one that is there now


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
    """Return the holder: "`lab up` (pid 4711) since 12:00:01"."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"`{holder['command']}` (pid {holder['pid']}) since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another command"  # it has not written its name yet
