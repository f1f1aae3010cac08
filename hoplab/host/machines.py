"""Virtual machines while they boot: up, crashed or hung, and what their last words were.

A machine under emulation may crash at boot through no fault of the lab (QEMU's TCG has races), so a boot is watched and
restarted a bounded number of times. Signs of a crash come from three places: libvirt's lifecycle events, the domain's
state (asked every second, so a lost event costs a second and no more) and the kernel's words on the serial console.
"""

from __future__ import annotations

import hashlib
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import libvirt

from hoplab.errors import BootError, EngineError
from hoplab.progress import Progress

STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: "no state",
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "blocked",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "shutting down",
    libvirt.VIR_DOMAIN_SHUTOFF: "shut off",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "suspended",
}
ALIVE = {"running", "blocked", "no state"}

# What a kernel that will not get any further says. Lockup warnings ("BUG: soft lockup") are not among them: a
# busy host makes emulated kernels print them, and they carry on.
CRASH = re.compile(
    r".*(?:Kernel panic - not syncing"
    r"|BUG: (?!soft lockup|workqueue lockup)"
    r"|kernel BUG at"
    r"|\bOops\b.*\[#\d+\]"
    r"|: [0-9a-f]{4} \[#\d+\]"  # "general protection fault, probably for ...: 0000 [#1] PREEMPT SMP"
    r"|Dropping to a shell!"  # initramfs-tools found no root disk
    r"|You are in emergency mode).*"
)
TICK_S = 1.0
HANG_S = 60.0  # nothing on the console and (next line) no work done for so long is a hang; a waiting guest still ticks
HANG_CPU_S = 0.3
LAST_WORDS = 15  # lines

TCG_FACTOR = 6.0  # measured: Python in an emulated guest against the host
REFERENCE_S = 0.030  # what the measurement in `speed` takes on an idle core of 2024


def speed(accel: Literal["kvm", "tcg"]) -> float:
    """By what to multiply deadlines meant for an idle machine with KVM: 1 there, 6 and more under emulation.

    The time of a fixed piece of Python now (a slow or busy core takes longer) against a reference, and the number of
    processes that want a core, times the factor of emulation.
    """
    started = time.perf_counter()
    digest = b""
    for _ in range(40_000):
        digest = hashlib.sha256(digest).digest()
    slowness = (time.perf_counter() - started) / REFERENCE_S
    crowd = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    return min(max(1.0, slowness), 4.0) * min(max(1.0, crowd), 3.0) * (TCG_FACTOR if accel == "tcg" else 1.0)


