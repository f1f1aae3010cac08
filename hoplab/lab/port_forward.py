"""The ingress address and services of a lab on this machine's loopback, for a browser or curl: ``lab forward``.

A connection goes the way that the service offers to the world outside, from the host end of the lab network: to the
load balancer's address, else to a NodePort. What has neither is asked through a node by SSH, as only nodes know
ClusterIPs: rules of kube-proxy are on the way in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import errno
import json
import os
import re
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from hoplab.cluster.api import connect
from hoplab.core.errors import ClusterError, HostError, LabError
from hoplab.core.paths import LabPaths
from hoplab.host import netns
from hoplab.lab import state
from hoplab.observe.facts import Fact, T
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS, Endpoint
from hoplab.observe.facts.api_ingresses import API_INGRESSES, ApiIngress
from hoplab.observe.facts.api_nodes import API_NODES, ApiNode
from hoplab.observe.facts.api_services import API_SERVICES, ApiService, ServicePort

LOOPBACK = "127.0.0.1"
INGRESS = "ingress"  # what is asked for in place of a service
HTTP, HTTPS = 80, 443
UNPRIVILEGED = 1024  # the first port that anybody may listen on
SHIFT = 8000  # from a port below that to ours: 80 is 8080 here, 443 is 8443
CONNECT_S = 10.0  # seconds until a connection into the lab has to stand
END_S = 2.0  # seconds that open connections have to end in
CHUNK = 2**16


@dataclass(frozen=True)
class Wanted:
    """What was asked for: ``9000:default/web:http``."""

    name: str  # "namespace/service", or "ingress"
    port: str = ""  # number or name of the service's port; "" for each of them
    local: int = 0  # 0: one is chosen

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """
        >>> Wanted.parse("9000:web:http")
        Wanted(name='default/web', port='http', local=9000)
        """
        found = re.fullmatch(r"(?:(\d{1,5}):)?([a-z0-9-]+(?:/[a-z0-9-]+)?)(?::([a-z0-9-]+))?", text)
        if not found or int(found[1] or 1) not in range(1, 2**16) or found[2].isdigit():
            raise LabError(
                f"{text!r} can't be forwarded",
                remedy="name a service as NAMESPACE/SERVICE, with [LOCAL:] before or [:PORT] after it, or `ingress`",
            )
        name = found[2] if found[2] == INGRESS or "/" in found[2] else f"default/{found[2]}"
        return cls(name, found[3] or "", int(found[1] or 0))


@dataclass(frozen=True)
class Way:
    """Where a connection goes."""

    address: IPv4Address
    port: int
    node: str = ""  # who makes it, by SSH; "" for the host end of the lab network

    def __str__(self) -> str:
        return f"{self.address}:{self.port}{f' from {self.node}' if self.node else ''}"


@dataclass(frozen=True)
class Forward:
    """One port here and what it leads to."""

    local: int
    what: str
    way: Way
    hosts: tuple[str, ...] = ()  # names that the far end knows
    secure: bool = False

    def url(self, host: str = LOOPBACK) -> str:
        return f"http{'s' if self.secure else ''}://{host}:{self.local}"


@dataclass(frozen=True)
class Seen:
    """What is known of the cluster."""

    network: IPv4Network
    nodes: tuple[ApiNode, ...]
    services: tuple[ApiService, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    ingresses: tuple[ApiIngress, ...] = ()


def look(paths: LabPaths) -> Seen:
    """Ask the lab's API."""
    lab = state.load(paths)
    with connect(paths, lab.netns) as api:

        def ask(fact: Fact[T]) -> T:
            return fact.parse(json.dumps(api.read(fact.command)))

        return Seen(
            network=state.built_setting(lab, paths).network,
            nodes=ask(API_NODES),
            services=ask(API_SERVICES),
            endpoints=ask(API_ENDPOINTS),
            ingresses=ask(API_INGRESSES),
        )


