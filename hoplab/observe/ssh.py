"""The nodes, reached over SSH with the lab's own ssh_config: the only door to testinfra.

The ssh_config shares one connection per node (ControlMaster) between people, Ansible and tests. So the next
user needs no login, which takes many seconds on an emulated node. A batch of commands then costs one round trip::

    hosts.batch("worker1", {"routes": "ip -j route", "nat": "iptables-save -c -t nat"})["routes"].out
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import testinfra
from testinfra.host import Host

from hoplab.core.errors import LabError
from hoplab.observe.script import Output, Script

CONNECT_TIMEOUT = 120  # seconds for a login: the login grace time of the node's sshd


class NodeUnreachable(LabError):
    """A failed login to a node, or a broken connection."""


class Hosts:
    """The nodes of one lab, by name."""

    def __init__(
        self,
        names: Iterable[str],
        ssh_config: Path,
        *,
        aliases: Mapping[str, str] | None = None,
        roots: Collection[str] = (),
    ) -> None:
        """Take the names of nodes; ``aliases`` are those in the ssh_config that differ, ``roots`` need no sudo."""
        self.names = tuple(names)
        self._ssh_config = ssh_config
        self._aliases = aliases or {}
        self._roots = roots

    def __getitem__(self, name: str) -> Host:
        """Return the node as a testinfra host: its commands run as root."""
        return testinfra.get_host(
            f"ssh://{self._aliases.get(name, name)}",
            ssh_config=str(self._ssh_config),
            sudo=name not in self._roots,
            timeout=CONNECT_TIMEOUT,
            controlpersist=0,  # the ssh_config sets the sharing of connections
        )

    def batch(
        self, name: str, commands: Mapping[str, str], *, in_pods: Mapping[str, str] | None = None
    ) -> dict[str, Output]:
        """Run commands on a node in one round trip; return their outputs by the given keys.

        ``in_pods`` run in each pod's network namespace: their outputs have the keys ``cni-1b4e.../routes``.
        """
        script = Script(commands, in_pods or {})
        try:
            result = self[name].run(script.text)
        except RuntimeError as error:  # ssh itself failed: the exception has its output
            lines = error.args[0].stderr.strip().splitlines()
            raise NodeUnreachable(
                f"{name} can't be reached over SSH: {lines[-1] if lines else 'ssh does not say why'}",
                remedy=f"`./lab status` shows whether it runs; `ssh -v -F {self._ssh_config} {name}` shows why not",
            ) from None
        if script.end not in result.stdout:
            raise NodeUnreachable(
                f"a batch of commands on {name} ended early ({result.rc}): {result.stderr.strip()[-300:]}",
                remedy=f"log in to it: ssh -F {self._ssh_config} {name}",
            )
        return script.split(result.stdout)

    def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]:
        """Run the same batch on all nodes at the same time."""
        with ThreadPoolExecutor(max_workers=max(1, len(self.names))) as pool:
            found = pool.map(lambda name: self.batch(name, commands, in_pods=in_pods), self.names)
            return dict(zip(self.names, found, strict=True))
