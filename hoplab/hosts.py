"""The nodes, reached over SSH: the only door to testinfra and paramiko.

One connection per node lives as long as ``Hosts``; a batch of commands costs one round trip on it::

    hosts.batch("worker1", {"routes": "ip -j route", "nat": "iptables-save -c -t nat"})["routes"].out
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import paramiko
from testinfra.backend.paramiko import ParamikoBackend
from testinfra.host import Host

from hoplab.batch import Output, Script
from hoplab.errors import LabError

CONNECT_TIMEOUT = 60  # seconds; an emulated node takes several for a key exchange when it is busy
BATCH_TIMEOUT = 120  # seconds without a byte from a running batch

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its threads log tracebacks of what we report ourselves


class NodeUnreachable(LabError):
    """A node could not be logged in to, or the connection broke."""


class _VerifyingBackend(ParamikoBackend):  # type: ignore[misc]  # testinfra has no types
    """testinfra's paramiko backend warns of unknown host keys; this one refuses them, as the ssh_config says."""

    def _load_ssh_config(
        self, client: paramiko.SSHClient, cfg: dict[str, Any], ssh_config: paramiko.SSHConfig, ssh_config_dir: str = "~"
    ) -> None:
        super()._load_ssh_config(client, cfg, ssh_config, ssh_config_dir)
        entry = ssh_config.lookup(self.host.name)
        if (
            "sock" not in cfg
        ):  # no ProxyCommand: connect here, because the name below is an alias and resolves to nothing
            cfg["sock"] = socket.create_connection((cfg["hostname"], cfg["port"]), timeout=self.timeout)
        if alias := entry.get("hostkeyalias"):  # known_hosts has the key under this name, with no port
            cfg |= {"hostname": alias, "port": 22}
        for path in entry.get("userknownhostsfile", "").split():
            client.load_host_keys(path)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        cfg |= {
            "allow_agent": False,
            "look_for_keys": False,
            "banner_timeout": self.timeout,
            "auth_timeout": self.timeout,
        }

    def _exec_command(self, command: bytes) -> tuple[int, bytes, bytes]:
        """As the inherited one, but a node that hangs ends in a TimeoutError."""
        transport = self.client.get_transport()
        if transport is None:
            raise paramiko.SSHException("the connection is closed")
        channel = transport.open_session(timeout=CONNECT_TIMEOUT)
        channel.settimeout(BATCH_TIMEOUT)
        channel.exec_command(command)
        out = b"".join(channel.makefile("rb"))
        err = b"".join(channel.makefile_stderr("rb"))
        return channel.recv_exit_status(), out, err


class Hosts:
    """The nodes of one lab, by name."""

    def __init__(self, names: Iterable[str], ssh_config: Path) -> None:
        self.names = tuple(names)
        self._ssh_config = ssh_config
        self._open: dict[str, Host] = {}

    def __getitem__(self, name: str) -> Host:
        """The node as a testinfra host: its commands run as root."""
        if name not in self._open:
            backend = _VerifyingBackend(name, ssh_config=str(self._ssh_config), timeout=CONNECT_TIMEOUT, sudo=True)
            self._open[name] = Host(backend)
        return self._open[name]

    def batch(
        self, name: str, commands: Mapping[str, str], *, in_pods: Mapping[str, str] | None = None
    ) -> dict[str, Output]:
        """Run commands on a node in one round trip; their outputs by the keys given.

        ``in_pods`` run once in each pod's network namespace too: their outputs have the keys ``cni-1b4e.../routes``.
        """
        script = Script(commands, in_pods or {})
        try:
            _ = self[
                name
            ].backend.client  # log in here: when it fails inside of run, testinfra hides why by trying again
            result = self[name].run(script.text)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise NodeUnreachable(
                f"{name} can't be reached over SSH: {error or type(error).__name__}",
                remedy=f"`./lab status` shows whether it runs; `ssh -v -F {self._ssh_config} {name}` shows why not",
            ) from None
        if script.end not in result.stdout:
            raise NodeUnreachable(
                f"a batch of commands on {name} ended early ({result.rc}): {result.stderr.strip()[-300:]}",
                remedy=f"log in to it: ssh -F {self._ssh_config} {name}",
            )
        return script.split(result.stdout)

    def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]:
        """The same batch on every node, all at once."""
        with ThreadPoolExecutor(max_workers=max(1, len(self.names))) as pool:
            found = pool.map(lambda name: self.batch(name, commands, in_pods=in_pods), self.names)
            return dict(zip(self.names, found, strict=True))

    def close(self) -> None:
        for host in self._open.values():
            if "client" in vars(host.backend):  # a cached property: there is a connection
                host.backend.client.close()
        self._open.clear()