@contextmanager
def connected(uri: str) -> Iterator[libvirt.virConnect]:
    """A connection to libvirt, with the library's habit of printing every error switched off."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    connection = libvirt.open(uri)
    try:
        yield connection
    finally:
        connection.close()


def domain_states(uri: str) -> dict[str, str]:
    """Every domain and its state: {"worker1": "running", "worker2": "shut off"}."""
    with connected(uri) as connection:
        return {domain.name(): _state(domain) for domain in connection.listAllDomains()}


def start_domain(uri: str, name: str) -> None:
    """Start a domain; one that runs is left alone."""
    with connected(uri) as connection:
        domain = _lookup(connection, name)
        if not domain.isActive():
            _create(domain)


def shutdown_domain(uri: str, name: str, *, deadline_s: float = 60.0) -> bool:
    """Ask a domain to shut down, and pull the plug after the deadline; True when it went by itself (or was off)."""
    with connected(uri) as connection:
        domain = _lookup(connection, name)
        deadline = time.monotonic() + deadline_s
        with suppress(libvirt.libvirtError):  # it may have ended between two lines of ours
            while domain.isActive() and time.monotonic() < deadline:
                domain.shutdown()  # again and again: a guest that still boots does not hear the first
                time.sleep(min(TICK_S, deadline_s))
        if not domain.isActive():
            return True
        _destroy(domain)
        return False


class Console:
    """The serial console log of a machine's present boot: what is new, and what was said last.

    The file may be appended to or truncated when the machine starts again; earlier boots are not looked at.
    """

    KEEP = 65536

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.text = ""

    def restart(self) -> None:
        """Forget what was said up to now: the machine is about to start again."""
        with suppress(OSError):
            self.offset = self.path.stat().st_size
        self.text = ""

    def read(self) -> bool:
        """Read on; whether there was anything new."""
        try:
            with self.path.open("rb") as log:
                if os.fstat(log.fileno()).st_size < self.offset:
                    self.offset, self.text = 0, ""
                log.seek(self.offset)
                new = log.read()
                self.offset = log.tell()
        except OSError:  # not there yet, or not ours to read with a system libvirt
            return False
        text = self.text + new.decode(errors="replace")
        boot = text.rfind("Linux version ")
        self.text = text[max(boot, len(text) - self.KEEP, 0) :]
        return bool(new)

    def crash(self) -> str:
        """The first line that says the kernel is done for, "" while there is none."""
        found = CRASH.search(self.text)
        return found.group(0).strip() if found else ""


@dataclass
class _Boot:
    """One machine while it is watched."""

    console: Console
    up: bool = False
    restarts: int = 0
    since: float = field(default_factory=time.monotonic)  # when this boot began
    moved: float = field(default_factory=time.monotonic)  # when it last showed a sign of life
    cpu_s: float = 0.0  # its CPU time then
    event: str = ""  # a lifecycle event that means trouble


def watch_boot(
    uri: str,
    names: list[str],
    console_dir: Path,
    is_up: Callable[[str], bool],
    progress: Progress,
    *,
    deadline_s: float,
    max_restarts: int = 3,
    qemu_logs: Path = Path("/var/log/libvirt/qemu"),
) -> dict[str, int]:
    """Wait until every machine is up; name -> how often it had to be restarted.

    ``is_up`` is asked about once a second for each machine that is not up yet, in the calling thread, and should answer
    within a second. Each boot of a machine has ``deadline_s``. ``BootError`` when one fails more often than allowed.
    """
    boots = {name: _Boot(Console(console_dir / f"{name}.log")) for name in names}
    events: queue.Queue[tuple[str, str]] = queue.Queue()
    with _lifecycle(uri, events) as connection:
        while True:
            for name, boot in boots.items():
                trouble = _trouble(connection, name, boot, deadline_s)
                if trouble:
                    _again(connection, name, boot, trouble, progress, max_restarts, qemu_logs)
                elif not boot.up and is_up(name):
                    boot.up = True
                    waiting = [other for other, its in boots.items() if not its.up]
                    progress.task(f"{name} is up" + (f", waiting for {', '.join(waiting)}" if waiting else ""))
            if all(boot.up for boot in boots.values()):
                return {name: boot.restarts for name, boot in boots.items()}
            with suppress(queue.Empty):
                name, event = events.get(timeout=TICK_S)
                if name in boots:
                    boots[name].event = event


def _trouble(connection: libvirt.virConnect, name: str, boot: _Boot, deadline_s: float) -> str:
    """What is wrong with a machine right now, "" when nothing is."""
    now = time.monotonic()
    domain = _lookup(connection, name)
    try:
        state, cpu_s = _state(domain), domain.info()[4] / 1e9
    except libvirt.libvirtError as gone:
        return str(gone)
    said_something = boot.console.read()
    crash = boot.console.crash()
    if crash:
        return crash
    if state not in ALIVE:
        return f"it is {state}" + (f" ({boot.event})" if boot.event else "")
    if said_something or cpu_s - boot.cpu_s > HANG_CPU_S:
        boot.moved, boot.cpu_s = now, cpu_s
    if boot.up:
        return ""
    if now - boot.moved > HANG_S:
        return f"it hangs: nothing on the console and no work done for {HANG_S:.0f} s"
    if now - boot.since > deadline_s:
        return f"it is not up after {deadline_s:.0f} s"
    return ""


def _again(
    connection: libvirt.virConnect,
    name: str,
    boot: _Boot,
    trouble: str,
    progress: Progress,
    max_restarts: int,
    qemu_logs: Path,
) -> None:
    """Restart a machine that failed, or give up with its last words."""
    if boot.restarts >= max_restarts:
        raise BootError(
            f"{name} does not boot ({boot.restarts + 1} attempts): {trouble}\n{_last_words(name, boot.console, qemu_logs)}",
            remedy="with `accel: tcg` give each machine one vCPU; less load on the host helps too, then ./lab up again",
            log=str(boot.console.path),
        )
    boot.restarts += 1
    progress.note(f"{name}: {trouble}; restarting it ({boot.restarts} of at most {max_restarts})")
    domain = _lookup(connection, name)
    _destroy(domain)
    boot.console.restart()
    _create(domain)
    boot.up, boot.event = False, ""
    boot.since = boot.moved = time.monotonic()
    boot.cpu_s = 0.0


def _last_words(name: str, console: Console, qemu_logs: Path) -> str:
    """The end of the console and of QEMU's own log."""
    try:
        qemu = (qemu_logs / f"{name}.log").read_text(errors="replace")
    except OSError:
        qemu = ""
    parts = {"console": console.text, "QEMU": _without_command_line(qemu)}
    return "\n".join(
        f"last words of {name} ({where}):\n" + "\n".join(f"  {line}" for line in text.splitlines()[-LAST_WORDS:])
        for where, text in parts.items()
        if text.strip()
    )


