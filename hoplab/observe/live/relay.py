"""The program on a node that runs tcpdump in namespaces and sends what it prints; hoplab sends it over SSH as text.

It needs nothing but Python 3.8, and leaves no file. It ends, with its captures, when its input ends, when its output is
not read, or when nothing has arrived for SILENCE_S seconds: the other end sends a question every two.

In, a JSON object a line::

    {"do": "clock", "id": 7}                                        answered by CLOCK
    {"do": "look", "addresses": ["10.244.1.3"], "links": true}      answered by FOUND
    {"do": "start", "id": 0, "netns": "cni-1b4e", "command": [...]} then PACKETS and SAID, at last ENDED
    {"do": "extend", "text": "..."}                                 Python that adds to WORK: what else it does

``start`` may have an ``input``, the first bytes of a standard input that stays open as long as the relay runs. So a
program that ends with its input ends with the relay, however that ends.

Out, frames: kind, id, number of bytes, and so many bytes.
"""

from __future__ import annotations

import glob
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

CLOCK, FOUND, PACKETS, SAID, ENDED = 1, 2, 3, 4, 5
FRAME = struct.Struct("!BHI")  # kind, id, bytes
SILENCE_S = 60.0
FLUSH_S = 0.3  # for tcpdump to read what the kernel holds for it, before it is told to end
STOP_S = 3.0  # for its numbers, and for its end
CHUNK = 1 << 16
NAMESPACES = "/run/netns"
CLONE_NEWNET = 0x40000000  # linux/sched.h
NOT_FOUND = 127
WORK: dict[str, Callable[[Relay, dict[str, Any]], None]] = {}  # by what a message says to do


class NobodyReads(Exception):
    """The other end is gone, or has read nothing for SILENCE_S seconds."""


