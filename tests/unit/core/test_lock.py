"""The lock: who holds it is said, and it is free when its holder is gone."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hoplab.core.errors import BusyError
from hoplab.core.lock import locked


def test_a_second_command_gets_the_name_of_the_first(tmp_path: Path) -> None:
    lock = tmp_path / ".lab" / "dev.lock"
    with locked(lock, "lab up"), pytest.raises(BusyError) as busy, locked(lock, "lab destroy"):
        pass
    assert busy.value.remedy == "try again when it has ended"
    words = busy.value.message.split()
    assert " ".join(words[:-1]).startswith("dev is being worked on by `lab up` (pid ")
    assert len(words[-1].split(":")) == 3  # since HH:MM:SS


def test_the_lock_leaves_no_file_and_can_be_taken_again(tmp_path: Path) -> None:
    lock = tmp_path / "dev.lock"
    for _ in range(2):
        with locked(lock, "lab up"):
            assert lock.exists()
        assert not lock.exists()


def test_the_lock_is_released_when_its_command_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path / "dev.lock", "lab up"):
        raise RuntimeError
    with locked(tmp_path / "dev.lock", "lab up"):
        pass


def test_a_waiting_command_reports_it_and_goes_on_when_the_first_ends(tmp_path: Path) -> None:
    lock = tmp_path / "dev.lock"
    said: list[str] = []
    waiting, second_in = threading.Event(), threading.Event()

    def wait(text: str) -> None:
        said.append(text)
        waiting.set()

    def second() -> None:
        with locked(lock, "lab status", wait=wait):
            second_in.set()

    thread = threading.Thread(target=second)
    with locked(lock, "lab up"):
        thread.start()
        assert waiting.wait(5)
        assert not second_in.is_set()
    thread.join(5)
    assert second_in.is_set()
    assert "`lab up`" in said[0]
    assert said[0].endswith("; waiting for it to end")


def test_a_dead_holders_lock_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "dev.lock"
    program = "import sys, time; from pathlib import Path; from hoplab.core.lock import locked\n"
    program += "with locked(Path(sys.argv[1]), 'lab up'): print('in', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", program, str(lock)], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"in\n"
        with pytest.raises(BusyError, match=f"`lab up` \\(pid {holder.pid}\\)"), locked(lock, "lab up"):
            pass
        holder.kill()
        holder.wait()
    with locked(lock, "lab up"):
        pass


def test_a_holder_that_has_not_written_its_name_yet(tmp_path: Path) -> None:
    lock = tmp_path / "dev.lock"
    with locked(lock, "lab up"):
        lock.write_text("")
        with pytest.raises(BusyError, match=r"by another command$"), locked(lock, "lab up"):
            pass
