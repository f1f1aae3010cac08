"""A root shell on a node that stays open: a script in it costs neither an SSH session nor sudo.

Both take seconds on an emulated node, more than most scripts. A shell runs one script at a time::

    shell = NodeShell("worker1", ssh_config)
    shell.run(script.text)     # what the script printed
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import subprocess
import time
from pathlib import Path

from hoplab.core.wait import Deadline
from hoplab.observe.script import PROLOGUE

CONNECT_TIMEOUT = 120  # seconds for a login: the login grace time of the node's sshd
LAST_WORDS = 4096  # bytes of standard error that are kept
CHUNK = 1 << 16
STOP_S = 5.0  # seconds for ssh to end once its input is closed


class ShellLost(Exception):
    """A shell that ended, or did not answer in time; ``printed`` and ``errors`` are what it had printed."""

    def __init__(self, printed: str, errors: str, *, code: int | None, late: bool = False) -> None:
        super().__init__(errors)
        self.printed, self.errors, self.code, self.late = printed, errors, code, late


class NodeShell:
    """One ssh process whose remote end is ``sudo /bin/sh``; scripts go to its standard input."""

    def __init__(self, name: str, ssh_config: Path) -> None:
        self._ssh = subprocess.Popen(
            ["ssh", "-F", str(ssh_config), "-o", f"ConnectTimeout={CONNECT_TIMEOUT}", name, "sudo /bin/sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._ssh.stdin and self._ssh.stdout and self._ssh.stderr
        self._in, self._out, self._err = self._ssh.stdin, self._ssh.stdout, self._ssh.stderr
        for pipe in (self._in, self._out, self._err):
            os.set_blocking(pipe.fileno(), False)
        self._pending = f"{PROLOGUE}\n".encode()

    @property
    def alive(self) -> bool:
        """Return whether its ssh process still runs."""
        return self._ssh.poll() is None

    def run(self, script: str, deadline: Deadline | None = None) -> str:
        """Run a script; return what it printed.

        Raise ShellLost when the shell ends, or when the script has not ended at the deadline. A lost shell is closed.
        """
        over = f"@{secrets.token_hex(8)} over"
        # A subshell, so that nothing in the script ends or changes the shell, or reads the next script.
        self._pending += f"(\n{script}\n) </dev/null\nprintf '\\n%s\\n' '{over}'\n".encode()
        wanted, printed, errors = f"\n{over}\n".encode(), bytearray(), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._in, selectors.EVENT_WRITE)
            selector.register(self._out, selectors.EVENT_READ)
            selector.register(self._err, selectors.EVENT_READ)
            while not printed.endswith(wanted):
                ready = selector.select(deadline.left() if deadline else None)
                if deadline and not ready and not deadline.left():
                    raise self._lost(printed, errors, late=True)
                for key, _ in ready:
                    if key.fileobj is self._in:
                        if not self._write():
                            selector.unregister(self._in)
                        continue
                    chunk = os.read(key.fd, CHUNK)
                    (printed if key.fileobj is self._out else errors).extend(chunk)
                    if not chunk and key.fileobj is self._out:
                        raise self._lost(printed, errors)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    del errors[:-LAST_WORDS]
        return printed.removesuffix(wanted).decode(errors="replace")

    def _write(self) -> bool:
        """Write what the pipe takes; return whether something is left to write."""
        try:
            written = os.write(self._in.fileno(), self._pending[:CHUNK])
        except BrokenPipeError:
            written = len(self._pending)  # the end of its output tells why
        self._pending = self._pending[written:]
        return bool(self._pending)

    def _lost(self, printed: bytearray, errors: bytearray, *, late: bool = False) -> ShellLost:
        """Close the shell and return the error that says how it was lost."""
        if late:
            self._ssh.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._ssh.wait(STOP_S)
        errors.extend(self._last_errors())
        self.close()
        return ShellLost(
            printed.decode(errors="replace"),
            errors.decode(errors="replace"),
            code=self._ssh.returncode,
            late=late,
        )

    def _last_errors(self) -> bytes:
        """Return what is left of standard error; a proxy command may keep it open for minutes."""
        found, until = b"", time.monotonic() + 0.5
        with selectors.DefaultSelector() as selector:
            selector.register(self._err, selectors.EVENT_READ)
            while selector.select(max(0.0, until - time.monotonic())):
                chunk = os.read(self._err.fileno(), CHUNK)
                if not chunk:
                    break
                found += chunk
        return found

    def close(self) -> None:
        """End the shell, whose input ends, and its ssh process."""
        for pipe in (self._in, self._out, self._err):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._ssh.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()
