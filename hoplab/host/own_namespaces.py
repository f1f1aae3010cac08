"""The namespaces in which a user who is not root has labs: user, mount and network. Linux makes them for anybody.

    python -I own_namespaces.py hold RECORD                    keeps new namespaces alive; `unshare` made them
    python -I own_namespaces.py exec RECORD NETNS COMMAND ...  runs a command in a network namespace of a lab

In them the user is root, and other ids are the user's subordinate ones (/etc/subuid). A file that root makes there is
the user's own here. /run is a new folder with links to what the host has in its own, beside folders that labs write.

It is a program of its own and uses the standard library only: SSH runs it as its ProxyCommand, and a holder is small.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from pathlib import Path

NEW_NET, NEW_USER, NEW_MOUNT = 0x40000000, 0x10000000, 0x00020000  # linux/sched.h
MS_BIND, MS_REC = 0x1000, 0x4000  # linux/mount.h
NETWORKS = Path("/run/netns")
HOST_RUN = ".host"  # the host's /run, below the new one
HELD_FOR = ".hoplab"  # a file in the new /run with the path of the record
OWN = ("netns", "hoplab", "libvirt", "xtables.lock")  # of /run: what labs write
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h


def holder(record: Path) -> int:
    """Return the process that holds the namespaces; 0 where none does: it ended, or the host was rebooted.

    The record has its start and the host's boot, so that another process of the same id is none.
    """
    try:
        pid = int(record.read_text().split()[0])
        return pid if record.read_text() == identity(pid) else 0
    except (OSError, ValueError, IndexError):
        return 0


def identity(pid: int) -> str:
    """Return the line of a record: process id, start in ticks since the boot, id of the boot; raise OSError."""
    state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if state in "ZX":  # it has ended, and its parent does not know yet
        raise ProcessLookupError(f"process {pid} has ended")
    started = fields[18]
    return f"{pid} {started} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}\n"


def opened(record: Path, *kinds: str) -> list[int]:
    """Return open descriptors of the holder's namespaces ("user", "mnt", "net"); raise OSError where there is none."""
    pid = holder(record)
    found = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
    if not pid or holder(record) != pid:  # ended meanwhile: the number may be someone else's
        raise ProcessLookupError("nothing holds the namespaces")
    return found


def setns(descriptor: int, kind: int) -> None:
    """Move the calling thread to a namespace; os.setns came with Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def enter(record: Path) -> None:
    """Become root of the user and mount namespaces, in the folder of before; no thread may run beside this one.

    Supplementary groups are dropped: libvirt drops them for QEMU, and a test of KVM here has to see what QEMU may.
    """
    here = os.getcwd()
    user, mount = opened(record, "user", "mnt")
    try:
        setns(user, NEW_USER)
        setns(mount, NEW_MOUNT)
        os.setgroups([])
        os.chdir(here)  # setns moved it to the root of the mounts
    finally:
        os.close(user)
        os.close(mount)


def is_inside(record: Path) -> bool:
    """Return whether this process is in the user namespace of the holder already."""
    pid = holder(record)
    try:
        return bool(pid) and os.path.samestat(os.stat(f"/proc/{pid}/ns/user"), os.stat("/proc/self/ns/user"))
    except OSError:
        return False


def hold(record: Path) -> None:
    """Make /run and the loopback of new namespaces, write the record, and wait to be ended."""
    _own_run()
    Path("/run", HELD_FOR).write_text(str(record))
    _loopback_up()
    draft = record.with_suffix(".new")
    draft.write_text(identity(os.getpid()))
    draft.replace(record)
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))
    while True:
        signal.pause()


def _own_run() -> None:
    """Give /run the folders that labs write, and links to everything else that the host has there now."""
    there = [name for name in os.listdir("/run") if name not in OWN]
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str, target: str, kind: str, flags: int) -> None:
        if libc.mount(source.encode(), target.encode(), kind.encode(), flags, None) != 0:
            sys.exit(f"cannot mount {kind or source} at {target}: {os.strerror(ctypes.get_errno())}")

    host = os.open("/run", os.O_PATH)
    mount("tmpfs", "/run", "tmpfs", 0)
    os.chmod("/run", 0o755)
    os.mkdir(f"/run/{HOST_RUN}")
    mount(f"/proc/self/fd/{host}", f"/run/{HOST_RUN}", "", MS_BIND | MS_REC)
    os.close(host)
    for name in there:
        os.symlink(f"{HOST_RUN}/{name}", f"/run/{name}")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def main(arguments: list[str]) -> None:
    """Hold the namespaces, or become a command in a lab's network."""
    what, record, *rest = arguments
    if what == "hold":
        hold(Path(record))
    network, *command = rest
    try:
        if not is_inside(Path(record)):
            enter(Path(record))
        descriptor = os.open(NETWORKS / network, os.O_RDONLY | os.O_CLOEXEC)
        setns(descriptor, NEW_NET)
    except OSError as error:
        sys.exit(f"the network of this lab is not there, ./lab start makes it: {error.strerror or error}")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
