"""The nodes, reached over SSH with the lab's own ssh_config: the only door to testinfra.

The ssh_config shares one connection per node (ControlMaster) between people, Ansible and tests. So the next
user needs no login, which takes many seconds on an emulated node. A batch of commands then costs one round trip::

    hosts.batch("worker1", {"routes": "ip -j route", "nat": "iptables-save -c -t nat"})["routes"].out
"""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import testinfra
from testinfra.backend.base import CommandResult
from testinfra.backend.ssh import SshBackend
from testinfra.host import Host

from hoplab.core.errors import UnavailableError
from hoplab.core.wait import Deadline
from hoplab.observe.script import Output, Script

CONNECT_TIMEOUT = 120  # seconds for a login: the login grace time of the node's sshd
LAB_REMEDY = "`./lab status` shows whether it runs; `ssh -v -F {config} {host}` shows why not"
SSH_FAILED = 255  # ssh's exit code for its own failures


class NodeUnreachable(UnavailableError):
    """A failed login to a node, or a broken connection; ``output`` is what ssh and its proxy command printed."""

    def __init__(self, message: str, *, remedy: str = "", output: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.output = output


class _BoundedSsh(SshBackend):  # type: ignore[misc]  # has no types
    """testinfra's backend, whose command is killed at a deadline: ssh itself bounds the login only."""

    def __init__(self, *args: Any, deadline: Deadline, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline = deadline

    def run_local(self, command: str, *args: str) -> CommandResult:
        """Run ssh without a shell between, so that the kill ends ssh."""
        line = self.quote(command, *args)
        process = subprocess.Popen(
            shlex.split(line), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while True:
            left = self._deadline.left()
            try:
                out, err = process.communicate(timeout=left or 0.01)
                return self.result(process.returncode, self.encode(line), out, err)
            except subprocess.TimeoutExpired:
                if not self._deadline.left():
                    late = f"timed out: no answer after {self._deadline.seconds:.0f} s"
                    return self.result(SSH_FAILED, self.encode(line), b"", _killed(process) + late.encode())


def _killed(process: subprocess.Popen[bytes]) -> bytes:
    """End ssh and return what it printed as errors; its proxy command may keep the pipe open for minutes."""
    process.kill()
    process.wait()
    try:
        return process.communicate(timeout=0.5)[1]
    except subprocess.TimeoutExpired as expired:
        return expired.stderr or b""
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


REASONS = re.compile(
    r"(?:[\w.-]+@[\w.-]+: )?(?:Connection refused|No route to host|Network is unreachable|Connection reset by peer"
    r"|Permission denied.*|Host key verification failed.*|.*timed out.*)"
)


def _reason(printed: str) -> str:
    """Return why ssh failed: the proxy command's message where there is one, as ssh's own last line says less.

    >>> _reason("socat[7] E connect(5, AF=2 10.0.0.1:22, 16): Connection refused\\nConnection closed by UNKNOWN")
    'Connection refused'
    """
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    known = (REASONS.search(line.rpartition("): ")[2]) for line in lines)
    return next((found[0] for found in known if found), lines[-1] if lines else "ssh does not say why")


class Hosts:
    """The nodes of one lab, by name."""

    def __init__(
        self,
        names: Iterable[str],
        ssh_config: Path,
        *,
        aliases: Mapping[str, str] | None = None,
        roots: Collection[str] = (),
        remedy: str = LAB_REMEDY,
    ) -> None:
        """Take the names of nodes; ``aliases`` are those in the ssh_config that differ, ``roots`` need no sudo.

        ``remedy`` is for a node that cannot be reached; {config} and {host} are filled in.
        """
        self.names = tuple(names)
        self._ssh_config = ssh_config
        self._aliases = aliases or {}
        self._roots = roots
        self._remedy = remedy

    def __getitem__(self, name: str) -> Host:
        """Return the node as a testinfra host: its commands run as root."""
        return testinfra.get_host(f"ssh://{self._alias(name)}", **self._options(name))

    def _bounded(self, name: str, deadline: Deadline) -> Host:
        return Host(_BoundedSsh(self._alias(name), deadline=deadline, **self._options(name)))

    def _alias(self, name: str) -> str:
        return self._aliases.get(name, name)

    def _options(self, name: str) -> dict[str, Any]:
        return {
            "ssh_config": str(self._ssh_config),
            "sudo": name not in self._roots,
            "timeout": CONNECT_TIMEOUT,
            "controlpersist": 0,  # the ssh_config sets the sharing of connections
        }

    def only(self, names: Iterable[str]) -> Hosts:
        """Return the door to some of the nodes."""
        return Hosts(names, self._ssh_config, aliases=self._aliases, roots=self._roots, remedy=self._remedy)

    def batch(
        self,
        name: str,
        commands: Mapping[str, str],
        *,
        in_pods: Mapping[str, str] | None = None,
        deadline: Deadline | None = None,
    ) -> dict[str, Output]:
        """Run commands on a node in one round trip; return their outputs by the given keys.

        ``in_pods`` run in each pod's network namespace: their outputs have the keys ``cni-1b4e.../routes``. Raise
        NodeUnreachable where the login fails, or where the node has not answered at the deadline.
        """
        script = Script(commands, in_pods or {})
        host = (
            Host(_BoundedSsh(self._alias(name), deadline=deadline, **self._options(name))) if deadline else self[name]
        )
        try:
            result = host.run(script.text)
        except RuntimeError as error:  # ssh itself failed: the exception has its output
            printed = error.args[0].stderr.strip()
            if deadline and not deadline.left():
                self._forget(name)
            raise NodeUnreachable(
                f"{name} can't be reached over SSH: {_reason(printed)}",
                remedy=self._remedy.format(config=self._ssh_config, host=self._alias(name)),
                output=printed,
            ) from None
        if script.end not in result.stdout:
            raise NodeUnreachable(
                f"a batch of commands on {name} ended early ({result.rc}): {result.stderr.strip()[-300:]}",
                remedy=f"log in to it: ssh -F {self._ssh_config} {self._alias(name)}",
            )
        return script.split(result.stdout)

    def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]:
        """Run the same batch on all nodes at the same time."""
        with ThreadPoolExecutor(max_workers=max(1, len(self.names))) as pool:
            found = pool.map(lambda name: self.batch(name, commands, in_pods=in_pods), self.names)
            return dict(zip(self.names, found, strict=True))

    def answers(
        self, commands: Mapping[str, str], *, in_pods: Mapping[str, str], deadline: Deadline
    ) -> dict[str, dict[str, Output] | NodeUnreachable]:
        """Run the same batch on all nodes at the same time; return the outputs of each, or why it gave none."""

        def ask(name: str) -> dict[str, Output] | NodeUnreachable:
            try:
                return self.batch(name, commands, in_pods=in_pods, deadline=deadline)
            except NodeUnreachable as error:
                return error

        with ThreadPoolExecutor(max_workers=max(1, len(self.names))) as pool:
            return dict(zip(self.names, pool.map(ask, self.names), strict=True))

    def _forget(self, name: str) -> None:
        """End the shared connection to a node, which a later login would wait for."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                ["ssh", "-F", str(self._ssh_config), "-O", "exit", self._alias(name)],
                capture_output=True,
                check=False,
                timeout=5,
            )