def _without_command_line(log: str) -> str:
    """libvirt's QEMU log from the last start on, without the long command line it begins with."""
    last_start = log[log.rfind("\n-", 0, None) + 1 :] if "\n-" in log else log
    return "\n".join(line for line in last_start.splitlines() if not line.startswith(("-", "LC_ALL=")))


@contextmanager
def _lifecycle(uri: str, events: queue.Queue[tuple[str, str]]) -> Iterator[libvirt.virConnect]:
    """A connection whose lifecycle events arrive in the queue as (name, what happened)."""
    _run_event_loop()

    def happened(_connection: libvirt.virConnect, domain: libvirt.virDomain, event: int, detail: int, _: object) -> None:
        what = {
            (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED): "QEMU failed",
            (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED): "crashed",
            (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN): "shut itself down",
            (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED): "powered off from outside",
            (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR): "disk full or I/O error",
            (libvirt.VIR_DOMAIN_EVENT_CRASHED, libvirt.VIR_DOMAIN_EVENT_CRASHED_PANICKED): "kernel panic",
        }.get((event, detail), "")
        events.put((domain.name(), what))

    with connected(uri) as connection:
        callback = connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, happened, None)
        try:
            yield connection
        finally:
            with suppress(libvirt.libvirtError):
                connection.domainEventDeregisterAny(callback)


_event_loop = threading.Lock()  # held for good once libvirt's event loop runs in this process


def _run_event_loop() -> None:
    """Run libvirt's event loop in a thread of its own; it has to keep running once it has been registered."""
    if not _event_loop.acquire(blocking=False):
        return
    libvirt.virEventRegisterDefaultImpl()

    def loop() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=loop, name="libvirt events", daemon=True).start()


def _lookup(connection: libvirt.virConnect, name: str) -> libvirt.virDomain:
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError as error:
        raise EngineError(f"libvirt has no machine {name}: {error}", remedy="./lab up makes what is missing") from error


def _state(domain: libvirt.virDomain) -> str:
    return STATES[domain.state()[0]]


def _create(domain: libvirt.virDomain) -> None:
    try:
        domain.create()
    except libvirt.libvirtError as error:
        raise EngineError(f"{domain.name()} could not be started: {error}", remedy="./lab doctor checks the host") from error


def _destroy(domain: libvirt.virDomain) -> None:
    """Power off; fine when it is off already."""
    with suppress(libvirt.libvirtError):
        domain.destroy()
