"""Virtual machines while they boot: up, crashed or hung, with the end of their console.

A machine under emulation may crash at boot through no fault of the lab (QEMU's TCG has races), so a boot is watched and
restarted a bounded number of times. Signs of a crash come from three places: libvirt's lifecycle events, the machine's
state (polled every second, so a lost event costs a second) and the kernel's messages on the serial console.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

import libvirt

from hoplab.core.errors import BootError
from hoplab.core.progress import Progress
from hoplab.core.wait import slowness
from hoplab.host import netns
from hoplab.host.console import LAST_WORDS
from hoplab.host.machines import STATES, connected, console_of, lookup, power_off, power_on
from hoplab.host.remote import connection
from hoplab.spec.libvirt_uri import RemoteHost, remote_host

ALIVE = {libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_NOSTATE}
REASONS = {
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED): "QEMU crashed",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED): "QEMU did not start",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN): "it shut itself down",
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED): "powered off from outside",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR): "I/O error, is the disk full?",
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_CRASHED): "its kernel panicked",
    (libvirt.VIR_DOMAIN_CRASHED, libvirt.VIR_DOMAIN_CRASHED_PANICKED): "its kernel panicked",
}

TICK_S = 1.0
HANG_S = 60.0  # a guest without console output and CPU time for so long hangs; an idle guest still uses some CPU time
HANG_CPU_S = 0.3  # less CPU time than this is no work
MAX_RESTARTS = 3
BOOT_S = 60.0  # power-on to SSH on an idle machine with KVM is under 10 s


def wait_until_up(
    uri: str,
    addresses: Mapping[str, str],
    progress: Progress,
    *,
    namespace: str,
    accel: Literal["kvm", "tcg"],
    qemu_logs: Path,
) -> dict[str, int]:
    """Wait until every machine answers as an SSH server; ``addresses`` are by domain name, ``namespace`` is the lab's.

    Return how often each had to be restarted. The deadline is scaled by the slowness of the host.
    """
    deadline_s = BOOT_S * slowness(accel)
    banners = {name: SshBanner(address, remote=remote_host(uri)) for name, address in addresses.items()}

    def is_up(name: str) -> bool:
        return banners[name].sent()

    with netns.entered(namespace), ExitStack() as stack:
        for banner in banners.values():
            stack.callback(banner.close)
        return watch_boot(uri, list(addresses), is_up, progress, deadline_s=deadline_s, qemu_logs=qemu_logs)


class SshBanner:
    """An SSH server's banner, waited for on one connection.

    A new connection for each question would start a new session of sshd. Where that takes longer than the time between
    two questions, sessions pile up, and none of them ever sends its banner.
    """

    def __init__(self, address: str, port: int = 22, remote: RemoteHost | None = None) -> None:
        self._to, self._remote = (address, port), remote
        self._connection: socket.socket | None = None

    def sent(self, timeout_s: float = 1.0) -> bool:
        """Return whether the banner has come, after at most ``timeout_s`` for the connection and as much for it."""
        try:
            if self._connection is None:
                self._connection = connection(*self._to, timeout_s, self._remote)
                if self._remote is None:
                    _notice_a_restart(self._connection)
            self._connection.settimeout(timeout_s)
            banner = self._connection.recv(4)
        except TimeoutError:
            return False  # of the banner: it may still come on this connection
        except OSError:
            banner = b""
        self.close()
        return banner == b"SSH-"

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()
        self._connection = None


def _notice_a_restart(connection: socket.socket) -> None:
    """Let the kernel ask the other end every few seconds: a machine that was started anew knows no such connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 12)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def watch_boot(
    uri: str,
    names: Sequence[str],
    is_up: Callable[[str], bool],
    progress: Progress,
    *,
    deadline_s: float,
    qemu_logs: Path,
    max_restarts: int = MAX_RESTARTS,
) -> dict[str, int]:
    """Wait until every machine is up; return domain name -> how often it had to be restarted.

    ``is_up`` is called about once a second for each machine that is not up yet, in the calling thread, and should
    return within a second. Each boot of a machine has ``deadline_s``. Raise BootError when one fails more often than
    allowed.
    """
    with _lifecycle_events(uri) as (connection, something_happened):
        boots = [_Boot(lookup(connection, name)) for name in names]
        while True:
            for boot in boots:
                problem = boot.problem(deadline_s)
                if problem and boot.restarts == max_restarts:
                    error = _gave_up(boot, problem, qemu_logs)
                    power_off(boot.domain)  # a kernel that panicked would keep a core busy
                    raise error
                if problem:
                    boot.restart()
                    progress.note(
                        f"{boot.name}: {problem}; restarted it ({boot.restarts} of at most {max_restarts} times)"
                    )
                elif not boot.up and is_up(boot.name):
                    boot.up = True
                    waiting = [other.name for other in boots if not other.up]
                    progress.task(f"{boot.name} is up" + (f", waiting for {', '.join(waiting)}" if waiting else ""))
            if all(boot.up for boot in boots):
                return {boot.name: boot.restarts for boot in boots}
            something_happened.wait(TICK_S)
            something_happened.clear()


