"""The nodes, reached over SSH with the lab's own ssh_config: the only door to testinfra.

The ssh_config shares one connection per node (ControlMaster) between people, Ansible and tests. So the next
user needs no login, which takes many seconds on an emulated node. A batch of commands is a script in a root shell that
stays open, so it costs one round trip::

    hosts.batch("worker1", {"routes": "ip -j route", "nat": "iptables-save -c -t nat"})["routes"].out
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import weakref
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import testinfra
from testinfra.host import Host

from hoplab.core.errors import UnavailableError
from hoplab.core.wait import Deadline
from hoplab.observe.script import Output, Script
from hoplab.observe.shell import CONNECT_TIMEOUT, NodeShell, ShellLost

LAB_REMEDY = "`./lab status` shows whether it runs; `ssh -v -F {config} {host}` shows why not"
SSH_FAILED = 255  # ssh's exit code for its own failures


class NodeUnreachable(UnavailableError):
    """A failed login to a node, or a broken connection; ``output`` is what ssh and its proxy command printed."""

    def __init__(self, message: str, *, remedy: str = "", output: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.output = output


REASONS = re.compile(
    r"(?:[\w.-]+@[\w.-]+: )?(?:Connection refused|No route to host|Network is unreachable|Connection reset by peer"
    r"|Permission denied.*|Host key verification failed.*|.*timed out.*)"
)


def failure_reason(printed: str) -> str:
    """Return why ssh failed: the proxy command's message where there is one, as ssh's own last line says less.

    >>> failure_reason("socat[7] E connect(5, AF=2 10.0.0.1:22, 16): Connection refused\\nConnection closed by UNKNOWN")
    'Connection refused'
    """
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    known = (REASONS.search(line.rpartition("): ")[2]) for line in lines)
    return next((found[0] for found in known if found), lines[-1] if lines else "ssh does not say why")


class _Shells:
    """Open shells on nodes that no script runs in now; a script takes one of them, or opens another one."""

    def __init__(self, ssh_config: Path) -> None:
        self._ssh_config = ssh_config
        self._idle: dict[str, list[NodeShell]] = {}
        self._lock = Lock()
        weakref.finalize(self, _close, self._idle)

    def run(self, host: str, script: Script, deadline: Deadline | None, *, sudo: bool) -> str:
        """Run a script on a host of the ssh_config; raise ShellLost where that fails."""
        with self._lock:
            idle = self._idle.setdefault(host, [])
            shell = idle.pop() if idle else None
        if shell and not shell.alive:
            shell.close()
            shell = None
        shell = shell or NodeShell(host, self._ssh_config, sudo=sudo)
        try:
            printed = shell.run(script.text, deadline)
        except BaseException:
            shell.close()
            raise
        with self._lock:
            idle.append(shell)
        return printed

    def close(self) -> None:
        """End all idle shells."""
        _close(self._idle)


def _close(idle: dict[str, list[NodeShell]]) -> None:
    for shells in idle.values():
        while shells:
            shells.pop().close()


class Hosts:
    """The nodes of one lab, by name."""

    def __init__(
        self,
        names: Iterable[str],
        ssh_config: Path,
        shells: _Shells | None = None,
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
        self._shells = shells or _Shells(ssh_config)

    def __getitem__(self, name: str) -> Host:
        """Return the node as a testinfra host: its commands run as root."""
        return testinfra.get_host(f"ssh://{self._alias(name)}", **self._options(name))

    def _alias(self, name: str) -> str:
        return self._aliases.get(name, name)

    def _options(self, name: str) -> dict[str, Any]:
        return {
            "ssh_config": str(self._ssh_config),
            "sudo": name not in self._roots,
            "timeout": CONNECT_TIMEOUT,
            "controlpersist": 0,  # the ssh_config sets the sharing of connections
        }

    def close(self) -> None:
        """End the shells that stay open on the nodes."""
        self._shells.close()

    def only(self, names: Iterable[str]) -> Hosts:
        """Return the door to some of the nodes."""
        return Hosts(
            names, self._ssh_config, self._shells, aliases=self._aliases, roots=self._roots, remedy=self._remedy
        )

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
        try:
            printed = self._shells.run(self._alias(name), script, deadline, sudo=name not in self._roots)
        except ShellLost as lost:
            if lost.late:
                self._forget(name)
            elif lost.code != SSH_FAILED:
                raise self._ended_early(name, f"({lost.code}): {lost.errors.strip()[-300:]}") from None
            late = f"timed out: no answer after {deadline.seconds:.0f} s" if lost.late and deadline else ""
            errors = f"{lost.errors.strip()}\n{late}".strip()
            raise NodeUnreachable(
                f"{name} can't be reached over SSH: {failure_reason(errors)}",
                remedy=self._remedy.format(config=self._ssh_config, host=self._alias(name)),
                output=errors,
            ) from None
        if script.end not in printed:
            raise self._ended_early(name, f"after {printed.strip()[-300:]!r}")
        return script.split(printed)

    def _ended_early(self, name: str, how: str) -> NodeUnreachable:
        return NodeUnreachable(
            f"a batch of commands on {name} ended early {how}",
            remedy=f"log in to it: ssh -F {self._ssh_config} {self._alias(name)}",
        )

    def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]:
        """Run the same batch on all nodes at the same time."""
        with ThreadPoolExecutor(max_workers=max(1, len(self.names))) as pool:
            found = pool.map(lambda name: self.batch(name, commands, in_pods=in_pods), self.names)
            return dict(zip(self.names, found, strict=True))

    def answers(
        self, commands: Mapping[str, str], *, in_pods: Mapping[str, str], deadline: Deadline | None = None
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
