"""Ending processes: politely first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hoplab.core.errors import HostError
from hoplab.host import processes

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('in', flush=True); time.sleep(60)"


def started(*command: str) -> subprocess.Popen[bytes]:
    """A command that echoes lines, surely running: it has echoed one."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"hello\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"hello\n"
    return process


def test_processes_are_ended_and_named() -> None:
    with started("cat") as polite:
        assert processes.end([polite.pid]) == [f"cat (pid {polite.pid})"]
        assert polite.wait() == -15


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout
        stubborn.stdout.readline()
        processes.end([stubborn.pid], grace_s=0.1)
        assert stubborn.wait() == -9


def test_a_process_is_killed_at_once_where_it_has_nothing_to_lose() -> None:
    with started("cat") as polite:
        assert processes.end([polite.pid], at_once=True) == [f"cat (pid {polite.pid})"]
        assert polite.wait() == -9


def test_a_process_that_has_ended_is_skipped() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert processes.end([gone.pid]) == []
    assert processes.command_line(gone.pid) == []


def test_a_qemu_is_described_with_its_machine() -> None:
    echo = "print(input(), flush=True); input()"
    with started(sys.executable, "-c", echo, "-name", "guest=hoplab-dev-1a2b3c-worker1,debug-threads=on") as qemu:
        assert processes.describe(qemu.pid) == f"{Path(sys.executable).name} hoplab-dev-1a2b3c-worker1 (pid {qemu.pid})"
        qemu.kill()


def test_a_process_that_cannot_be_killed_is_a_host_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.host.processes.signal.pidfd_send_signal", lambda descriptor, number: None)
    with started("cat") as stuck:
        with pytest.raises(HostError) as error:
            processes.end([stuck.pid], grace_s=0.05)
        assert error.value.message == f"did not end: cat (pid {stuck.pid})"
        assert "dmesg" in error.value.remedy
        stuck.kill()
