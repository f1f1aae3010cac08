"""Reading a serial console: which words mean the kernel is done for, and which boot they belong to."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoplab.host.console import Console


@pytest.mark.parametrize(
    "line",
    [
        "[    2.728856] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
        "[    3.1] BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "[    3.1] BUG: unable to handle page fault for address: ffffc90000a3bfd8",
        "[    3.1] kernel BUG at mm/slub.c:4321!",
        "[    3.1] Oops: 0002 [#1] PREEMPT SMP NOPTI",
        "[    3.1] Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
        "[    3.1] general protection fault, probably for non-canonical address 0x1: 0000 [#1] PREEMPT SMP",
        "[    3.1] invalid opcode: 0000 [#1] PREEMPT SMP",
        "ALERT!  /dev/vda does not exist.  Dropping to a shell!",
        "You are in emergency mode. After logging in, type ...",
    ],
)
def test_a_crash_is_recognized(tmp_path: Path, line: str) -> None:
    log = tmp_path / "worker1.log"
    log.write_text(f"[    0.000000] Linux version 6.12\r\n{line}\r\n[    3.2] Call Trace:\r\n")
    console = Console(log)
    assert console.read()
    assert console.crash() == line


@pytest.mark.parametrize(
    "line",
    [
        "[   50.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [systemd:1]",  # a busy host, not a crash
        "[   50.0] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 32s!",
        "[    0.5] Kernel command line: root=/dev/vda panic=-1 oops=panic",
        "[    1.0] kernel.panic_on_oops = 1",
        "[    1.0] systemd[1]: Started ssh.service - OpenBSD Secure Shell server.",
    ],
)
def test_a_warning_is_no_crash(tmp_path: Path, line: str) -> None:
    log = tmp_path / "worker1.log"
    log.write_text(line + "\n")
    console = Console(log)
    console.read()
    assert console.crash() == ""


def test_a_crash_that_arrives_in_two_pieces_is_recognized(tmp_path: Path) -> None:
    log = tmp_path / "worker1.log"
    log.write_text("[ 1.0] Kernel pa")
    console = Console(log)
    console.read()
    assert console.crash() == ""
    with log.open("a") as more:
        more.write("nic - not syncing: Attempted to kill init!\n")
    assert console.read()
    assert console.crash() == "[ 1.0] Kernel panic - not syncing: Attempted to kill init!"
    assert not console.read()  # nothing new


def test_a_crash_of_an_earlier_boot_does_not_count(tmp_path: Path) -> None:
    log = tmp_path / "worker1.log"
    log.write_text("Linux version 6.12\nKernel panic - not syncing: first boot\nLinux version 6.12\nall is well\n")
    console = Console(log)
    console.read()
    assert console.crash() == ""
    assert console.last_words() == ["Linux version 6.12", "all is well"]


def test_a_log_is_emptied_before_a_start_and_read_from_its_beginning_after(tmp_path: Path) -> None:
    log = tmp_path / "worker1.log"
    log.write_text("Kernel panic - not syncing: before\n")
    console = Console(log)
    console.read()
    console.clear()
    assert log.read_text() == ""
    assert console.crash() == ""
    log.write_text("again\n")
    assert console.read()
    assert console.last_words() == ["again"]


def test_a_log_that_somebody_else_emptied_is_read_again(tmp_path: Path) -> None:
    log = tmp_path / "worker1.log"
    log.write_text("a long line of the boot before\n")
    console = Console(log)
    console.read()
    log.write_text("new\n")
    console.read()
    assert console.last_words() == ["new"]


def test_the_end_of_a_log_starts_at_the_crash(tmp_path: Path) -> None:
    log = tmp_path / "worker1.log"
    trace = [f"  line {number} of the call trace" for number in range(40)]
    log.write_text("\n".join(["all is well", "Kernel panic - not syncing: no init", *trace]))
    console = Console(log)
    console.read()
    assert console.last_words()[0] == "Kernel panic - not syncing: no init"
    assert len(console.last_words()) == 15


def test_a_machine_without_a_log_has_no_last_lines(tmp_path: Path) -> None:
    for console in (Console(None), Console(tmp_path / "not there yet.log")):
        console.clear()
        assert not console.read()
        assert console.last_words() == []
