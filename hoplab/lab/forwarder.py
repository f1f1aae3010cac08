"""Forwards connections from ports of this machine's loopback into a lab: ``lab forward`` runs it until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hoplab.core.errors import HostError
from hoplab.host import netns
from hoplab.lab.port_forward import INGRESS, LOOPBACK, Destination, Forward
from hoplab.spec.libvirt_uri import RemoteHost

CONNECT_S = 10.0  # seconds to establish a connection into the lab
END_S = 2.0  # seconds for open connections to end
CHUNK = 2**16


def listen(forwards: Iterable[Forward]) -> dict[Forward, socket.socket]:
    """Return a listening socket for every forward; raise HostError, and keep none open, where a port is unavailable."""
    found: dict[Forward, socket.socket] = {}
    with contextlib.ExitStack() as opened:
        for forward in forwards:
            listener = opened.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((LOOPBACK, forward.local))
                listener.listen()
            except OSError as error:
                raise _not_listening(forward, error) from None
            found[forward] = listener
        opened.pop_all()
    return found


def _not_listening(forward: Forward, error: OSError) -> HostError:
    name = forward.what if forward.what != INGRESS else f"{INGRESS}:{forward.destination.port}"
    other = f"choose another: ./lab forward {forward.local + 1000 if forward.local < 2**16 - 1000 else 9000}:{name}"
    match error.errno:
        case errno.EADDRINUSE:
            return HostError(f"port {forward.local} of {LOOPBACK} is taken", remedy=other)
        case errno.EACCES:
            return HostError(f"port {forward.local} of {LOOPBACK} is for root", remedy=other)
        case _:
            return HostError(f"can't listen on port {forward.local} of {LOOPBACK}: {error.strerror}", remedy=other)


@dataclass
class Forwarder:
    """A forwarder of connections, which runs until it is stopped."""

    listeners: Mapping[Forward, socket.socket]
    namespace: str  # of the lab network's host end; "" for this machine's own
    ssh_config: Path
    say: Callable[[str], None]
    remote: RemoteHost | None = None  # the host whose end of the lab network is used in place of a namespace
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    def run(self) -> None:
        """Forward connections until Ctrl-C or SIGTERM; close those still open after END_S."""
        asyncio.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await self.serve(stop)

    async def serve(self, stop: asyncio.Event) -> None:
        servers = [
            await asyncio.start_server(self._taking(forward), sock=listener)
            for forward, listener in self.listeners.items()
        ]
        # one login a node: a login to an emulated machine takes seconds
        kept = [await self._ssh("-N", node) for node in {forward.destination.node for forward in self.listeners} - {""}]
        try:
            await stop.wait()
        finally:
            for server in servers:
                server.close()
            for task in self._open:
                task.cancel()
            if self._open:
                await asyncio.wait(self._open, timeout=END_S)
            for ssh in kept:
                await _end(ssh)

    def _taking(self, forward: Forward) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.get_running_loop().create_task(self._carry(forward, reader, writer))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

        return take

    async def _carry(self, forward: Forward, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until both sides have ended it."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(writer.close)
            try:
                async with asyncio.timeout(CONNECT_S):
                    far = await (
                        self._through_node(forward.destination)
                        if forward.destination.node
                        else self._outside(forward.destination)
                    )
            except (OSError, TimeoutError, HostError) as error:
                why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
                self.say(
                    f"{forward.what}: {forward.destination} does not answer: {why or f'not within {CONNECT_S:g} s'}"
                )
                _reset_at_close(writer)
                return
            stack.push_async_callback(far.end)
            await asyncio.gather(_copy(reader, far.writer), _copy(far.reader, writer))
            if why := await far.why():
                self.say(f"{forward.what}: {forward.destination}: {why}")

    async def _outside(self, destination: Destination) -> _Far:
        if self.remote:
            words = self.remote.ssh("-W", str(destination))
            ssh = await self._process(*words, through=asyncio.subprocess.PIPE)
            assert ssh.stdin and ssh.stdout
            return _Far(ssh.stdout, ssh.stdin, ssh)
        with netns.entered(self.namespace):
            far = socket.socket()  # a socket stays in the namespace of its creation
        try:
            far.setblocking(False)
            await asyncio.get_running_loop().sock_connect(far, (str(destination.address), destination.port))
        except BaseException:
            far.close()
            raise
        reader, writer = await asyncio.open_connection(sock=far)
        return _Far(reader, writer)

    async def _through_node(self, destination: Destination) -> _Far:
        # no ControlMaster, which would stay in the background and hold our standard error open
        options = ["-o", "ControlMaster=no", "-W", f"{destination.address}:{destination.port}"]
        ssh = await self._ssh(*options, destination.node, through=asyncio.subprocess.PIPE)
        assert ssh.stdin and ssh.stdout
        return _Far(ssh.stdout, ssh.stdin, ssh)

    async def _ssh(self, *words: str, through: int = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
        return await self._process("ssh", "-F", str(self.ssh_config), *words, through=through)

    @staticmethod
    async def _process(*command: str, through: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=through,
            stdout=through,
            stderr=through,
            start_new_session=True,  # only this process gets Ctrl-C, and then ends ssh
        )


@dataclass(frozen=True)
class _Far:
    """The far end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ssh: asyncio.subprocess.Process | None = None

    async def end(self) -> None:
        self.writer.close()
        if self.ssh:
            await _end(self.ssh)

    async def why(self) -> str:
        """Return SSH's error message; "" where there is none."""
        if self.ssh is None or self.ssh.stderr is None:
            return ""
        said = (await self.ssh.stderr.read()).decode(errors="replace").strip()
        return said.splitlines()[0] if await self.ssh.wait() and said else ""


def _reset_at_close(writer: asyncio.StreamWriter) -> None:
    """Make the client's connection end by a reset: an end of stream would be the empty answer of a server.

    Without it the kernel chooses by whether the client's first bytes came before the close.
    """
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _end(ssh: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        ssh.kill()
    await ssh.wait()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction of a connection, then its end of stream."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