def plan(wanted: Iterable[Wanted], seen: Seen) -> tuple[Forward, ...]:
    """What is asked for, each with the way that leads there; LabError for what can't be."""
    found: list[Forward] = []
    for each in wanted:
        ways = _ingress_ways(each, seen) if each.name == INGRESS else _service_ways(each, seen)
        if each.local and len(ways) > 1:
            ports = ", ".join(
                str(way.way.port) if each.name == INGRESS else way.what.rpartition(":")[2] for way in ways
            )
            raise LabError(
                f"{each.name} has several ports, and {each.local} is one", remedy=f"name one of them: {ports}"
            )
        for way in ways:
            taken = {forward.local for forward in found}
            local = each.local or next(port for port in range(way.local, 2**16) if port not in taken)
            if local in taken:
                raise LabError(f"port {local} is asked for twice", remedy="give each its own: LOCAL:NAMESPACE/SERVICE")
            found.append(Forward(local, way.what, way.way, way.hosts, way.secure))
    return tuple(found)


def local_port(port: int) -> int:
    """
    >>> local_port(80), local_port(443), local_port(9153)
    (8080, 8443, 9153)
    """
    return port if port >= UNPRIVILEGED else port + SHIFT


def ingress_address(ingresses: Iterable[ApiIngress]) -> IPv4Address:
    """Where the ingress controller answers: controllers write it into the status of what they serve."""
    known = tuple(ingresses)
    addresses = [address for each in known for address in each.addresses]
    if not known:
        raise ClusterError("there is no Ingress", remedy="the course's two apps have one: ./lab verify makes them")
    if not addresses:
        raise ClusterError(
            "no Ingress has an address: nobody serves them",
            remedy="an ingress controller does: lab:ingress.controller in the lab's spec, then ./lab up",
        )
    return addresses[0]


def _ingress_ways(wanted: Wanted, seen: Seen) -> list[Forward]:
    address = ingress_address(seen.ingresses)
    served = [each for each in seen.ingresses if address in each.addresses]
    plain = tuple(dict.fromkeys(host for each in served for host in each.hosts))
    secure = tuple(dict.fromkeys(host for each in served for host in each.secure_hosts))
    ways = [Forward(local_port(HTTP), INGRESS, Way(address, HTTP), plain)]
    if secure:
        ways.append(Forward(local_port(HTTPS), INGRESS, Way(address, HTTPS), secure, secure=True))
    known = {"": ways, "http": ways[:1], str(HTTP): ways[:1], "https": ways[1:], str(HTTPS): ways[1:]}
    if not known.get(wanted.port):
        there = " and ".join(str(way.way.port) for way in ways)
        raise LabError(f"the ingress address has no port {wanted.port}", remedy=f"it has {there}")
    return known[wanted.port]


def _service_ways(wanted: Wanted, seen: Seen) -> list[Forward]:
    service = next((each for each in seen.services if str(each) == wanted.name), None)
    if service is None:
        names = [str(each) for each in seen.services]
        near = difflib.get_close_matches(wanted.name, names, n=1)
        there = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise LabError(f"there is no service {wanted.name}", remedy=there)
    ports = [port for port in service.ports if wanted.port in ("", port.name, str(port.port))]
    if not ports:
        there = ", ".join(str(port.port) for port in service.ports)
        raise LabError(f"{service} has no port {wanted.port}", remedy=f"it has {there}")
    tcp = [port for port in ports if port.protocol == "TCP"]
    if not tcp:
        raise LabError(f"{service} speaks {ports[0].protocol} there", remedy="only TCP can be forwarded")
    return [
        Forward(local_port(port.port), f"{service}:{port.port}", _way(service, port, seen), secure=port.port == HTTPS)
        for port in tcp
    ]


def _way(service: ApiService, port: ServicePort, seen: Seen) -> Way:
    """From outside where the service can be reached from there, else through a node."""
    behind = [
        each
        for each in seen.endpoints
        if (each.namespace, each.service, each.port_name) == (service.namespace, service.name, port.name) and each.ready
    ]
    if not behind:
        raise ClusterError(
            f"no pod behind {service}:{port.port} is ready",
            remedy=f"see ./lab kubectl -n {service.namespace} get endpointslices,pods",
        )
    for address in service.balancer_ips:
        if address in seen.network:  # others lead nowhere from here
            return Way(address, port.port)
    homes = {each.node for each in behind}
    ready = [node for node in seen.nodes if node.ready and node.address]
    if port.node_port:
        local = service.external_policy == "Local"
        for node in ready:
            if node.address and (not local or node.name in homes):
                return Way(node.address, port.node_port)
    if not ready:
        raise ClusterError("no node is Ready", remedy="see ./lab status")
    if service.cluster_ip is None:  # headless: its pods are all there is
        return Way(behind[0].address, behind[0].port, behind[0].node)
    return Way(service.cluster_ip, port.port, ready[0].name)


