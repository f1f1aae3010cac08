"""Run a command with other directories mounted over the system's, for that command and its children only.

    python -I mounts.py SOURCE:TARGET ... -- COMMAND [ARGUMENT ...]

libvirtd has its directories (/etc/libvirt, /run/libvirt, ...) compiled in; this gives each lab's libvirtd its own, so
several of them and the system's can run side by side. It is a program of its own because it replaces itself by the
command, and uses the standard library only because it runs outside the package.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWNS = 0x00020000  # linux/sched.h
MS_BIND, MS_REC, MS_SLAVE = 0x1000, 0x4000, 0x80000  # linux/mount.h


def main(arguments: list[str]) -> None:
    """Make a mount namespace, bind each SOURCE over its TARGET in it, and become the command."""
    split = arguments.index("--")
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int, what: str) -> None:
        if result != 0:
            sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")

    check(libc.unshare(CLONE_NEWNS), "cannot make a mount namespace")
    # slave: what the host mounts later (a disk with images) is seen here, nothing of ours is seen by the host
    check(libc.mount(b"none", b"/", None, MS_REC | MS_SLAVE, None), "cannot detach from the host's mounts")
    for pair in arguments[:split]:
        source, target = pair.rsplit(":", 1)  # a project's path may contain a colon, the system's directories do not
        # an empty /run/libvirt is what a system libvirtd leaves as well, and another lab's mount hangs on it: it stays
        Path(target).mkdir(parents=True, exist_ok=True)
        check(libc.mount(source.encode(), target.encode(), None, MS_BIND, None), f"cannot bind {source} over {target}")
    command = arguments[split + 1 :]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
