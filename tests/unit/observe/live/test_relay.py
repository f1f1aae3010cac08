"""The program on a node, as a process of this machine: what it answers, and that it leaves nothing running."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from hoplab.core.wait import NotYet, until
from hoplab.observe.live import relay

TEXT = Path(relay.__file__).read_text()


@contextmanager
def running(silence_s: float = 60.0) -> Iterator[subprocess.Popen[bytes]]:
    text = TEXT.replace("SILENCE_S = 60.0", f"SILENCE_S = {silence_s}")
    command = [sys.executable, "-IS", "-c", text, "1.1.1.1 5 2.2.2.2 22"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[bytes], *messages: object) -> None:
    assert process.stdin
    process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
    process.stdin.flush()


def frames(out: IO[bytes] | None) -> Iterator[tuple[int, int, bytes]]:
    assert out
    while head := out.read(relay.FRAME.size):
        kind, number, size = relay.FRAME.unpack(head)
        yield kind, number, out.read(size)


def start(number: int, *words: str) -> dict[str, object]:
    return {"do": "start", "id": number, "netns": "", "command": list(words)}


def gone(pid: int) -> None:
    until(lambda: NotYet(f"{pid} runs") if Path(f"/proc/{pid}").exists() else True, 30, poll_s=0.02)


def test_it_answers_and_tells_what_a_capture_prints_and_how_it_ends() -> None:
    with running() as process:
        tell(process, {"do": "clock", "id": 7}, {"do": "look", "addresses": [], "links": False})
        tell(process, start(3, "sh", "-c", "echo out; echo err >&2; exit 5"), start(4, "no-such-program"))
        found = frames(process.stdout)
        kind, number, payload = next(found)
        assert (kind, number) == (relay.CLOCK, 7) and struct.unpack("!q", payload)[0] > 1_700_000_000 * 10**9
        kind, number, payload = next(found)
        look = json.loads(payload)
        assert kind == relay.FOUND and look.pop("connection") == "1.1.1.1 5 2.2.2.2 22"
        assert "lo" in look.pop("devices")[""]
        assert look == {"namespaces": {}, "links": {}, "trouble": ""}
        rest = [next(found) for _ in range(5)]
        assert [frame for frame in rest if frame[1] == 4] == [
            (relay.SAID, 4, b"no-such-program: No such file or directory\n"),
            (relay.ENDED, 4, struct.pack("!i", relay.NOT_FOUND)),
        ]
        of_three = [frame for frame in rest if frame[1] == 3]
        assert sorted(of_three[:2]) == [(relay.PACKETS, 3, b"out\n"), (relay.SAID, 3, b"err\n")]
        assert of_three[2] == (relay.ENDED, 3, struct.pack("!i", 5))
        assert process.stdin
        process.stdin.close()
        assert process.wait(30) == 0


def test_at_the_end_of_its_input_captures_end_and_their_last_words_arrive() -> None:
    with running() as process:
        tell(process, start(0, "sh", "-c", "trap 'echo last; exit 0' TERM; echo $$; while :; do sleep 0.01; done"))
        found = frames(process.stdout)
        pid = int(next(found)[2])
        assert process.stdin
        process.stdin.close()
        assert list(found) == [(relay.PACKETS, 0, b"last\n"), (relay.ENDED, 0, struct.pack("!i", 0))]
        assert process.wait(30) == 0
        gone(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_its_captures(number: signal.Signals) -> None:
    with running() as process:
        tell(process, start(0, "sh", "-c", "echo $$; exec sleep 60"))
        pid = int(next(frames(process.stdout))[2])
        process.send_signal(number)
        assert process.wait(30) == 1
        gone(pid)


def test_silence_ends_it() -> None:
    with running(silence_s=0.5) as process:
        tell(process, start(0, "sh", "-c", "echo $$; exec sleep 60"))
        pid = int(next(frames(process.stdout))[2])
        assert process.wait(30) == 0
        gone(pid)


def test_it_ends_where_nobody_reads() -> None:
    with running(silence_s=0.5) as process:
        tell(process, start(0, "sh", "-c", "echo $$; exec cat /dev/zero"))
        pid = int(next(frames(process.stdout))[2][:12].split()[0])
        assert process.wait(30) == 1
        gone(pid)


def test_it_ends_where_its_reader_is_gone() -> None:
    with running() as process:
        tell(process, start(0, "sh", "-c", "echo $$; exec sleep 60"))
        assert process.stdout
        pid = int(next(frames(process.stdout))[2])
        process.stdout.close()
        tell(process, {"do": "clock", "id": 1})
        assert process.wait(30) == 1
        gone(pid)


def test_addresses_of_a_namespace_are_read_without_a_process() -> None:
    assert "127.0.0.1" in relay.own_addresses()
    assert set(relay.devices()) == set(os.listdir("/sys/class/net")) - {"bonding_masters"}


def test_it_learns_more_and_a_program_with_an_input_ends_with_the_relay() -> None:
    text = "def more(relay, message):\n    relay.send(9, message['id'], str(CHUNK).encode())\nWORK['more'] = more\n"
    with running() as process:
        tell(process, {"do": "extend", "text": text}, {"do": "more", "id": 5})
        found = frames(process.stdout)
        assert next(found) == (9, 5, str(relay.CHUNK).encode())
        tell(process, {**start(1, "sh", "-c", "trap '' TERM; echo $$; cat"), "input": "first\n"})
        said = b""
        while b"first\n" not in said:
            said += next(found)[2]
        pid = int(said.split()[0])
        process.kill()  # `sh` ignores SIGTERM, and gets no other signal: its input ends
        process.wait()
        gone(pid)


def test_a_program_with_an_input_may_clean_up_when_nobody_reads_any_more(tmp_path: Path) -> None:
    with running() as process:
        script = "trap 'exec >/dev/null; sleep 0.2; rm \"$0\"; exit 0' TERM; echo $$; while :; do sleep 0.01; done"
        file = tmp_path / "made"
        file.touch()
        tell(process, {**start(0, "sh", "-c", script, str(file)), "input": ""})
        pid = int(next(frames(process.stdout))[2])
        process.stdout.close()  # type: ignore[union-attr]
        tell(process, {"do": "clock", "id": 1})
        assert process.wait(30) == 1
        gone(pid)
        assert not file.exists()