class _Boot:
    """One machine while it is watched."""

    def __init__(self, domain: libvirt.virDomain) -> None:
        self.domain = domain
        self.name = domain.name()
        self.console = console_of(domain)
        self.restarts = 0
        self._begin()

    def _begin(self) -> None:
        self.up = False
        self.since = self.moved = time.monotonic()  # when this boot began, when there was a last sign of life
        self.cpu_s = 0.0  # CPU time used by then

    def restart(self) -> None:
        """Power off, and on again."""
        power_off(self.domain)
        self.console.clear()
        power_on(self.domain)
        self.restarts += 1
        self._begin()

    def problem(self, deadline_s: float) -> str:
        """Return what is wrong with it now, "" when nothing is."""
        said_something = self.console.read()
        (state, reason), cpu_s = self.domain.state(), self.domain.info()[4] / 1e9
        if self.console.crash():
            return self.console.crash()
        if state not in ALIVE:
            why = REASONS.get((state, reason))
            return f"it is {STATES[state]}" + (f" ({why})" if why else "")
        return "" if self.up else self._slow(said_something, cpu_s, deadline_s)

    def _slow(self, said_something: bool, cpu_s: float, deadline_s: float) -> str:
        """Return a reason when it hangs or exceeds the deadline, else ""."""
        now = time.monotonic()
        if said_something or cpu_s - self.cpu_s > HANG_CPU_S:
            self.moved, self.cpu_s = now, cpu_s
        if now - self.moved > HANG_S:
            return f"it hangs: nothing on the console and no work done for {HANG_S:.0f} s"
        if now - self.since > deadline_s:
            return f"it is not up after {deadline_s:.0f} s"
        return ""


def _gave_up(boot: _Boot, problem: str, qemu_logs: Path) -> BootError:
    """Return the error with the end of the console and of QEMU's own log."""
    words = {"its console": boot.console.last_words(), "QEMU": _qemu_said(qemu_logs / f"{boot.name}.log")}
    said = [
        f"\nlast words of {who}:" + "".join(f"\n  {line}" for line in lines) for who, lines in words.items() if lines
    ]
    return BootError(
        f"{boot.name} does not boot ({boot.restarts + 1} attempts): {problem}{''.join(said)}",
        remedy="read its console log; when emulated, one vCPU a machine and less load on the host help: ./lab up",
        log=boot.console.name,
    )


def _qemu_said(log: Path) -> list[str]:
    """Return the end of libvirt's QEMU log of the last start, without the command line it begins with."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return []  # a system libvirt's logs are root's
    said = text.rpartition("-msg timestamp=on\n")[2].splitlines()
    return [line for line in said if "is tainted:" not in line][-LAST_WORDS:]


@contextmanager
def _lifecycle_events(uri: str) -> Iterator[tuple[libvirt.virConnect, threading.Event]]:
    """Yield a connection, and a flag that is set whenever a machine starts, stops, pauses or crashes."""
    _run_event_loop()
    something_happened = threading.Event()

    def happened(*_: object) -> None:
        something_happened.set()

    with connected(uri) as connection:
        callback = connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, happened, None)
        try:
            yield connection, something_happened
        finally:
            with suppress(libvirt.libvirtError):
                connection.domainEventDeregisterAny(callback)


_event_loop_runs = threading.Lock()  # never released: the first caller starts the event loop


def _run_event_loop() -> None:
    """Run libvirt's event loop in a thread of its own; it has to keep running once it has been registered."""
    if not _event_loop_runs.acquire(blocking=False):
        return
    libvirt.virEventRegisterDefaultImpl()

    def loop() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=loop, name="libvirt events", daemon=True).start()
