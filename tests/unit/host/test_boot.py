"""Watching machines boot, with libvirt played by a fake: what is noticed, restarted, given up."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import libvirt
import pytest

from hoplab.core.errors import BootError
from hoplab.host import boot

RUNNING = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED)
QEMU_CRASHED = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED)
PANIC = "[ 2.7] Kernel panic - not syncing: no root"


class NoPools:
    """A connection to a libvirt without pools."""

    def storageVolLookupByPath(self, path: str) -> None:
        raise libvirt.libvirtError(f"no volume {path}")


class Machine:
    """A domain of libvirt: each start plays the next of its boots (what it says, the state it then has)."""

    def __init__(self, name: str, console: Path, *boots: tuple[str, tuple[int, int]]) -> None:
        self._name, self.console, self.boots = name, console, list(boots)
        self.starts = 0
        self.cpu_ns = 0
        self.create()

    def name(self) -> str:
        return self._name

    def connect(self) -> NoPools:
        return NoPools()

    def XMLDesc(self) -> str:
        return f"<domain><devices><serial type='dev'><source path='{self.console}'/></serial></devices></domain>"

    def create(self) -> None:
        said, self.now = self.boots[min(self.starts, len(self.boots) - 1)]
        self.starts += 1
        self.console.write_text(said)

    def destroy(self) -> None:
        self.now = (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED)

    def state(self) -> tuple[int, int]:
        return self.now

    def info(self) -> list[int]:
        return [self.now[0], 0, 0, 1, self.cpu_ns]


class Screen:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.tasks: list[str] = []

    def phase(self, title: str) -> nullcontext[None]:
        return nullcontext()

    def task(self, text: str) -> None:
        self.tasks.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


Watch = Callable[..., dict[str, int]]


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, screen: Screen) -> Watch:
    """``watch(machines, is_up)`` watches fake machines without ever waiting."""

    def run(machines: list[Machine], is_up: Callable[[str], bool], *, deadline_s: float = 60) -> dict[str, int]:
        class Connection:
            def lookupByName(self, name: str) -> Machine:
                return next(machine for machine in machines if machine.name() == name)

        @contextmanager
        def events(uri: str) -> Iterator[tuple[Connection, threading.Event]]:
            yield Connection(), threading.Event()

        monkeypatch.setattr(boot, "_lifecycle_events", events)
        monkeypatch.setattr(boot, "TICK_S", 0)
        names = [machine.name() for machine in machines]
        return boot.watch_boot(
            "fake:///", names, is_up, screen, deadline_s=deadline_s, qemu_logs=tmp_path, max_restarts=2
        )

    return run


def test_machines_that_come_up_are_reported_one_by_one(watch: Watch, screen: Screen, tmp_path: Path) -> None:
    machines = [Machine(name, tmp_path / f"{name}.log", ("hello", RUNNING)) for name in ("one", "two")]
    answers = iter([False, True, True])
    assert watch(machines, lambda name: next(answers)) == {"one": 0, "two": 0}
    assert screen.tasks == ["two is up, waiting for one", "one is up"]
    assert screen.notes == []


def test_a_panic_is_restarted_and_counted(watch: Watch, screen: Screen, tmp_path: Path) -> None:
    machine = Machine("one", tmp_path / "one.log", (PANIC, RUNNING), ("login:", RUNNING))
    assert watch([machine], lambda name: machine.starts == 2) == {"one": 1}
    assert screen.notes == [f"one: {PANIC}; restarted it (1 of at most 2 times)"]


def test_a_qemu_that_ends_is_restarted(watch: Watch, screen: Screen, tmp_path: Path) -> None:
    machine = Machine("one", tmp_path / "one.log", ("booting", QEMU_CRASHED), ("login:", RUNNING))
    assert watch([machine], lambda name: machine.starts == 2) == {"one": 1}
    assert screen.notes == ["one: it is shut off (QEMU crashed); restarted it (1 of at most 2 times)"]


def test_a_machine_that_was_up_and_crashes_meanwhile_is_waited_for_again(watch: Watch, tmp_path: Path) -> None:
    first = Machine("first", tmp_path / "first.log", ("login:", RUNNING))
    second = Machine("second", tmp_path / "second.log", ("booting", RUNNING))
    asked: list[str] = []

    def is_up(name: str) -> bool:
        asked.append(name)
        if name == "second" and first.starts == 1:
            first.console.write_text(PANIC)
        return name == "first" or first.starts == 2

    assert watch([first, second], is_up) == {"first": 1, "second": 0}
    assert asked.count("first") == 2


def test_a_boot_error_has_the_end_of_console_and_qemu_log(watch: Watch, screen: Screen, tmp_path: Path) -> None:
    machine = Machine("one", tmp_path / "console.log", (f"booting\n{PANIC}\n  trace", QEMU_CRASHED))
    (tmp_path / "one.log").write_text(
        "starting up\n/usr/bin/qemu \\\n-name guest=one \\\n-msg timestamp=on\nearlier start\n"
        "starting up\n/usr/bin/qemu \\\n-name guest=one \\\n-msg timestamp=on\n"
        "2026: Domain id=1 is tainted: high-privileges\nqemu: iotlb_to_section: assertion failed\n"
    )
    with pytest.raises(BootError) as error:
        watch([machine], lambda name: False)
    assert machine.starts == 3  # once, and twice more
    assert machine.now[0] == libvirt.VIR_DOMAIN_SHUTOFF
    assert len(screen.notes) == 2
    assert error.value.log == str(tmp_path / "console.log")
    assert "./lab up" in error.value.remedy
    assert error.value.message == (
        f"one does not boot (3 attempts): {PANIC}\n"
        f"last words of its console:\n  {PANIC}\n    trace\n"
        "last words of QEMU:\n  qemu: iotlb_to_section: assertion failed"
    )


def test_a_machine_without_output_and_cpu_time_hangs(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "HANG_S", -1)
    with pytest.raises(BootError, match="it hangs: nothing on the console and no work done"):
        watch([Machine("one", tmp_path / "one.log", ("", RUNNING))], lambda name: False)


def test_a_machine_with_cpu_time_but_no_output_does_not_hang(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine("one", tmp_path / "one.log", ("", RUNNING))
    clock = [0.0]
    monkeypatch.setattr("hoplab.host.boot.time.monotonic", lambda: clock[0])

    def is_up(name: str) -> bool:
        clock[0] += boot.HANG_S / 2
        machine.cpu_ns += 10**9
        return clock[0] > 3 * boot.HANG_S

    assert watch([machine], is_up, deadline_s=1000) == {"one": 0}


def test_a_machine_that_is_never_up_in_time_is_given_up(watch: Watch, tmp_path: Path) -> None:
    with pytest.raises(BootError, match="it is not up after -1 s"):
        watch([Machine("one", tmp_path / "one.log", ("", RUNNING))], lambda name: False, deadline_s=-1)


@pytest.mark.parametrize(
    ("greeting", "expected"), [(b"SSH-2.0-OpenSSH_10.0\r\n", True), (b"HTTP", False), (b"", False)]
)
def test_an_ssh_server_is_known_by_its_banner(greeting: bytes, expected: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(greeting)

        thread = threading.Thread(target=serve)
        thread.start()
        assert boot.SshBanner("127.0.0.1", port).sent(timeout_s=20) is expected
        thread.join()
    assert not boot.SshBanner("127.0.0.1", port).sent()  # closed


def test_a_late_banner_is_waited_for_on_the_same_connection() -> None:
    """A connection for each question is a session of sshd each: a slow machine never sent the banner of any."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        banner = boot.SshBanner("127.0.0.1", server.getsockname()[1])
        assert not banner.sent(timeout_s=0.01)
        first, _ = server.accept()
        assert not banner.sent(timeout_s=0.01)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
        first.sendall(b"SSH-2.0-OpenSSH_10.0\r\n")
        assert banner.sent(timeout_s=20)
        with first, pytest.raises(ConnectionResetError):  # closed, the rest unread: nothing keeps a session of sshd
            first.recv(1)


def test_a_connection_that_a_restarted_machine_does_not_know_is_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        banner = boot.SshBanner("127.0.0.1", server.getsockname()[1])
        assert not banner.sent(timeout_s=0.01)
        first, _ = server.accept()
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        first.close()  # with a reset, as the kernel of the restarted machine answers
        assert not banner.sent(timeout_s=20)
        assert not banner.sent(timeout_s=0.01)
        with server.accept()[0] as second:
            second.sendall(b"SSH-2.0")
            assert banner.sent(timeout_s=20)


def test_the_kernel_notices_that_a_machine_was_restarted() -> None:
    with socket.socket() as connection:
        boot._notice_a_restart(connection)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < boot.HANG_S