class Relay:
    """Captures on one host, driven by lines of JSON on standard input."""

    def __init__(self, connection: str) -> None:
        self.connection = connection  # of SSH: addresses and ports of both ends
        self.selector = selectors.DefaultSelector()
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.open_pipes: dict[int, int] = {}  # of each capture
        self.given = b""
        self.heard = time.monotonic()
        self.tell_at = self.stop_by = 0.0  # when tcpdump gets SIGTERM, and SIGKILL; 0.0 until the end

    def run(self) -> None:
        """Do what the lines say until the input ends and all captures have ended."""
        os.set_blocking(0, False)
        os.set_blocking(1, False)
        self.selector.register(0, selectors.EVENT_READ)
        try:
            while not self.stop_by or (self.running and time.monotonic() < self.stop_by):
                for key, _ in self.selector.select(0.05 if self.stop_by else SILENCE_S / 4):
                    if key.data is None:
                        self.listen()
                    elif callable(key.data):
                        key.data()
                    else:
                        self.pass_on(key.fd, *key.data)
                now = time.monotonic()
                if not self.stop_by and now - self.heard > SILENCE_S:
                    self.stop()
                if self.tell_at and now > self.tell_at:
                    self.tell_at = 0.0
                    for process in self.running.values():
                        process.terminate()
        finally:
            end(list(self.running.values()))

    def listen(self) -> None:
        """Read lines and do what they say."""
        piece = os.read(0, CHUNK)
        if not piece:
            self.selector.unregister(0)
            self.stop()
            return
        self.heard = time.monotonic()
        *lines, self.given = (self.given + piece).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["do"] == "clock":
                self.send(CLOCK, message["id"], struct.pack("!q", time.time_ns()))
            elif message["do"] == "look":
                found = look(message["addresses"], message["links"])
                self.send(FOUND, 0, json.dumps({"connection": self.connection, **found}).encode())
            elif message["do"] == "extend":
                exec(compile(message["text"], "hoplab-relay", "exec"), globals())
            elif message["do"] == "start":
                self.start(message["id"], message["netns"], message["command"], message.get("input"))
            else:
                WORK[message["do"]](self, message)

    def start(self, number: int, netns: str, command: list[str], given: str | None = None) -> None:
        """Start a capture, or another program; ``given`` is the beginning of its input."""
        words = (["nsenter", f"--net={NAMESPACES}/{netns}"] if netns else []) + command
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self.send(SAID, number, f"{words[0]}: {error.strerror}\n".encode())
            self.send(ENDED, number, struct.pack("!i", NOT_FOUND))
            return
        if process.stdin and given:
            process.stdin.write(given.encode())
            process.stdin.flush()
        assert process.stdout and process.stderr
        self.running[number] = process
        self.open_pipes[number] = 2
        self.selector.register(process.stdout, selectors.EVENT_READ, (PACKETS, number))
        self.selector.register(process.stderr, selectors.EVENT_READ, (SAID, number))

    def pass_on(self, pipe: int, kind: int, number: int) -> None:
        """Send what a capture printed, and that it has ended."""
        piece = os.read(pipe, CHUNK)
        if piece:
            self.send(kind, number, piece)
            return
        self.selector.unregister(pipe)
        self.open_pipes[number] -= 1
        if not self.open_pipes[number]:
            code = self.running.pop(number).wait()
            self.send(ENDED, number, struct.pack("!i", code))

    def stop(self) -> None:
        """End all captures soon."""
        self.tell_at = time.monotonic() + FLUSH_S
        self.stop_by = self.tell_at + STOP_S

    def send(self, kind: int, number: int, payload: bytes) -> None:
        """Write a frame; raise NobodyReads where that is not possible for SILENCE_S seconds."""
        left = memoryview(FRAME.pack(kind, number, len(payload)) + payload)
        with selectors.DefaultSelector() as writable:
            writable.register(1, selectors.EVENT_WRITE)
            while left:
                if not writable.select(SILENCE_S):
                    raise NobodyReads
                try:
                    left = left[os.write(1, left) :]
                except BlockingIOError:
                    continue
                except OSError:
                    raise NobodyReads from None


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End processes: one that has an input cleans up when that ends."""
    for process in processes:
        if process.stdin:
            process.stdin.close()
            process.terminate()
        else:
            process.kill()
    until = time.monotonic() + STOP_S
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def look(addresses: list[str], links: bool) -> dict[str, Any]:
    """Return which namespace has each address, and interfaces: names, and with ``links`` the output of iproute2.

    An address of IPv6 is given as 32 hexadecimal digits. The namespace "" is that of the host itself.
    """
    found: dict[str, Any] = {"namespaces": {}, "devices": {"": devices()}, "links": {}, "trouble": ""}
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        for path in sorted(glob.glob(f"{NAMESPACES}/cni-*")) if addresses else []:
            try:
                enter(path)
            except OSError as error:
                found["trouble"] = f"{path}: {error.strerror}"
                continue
            for address in own_addresses().intersection(addresses):
                name = os.path.basename(path)
                found["namespaces"][address] = name
                found["devices"][name] = devices()
    finally:
        setns(here)
        os.close(here)
    for name in found["devices"] if links else []:
        words = ["nsenter", f"--net={NAMESPACES}/{name}"] if name else []
        words += ["ip", "-d", "-j", "link", "show"]
        found["links"][name] = subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout.decode()
    return found


def enter(path: str) -> None:
    """Enter the network namespace of a file; raise OSError where that is not possible."""
    target = os.open(path, os.O_RDONLY)
    try:
        setns(target)
    finally:
        os.close(target)


def setns(descriptor: int) -> None:
    """Enter a network namespace; os.setns came with Python 3.12."""
    if hasattr(os, "setns"):
        os.setns(descriptor, CLONE_NEWNET)
        return
    import ctypes  # noqa: PLC0415 -- takes time to load, and newer versions need it not

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def devices() -> list[str]:
    """Return the names of the interfaces in this namespace; reading /proc takes no process."""
    with open("/proc/self/net/dev") as table:
        return [line.partition(":")[0].strip() for line in table.readlines()[2:]]


def own_addresses() -> set[str]:
    """Return the addresses of this namespace; those of IPv6 as 32 hexadecimal digits."""
    found, last = set(), ""
    with open("/proc/self/net/fib_trie") as trie:
        for line in trie:
            words = line.split()
            if words[:1] == ["|--"]:
                last = words[1]
            elif words == ["/32", "host", "LOCAL"]:
                found.add(last)
    if os.path.exists("/proc/self/net/if_inet6"):
        with open("/proc/self/net/if_inet6") as table:
            found.update(line.split()[0] for line in table)
    return found


def main() -> None:
    """Relay until the other end is done or gone; standard error is shown there."""
    os.environ.update(LC_ALL="C", PATH=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin".lstrip(":"))
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        Relay(sys.argv[1] if len(sys.argv) > 1 else "").run()
    except NobodyReads:
        sys.exit(1)


if __name__ == "__main__":
    main()
