"""Commands in a running machine through its guest agent (qemu-guest-agent), without network, login and its keys.

A login takes ten seconds and more on an emulated machine, the agent's answer less than one.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import libvirt
import libvirt_qemu

from hoplab.core.errors import EngineError, UnavailableError
from hoplab.core.wait import HOST, Expired, NotYet, Timing
from hoplab.host.machines import connected, lookup

ANSWER_S = 10  # seconds for one answer of an agent that runs; it does nothing long in one
POLL_S = 0.2  # each question takes an emulated machine some milliseconds from what it waits for


class AgentError(UnavailableError):
    """No agent answers: none runs in the machine, or the machine does not."""


@dataclass(frozen=True)
class Done:
    """A command that ended; ``code`` is -1 where a signal ended it."""

    code: int
    out: str
    err: str


class Agent:
    """The guest agent of one machine."""

    def __init__(self, domain: libvirt.virDomain, timing: Timing = HOST) -> None:
        self._domain, self._timing = domain, timing

    def clock(self) -> float:
        """Return the time of the machine's clock, in seconds since 1970; raise AgentError."""
        return int(self._execute("guest-get-time")) / 1e9

    def run(self, script: str, given: str = "", limit_s: float = 60.0) -> Done:
        """Run a shell script as root with ``given`` as its input; raise AgentError, also after ``limit_s``, scaled."""
        begun = self._execute(
            "guest-exec",
            {
                "path": "/bin/sh",
                "arg": ["-c", script],
                "input-data": b64encode(given.encode()).decode(),
                "capture-output": True,
            },
        )

        def ended() -> dict[str, Any] | NotYet:
            found: dict[str, Any] = self._execute("guest-exec-status", {"pid": begun["pid"]})
            return found if found["exited"] else NotYet("it runs")

        try:
            found = self._timing.until(ended, limit_s, poll_s=POLL_S)
        except Expired as expired:
            raise self._error(f"a command has not ended after {expired.seconds:.0f} s") from None
        return Done(found.get("exitcode", -1), _text(found, "out-data"), _text(found, "err-data"))

    def _execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        document = json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})})
        try:
            return json.loads(libvirt_qemu.qemuAgentCommand(self._domain, document, ANSWER_S, 0))["return"]
        except libvirt.libvirtError as error:
            raise self._error(str(error)) from error

    def _error(self, why: str) -> AgentError:
        return AgentError(f"the guest agent of {self._domain.name()} does not answer: {why}")


@contextmanager
def opened(uri: str, name: str) -> Iterator[Agent]:
    """Open a connection to the agent of a machine, by libvirt's name of that; raise AgentError."""
    try:
        with connected(uri) as connection:
            yield Agent(lookup(connection, name))
    except (libvirt.libvirtError, EngineError) as error:
        raise AgentError(f"the guest agent of {name} can't be reached: {error}") from error


def _text(found: dict[str, Any], key: str) -> str:
    return b64decode(found.get(key, "")).decode(errors="replace")