def described(forwards: Iterable[Forward], ca: Path | None = None) -> list[str]:
    """What people are told: where it leads, and how a browser gets to a name of the ingress.

    >>> described([Forward(8080, "ingress", Way(IPv4Address("192.168.77.20"), 80), ("app1.yash.com",))])[1:]
    ['/etc/hosts  127.0.0.1 app1.yash.com', \
'curl        curl --resolve app1.yash.com:8080:127.0.0.1 http://app1.yash.com:8080/']
    """
    known = tuple(forwards)
    lines = [f"{each.url()}  {each.what} ({each.way})" for each in known]
    names = dict.fromkeys(host for each in known for host in each.hosts if "*" not in host)
    if names:
        lines.append(f"/etc/hosts  {LOOPBACK} {' '.join(names)}")
    for each in known:
        if host := next((host for host in each.hosts if "*" not in host), ""):
            trusted = f" --cacert {ca}" if each.secure and ca else ""
            lines.append(f"curl        curl{trusted} --resolve {host}:{each.local}:{LOOPBACK} {each.url(host)}/")
    return lines


def listen(forwards: Iterable[Forward]) -> dict[Forward, socket.socket]:
    """A listening socket for each, all of them or none."""
    found: dict[Forward, socket.socket] = {}
    with contextlib.ExitStack() as opened:
        for each in forwards:
            listener = opened.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((LOOPBACK, each.local))
                listener.listen()
            except OSError as error:
                raise _not_listening(each, error) from None
            found[each] = listener
        opened.pop_all()
    return found


def _not_listening(forward: Forward, error: OSError) -> HostError:
    name = forward.what if forward.what != INGRESS else f"{INGRESS}:{forward.way.port}"
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
    """Carries connections until it is told to stop."""

    listeners: Mapping[Forward, socket.socket]
    namespace: str  # that of the lab network's host end; "" for this machine's own
    ssh_config: Path
    say: Callable[[str], None]
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    def run(self) -> None:
        """Until Ctrl-C or SIGTERM; then open connections are cut, which takes END_S at most."""
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
        # one login a node; a connection of its own takes seconds to log in to an emulated machine
        kept = [await self._ssh("-N", node) for node in {each.way.node for each in self.listeners} - {""}]
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
        """One connection, to its end on both sides."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(writer.close)
            try:
                async with asyncio.timeout(CONNECT_S):
                    far = await (self._through_node(forward.way) if forward.way.node else self._outside(forward.way))
            except (OSError, TimeoutError, HostError) as error:
                why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
                self.say(f"{forward.what}: {forward.way} does not answer: {why or f'not within {CONNECT_S:g} s'}")
                return
            stack.push_async_callback(far.end)
            await asyncio.gather(_copy(reader, far.writer), _copy(far.reader, writer))
            if why := await far.why():
                self.say(f"{forward.what}: {forward.way}: {why}")

    async def _outside(self, way: Way) -> _Far:
        with netns.entered(self.namespace):
            far = socket.socket()  # stays in the namespace it was made in
        try:
            far.setblocking(False)
            await asyncio.get_running_loop().sock_connect(far, (str(way.address), way.port))
        except BaseException:
            far.close()
            raise
        reader, writer = await asyncio.open_connection(sock=far)
        return _Far(reader, writer)

    async def _through_node(self, way: Way) -> _Far:
        # not a master for others, which would go on in the background with our end of standard error
        options = ["-o", "ControlMaster=no", "-W", f"{way.address}:{way.port}"]
        ssh = await self._ssh(*options, way.node, through=asyncio.subprocess.PIPE)
        assert ssh.stdin and ssh.stdout
        return _Far(ssh.stdout, ssh.stdin, ssh)

    async def _ssh(self, *words: str, through: int = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *("ssh", "-F", str(self.ssh_config), *words),
            stdin=through,
            stdout=through,
            stderr=through,
            start_new_session=True,  # a Ctrl-C is for us, who then end it
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
        """What SSH says against it; "" where all is well."""
        if self.ssh is None or self.ssh.stderr is None:
            return ""
        said = (await self.ssh.stderr.read()).decode(errors="replace").strip()
        return said.splitlines()[0] if await self.ssh.wait() and said else ""


async def _end(ssh: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        ssh.kill()
    await ssh.wait()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All that comes from one side to the other, and then its end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
