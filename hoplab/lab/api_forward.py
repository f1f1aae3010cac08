"""A process that lives with a lab and forwards a port of this host's loopback to the lab's API server.

So kubectl of the host's own shell, k9s and IDEs reach a lab whose network is in a namespace, and no HTTPS proxy is in
between: clients connect to a loopback address directly. TLS is between client and API server, the process sees neither.

    python -m hoplab.lab.api_forward LAB_ID DESCRIPTOR PORT WAY ADDRESS:API_PORT

WAY is the lab's network namespace, or the URI of a libvirt whose host is reached over SSH; "" for this host's network.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from hoplab.core import host_network
from hoplab.core.errors import HostError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.host import processes
from hoplab.lab.forwarder import Forwarder
from hoplab.lab.port_forward import LOOPBACK, Destination, Forward
from hoplab.spec.libvirt_uri import remote_host

MODULE = "hoplab.lab.api_forward"
PORTS = range(20_000, 30_000)  # below those that Linux gives to outgoing connections (32768 and more)
TRIES = 50
START_S = 300.0  # Python's imports take a second, and 30 s on a host with every core busy


@dataclass(frozen=True)
class _Running:
    """A process that forwards."""

    pid: int
    port: int
    to: str
    namespace: str

    def serves(self, destination: Destination, namespace: str) -> bool:
        return (self.to, self.namespace) == (str(destination), namespace)


@dataclass(frozen=True)
class ApiForward:
    """The forward of one lab's API."""

    paths: LabPaths

    def start(self, destination: Destination, namespace: str, port: int = 0) -> int:
        """Forward a port to the API server; return the port. One that does so already stays, with its connections.

        ``port`` is the wanted one, 0 for one that follows from the lab's id; where it is taken another is used.
        """
        there = self._found()
        if there and there.serves(destination, namespace):
            return there.port
        self.stop()
        listener = host_network.run(lambda: self._listen(port))
        with listener:
            self._launch(listener, destination, namespace)
            return int(listener.getsockname()[1])

    def stop(self) -> list[str]:
        """End the process; return what it was."""
        there = self._found()
        if there is None:
            return []
        processes.end([there.pid])
        return [f"forward of the API on {LOOPBACK}:{there.port}"]

    def port(self) -> int:
        """Return the forwarded port; 0 where none is."""
        there = self._found()
        return there.port if there else 0

    @property
    def _log(self) -> Path:
        return self.paths.run / "api-forward.log"

    def _found(self) -> _Running | None:
        """Return the lab's process, by command lines: files of a lab may be lost while it runs."""
        for folder in Path("/proc").glob("[0-9]*"):
            words = processes.command_line(int(folder.name))
            if MODULE in words and words[words.index(MODULE) + 1 :][:1] == [self.paths.id] and _is_of_this_host(folder):
                _id, _descriptor, port, namespace, to = words[words.index(MODULE) + 1 :]
                return _Running(int(folder.name), int(port), to, namespace)
        return None

    def _listen(self, wanted: int) -> socket.socket:
        first = int(hashlib.sha256(self.paths.id.encode()).hexdigest(), 16) % len(PORTS)
        others = [PORTS[(first + number) % len(PORTS)] for number in range(TRIES)]
        for port in [*([wanted] if wanted else []), *others]:
            try:
                return socket.create_server((LOOPBACK, port))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise HostError(
                        f"can't listen on {LOOPBACK}: {error.strerror}", remedy="set the loopback up: ip link set lo up"
                    ) from None
        raise HostError(
            f"no port of {LOOPBACK} from {others[0]} on is free for the lab's API",
            remedy="end what listens there: ss -ltnp",
        )

    def _launch(self, listener: socket.socket, destination: Destination, namespace: str) -> None:
        """Start the process, which outlives this command; it returns once it accepts connections."""
        self.paths.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, port = listener.fileno(), listener.getsockname()[1]
        words = [self.paths.id, str(descriptor), str(port), namespace, str(destination)]
        try:
            with self._log.open("w") as log:
                subprocess.run(
                    [sys.executable, "-P", "-m", MODULE, *words],
                    env={"PATH": os.defpath, "PYTHONPATH": str(PROJECT), "PYTHONUTF8": "1", **_for_ssh()},
                    pass_fds=[descriptor],
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=START_S,
                    check=True,
                )
        except subprocess.SubprocessError:
            raise HostError("the forward of the API did not start", remedy="read its log", log=str(self._log)) from None


def _for_ssh() -> dict[str, str]:
    """Return the environment that ssh needs for the user's keys."""
    return {name: os.environ[name] for name in ("HOME", "SSH_AUTH_SOCK") if name in os.environ}


def _is_of_this_host(process: Path) -> bool:
    """Return whether a process is in no container, which may have a lab of the same id."""
    try:
        return (process / "ns/mnt").stat().st_ino == Path("/proc/self/ns/mnt").stat().st_ino
    except OSError:
        return False


def main() -> None:
    """Forward connections to an open socket in the background until SIGTERM."""
    _id, descriptor, port, way, to = sys.argv[1:]
    remote = remote_host(way)
    address, _, api_port = to.rpartition(":")
    destination = Destination(IPv4Address(address), int(api_port))
    listener = socket.socket(fileno=int(descriptor))
    if os.fork():
        os._exit(0)  # the command that started this goes on: the socket listens
    os.setsid()
    said = [""]

    def say(text: str) -> None:
        if text != said[0]:  # a client that tries for hours is one line
            said[0] = text
            print(text, flush=True)

    with suppress(KeyboardInterrupt):
        forwards, namespace = {Forward(int(port), "api", destination): listener}, "" if remote else way
        Forwarder(forwards, namespace, Path(os.devnull), say, remote).run()


if __name__ == "__main__":
    main()
