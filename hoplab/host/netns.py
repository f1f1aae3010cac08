"""Create, enter and delete network namespaces.

`ip netns` keeps a namespace alive by a file in /run/netns, so a lab's namespace outlives every command and is gone
after a reboot. ``entered`` moves the calling thread only: sockets, threads and child processes made inside belong to
the namespace for good, which is how ansible-runner, paramiko and the kubernetes client reach a private lab.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hoplab.core.errors import HostError
from hoplab.core.packages import install_remedy
from hoplab.host import processes as process

NAMED = Path("/run/netns")
BRIDGED = Path("/proc/sys/net/bridge")  # there while the kernel has br_netfilter, which Docker loads
CLONE_NEWNET = 0x40000000  # linux/sched.h


def exists(name: str) -> bool:
    """Return whether the namespace is there. A file left behind in a /run that survived a reboot is not a namespace."""
    try:
        return (NAMED / name).stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def create(name: str) -> None:
    """Make the namespace with its loopback up and forwarding on; one that is there already is kept.

    br_netfilter is off in it: libvirt's masquerade would change the source of packets that a node sends to another
    node's pods.
    """
    if not exists(name):
        (NAMED / name).unlink(missing_ok=True)
        ip("netns", "add", name)
    ip("-n", name, "link", "set", "lo", "up")
    with entered(name):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # /proc/sys/net shows the opening thread's namespace
        for forwarding in Path("/proc/sys/net/ipv6/conf").glob("all/forwarding"):  # a kernel may have no IPv6
            forwarding.write_text("1")
        for setting in BRIDGED.glob("bridge-nf-call-*"):
            setting.write_text("0")


def delete(name: str) -> bool:
    """Remove the name; True when there was one. Ends no process: the namespace lives on while one is in it."""
    if exists(name):
        ip("netns", "delete", name)
        return True
    (NAMED / name).unlink(missing_ok=True)
    return False


def processes(name: str) -> list[int]:
    """Return the ids of processes in the namespace, none when it does not exist."""
    if not exists(name):
        return []
    return sorted(int(pid) for pid in ip("netns", "pids", name).split())


def end_processes(name: str) -> list[str]:
    """End every process in the namespace except this one; return what they were ("dnsmasq (pid 4711)")."""
    return process.end(pid for pid in processes(name) if pid != os.getpid())


@contextmanager
def entered(name: str) -> Iterator[None]:
    """Run the body in the namespace, this thread only; "" stays where it is."""
    if not name:
        yield
        return
    if not exists(name):
        raise HostError(f"there is no network namespace {name}", remedy="start the lab: ./lab start")
    with Path("/proc/thread-self/ns/net").open() as before, (NAMED / name).open() as target:
        _setns(target.fileno())
        try:
            yield
        finally:
            _setns(before.fileno())


def _setns(descriptor: int) -> None:
    # os.setns came with Python 3.12
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise HostError(f"cannot enter a network namespace: {reason}", remedy="run as root: sudo ./lab ...")


def ip(*arguments: str) -> str:
    """Run `ip`, also where it is not in PATH; return its output. Raise HostError where it fails."""
    tool = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if tool is None:
        raise HostError("the command `ip` is missing", remedy=install_remedy(["ip"]))
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        remedy = "run as root: sudo ./lab ..." if os.geteuid() != 0 else "see ./lab doctor"
        raise HostError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}", remedy=remedy)
    return done.stdout
