"""End processes by their ids, and describe them."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hoplab.core.errors import HostError
from hoplab.core.wait import deadline

GRACE_S = 10.0


def end(pids: Iterable[int], *, grace_s: float = GRACE_S, at_once: bool = False) -> list[str]:
    """End processes (SIGTERM, after the grace or ``at_once`` SIGKILL); return what they were: "dnsmasq (pid 4711)"."""
    ended: list[str] = []
    left: dict[int, str] = {}  # pidfd -> what it is
    poll = select.poll()
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                what = describe(pid)
                descriptor = os.pidfd_open(pid)
                left[descriptor] = what
                poll.register(descriptor, select.POLLIN)  # readable once the process has ended
                ended.append(what)
        for number in (signal.SIGKILL,) if at_once else (signal.SIGTERM, signal.SIGKILL):
            for descriptor in left:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
            grace = deadline(grace_s)
            while left and (remaining := grace.left()):
                for descriptor, _ in poll.poll(remaining * 1000):
                    poll.unregister(descriptor)
                    os.close(descriptor)
                    del left[descriptor]
        if left:
            raise HostError(
                f"did not end: {', '.join(left.values())}",
                remedy="`ps` shows them in state D when they hang in the kernel: see `dmesg`; only a reboot ends those",
            )
        return ended
    finally:
        for descriptor in left:
            os.close(descriptor)


def command_line(pid: int) -> list[str]:
    """Return the words of a process's command line; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def describe(pid: int) -> str:
    """Return "dnsmasq (pid 4711)", or "qemu-system-x86_64 worker1 (pid 4712)" for a machine."""
    words = command_line(pid)
    program = Path(words[0]).name or "process" if words else "process"
    guest = [word.removeprefix("guest=").split(",")[0] for word in words if word.startswith("guest=")]
    return f"{' '.join([program, *guest])} (pid {pid})"
