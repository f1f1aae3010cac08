"""This machine's end of a relay: the messages to it, and the frames that it sends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import shlex
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoplab.observe.live import relay
from hoplab.observe.live.clocks import ClockOffset, Sample
from hoplab.observe.live.places import Found
from hoplab.observe.shell import CONNECT_TIMEOUT, LAST_WORDS

PROGRAM = Path(relay.__file__).read_bytes()
# Reads the program, and not one byte of what follows, from standard input: so a list of processes shows only this
LOADER = f"""import os
text = b""
while len(text) < {len(PROGRAM)}:
    piece = os.read(0, {len(PROGRAM)} - len(text))
    if not piece: raise SystemExit(1)
    text += piece
exec(compile(text, "hoplab-capture", "exec"))"""
PIPE_SIZE = 1 << 20  # bytes that wait here while a packet is written
STOP_S = 4.0  # for the relay, or ssh, to end: longer than the relay waits for its captures


def over_ssh(alias: str, ssh_config: Path) -> list[str]:
    """Return the command that starts a relay on a host of the ssh_config, as root."""
    words = ["ssh", "-F", str(ssh_config), "-o", f"ConnectTimeout={CONNECT_TIMEOUT}", alias]
    return [*words, f'sudo python3 -ISc {shlex.quote(LOADER)} "$SSH_CONNECTION"']


def on_this_machine() -> list[str]:
    """Return the command that starts a relay on this machine."""
    return [sys.executable, "-ISc", LOADER]


@dataclass(frozen=True)
class Frame:
    """What a relay sent about one of its captures: packets, errors or its end."""

    kind: int  # relay.PACKETS, SAID or ENDED
    number: int  # of the capture
    payload: bytes


class NodeStream:
    """A running relay. Nothing here waits: `read` returns what has arrived."""

    def __init__(self, name: str, command: Iterable[str], *, clock: Callable[[], int] = time.time_ns) -> None:
        self.name = name  # of the node, "" for this machine
        self.offset = ClockOffset()
        self.answers = 0  # about the clock
        self.found: Found | None = None
        self.open = True  # its output has not ended
        self._clock = clock
        self._asked: dict[int, int] = {}
        self._asked_ever = 0
        self._buffer = bytearray()
        self._errors = bytearray()
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the process that reads this: it ends the captures in order
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._in, self._out, self._err = self._process.stdin, self._process.stdout, self._process.stderr
        for pipe in (self._out, self._err):
            os.set_blocking(pipe.fileno(), False)
        with contextlib.suppress(OSError):  # more than an ordinary user may have
            fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        self._write(PROGRAM)

    def fileno(self) -> int:
        """Return the descriptor that is readable when the relay has sent something."""
        return self._out.fileno()

    def ask_clock(self) -> None:
        """Request the time there; the answer improves ``offset``."""
        number = self._asked_ever % 0x10000
        self._asked_ever += 1
        self._asked[number] = self._clock()
        self._tell({"do": "clock", "id": number})

    def look(self, addresses: Iterable[str], *, links: bool) -> None:
        """Request the namespaces with these addresses and the interfaces there; the answer is ``found``."""
        self._tell({"do": "look", "addresses": list(addresses), "links": links})

    def start(self, number: int, netns: str, command: Iterable[str], given: str | None = None) -> None:
        """Start a capture in a namespace, or another program; frames with this number are about it.

        ``given`` is the beginning of its input, which stays open until the relay ends.
        """
        message = {"do": "start", "id": number, "netns": netns, "command": list(command)}
        self._tell(message if given is None else {**message, "input": given})

    def do(self, message: Mapping[str, Any]) -> None:
        """Let the relay do what a message says; ``{"do": "extend"}`` teaches it more."""
        self._tell(message)

    def _tell(self, message: Mapping[str, Any]) -> None:
        self._write(json.dumps(message).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # the end of its output tells why
            self._in.write(data)
            self._in.flush()

    def read(self) -> list[Frame]:
        """Return the frames that have arrived; ``open`` is False once there will be no more."""
        try:
            piece = os.read(self._out.fileno(), PIPE_SIZE)
        except BlockingIOError:
            return []
        if not piece:
            self.open = False
            return []
        received = self._clock()
        self._buffer += piece
        frames, at = [], 0
        while at + relay.FRAME.size <= len(self._buffer):
            kind, number, size = relay.FRAME.unpack_from(self._buffer, at)
            end = at + relay.FRAME.size + size
            if end > len(self._buffer):
                break
            frame = Frame(kind, number, bytes(self._buffer[at + relay.FRAME.size : end]))
            at = end
            if not self._answered(frame, received):
                frames.append(frame)
        del self._buffer[:at]
        return frames

    def _answered(self, frame: Frame, received: int) -> bool:
        """Take the answer to a question; return whether the frame is one."""
        if frame.kind == relay.CLOCK:
            sent = self._asked.pop(frame.number, None)
            if sent is None:
                return True
            self.answers += 1
            if sent <= received:  # otherwise this machine's own clock was set meanwhile
                (node,) = struct.unpack("!q", frame.payload)
                self.offset.add(Sample(sent, node, received))
            return True
        if frame.kind == relay.FOUND:
            answer = json.loads(frame.payload)
            answer["devices"] = {netns: tuple(names) for netns, names in answer["devices"].items()}
            self.found = Found(**answer)
            return True
        return False

    def errors(self) -> str:
        """Return what ssh, or the relay, has printed on standard error."""
        with contextlib.suppress(OSError, ValueError):
            while piece := os.read(self._err.fileno(), LAST_WORDS):
                self._errors += piece
                del self._errors[:-LAST_WORDS]
        return self._errors.decode(errors="replace")

    def finish(self) -> None:
        """End the input of the relay: it ends its captures, sends what they print at last, and ends."""
        with contextlib.suppress(OSError):
            self._in.close()

    def exit_code(self) -> int | None:
        """Return the exit code of the process whose output has ended; None where it runs on."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(STOP_S)
        return None

    def close(self) -> None:
        """End the relay and wait for it. It gets a while to end its captures where it may have some."""
        self.finish()
        patience = time.monotonic() + STOP_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while self.open and self.found and selector.select(max(0.0, patience - time.monotonic())):
                self.read()
        if self.open:
            self._process.kill()
        self.exit_code()
        self._process.kill()
        self._process.wait()
        self.open = False
        self.errors()
        for pipe in (self._out, self._err):
            pipe.close()
