"""The world outside the cluster: an HTTP server on the host end of the lab network, which records its clients."""

from __future__ import annotations

import json
import shlex
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from hoplab.core.errors import HostError, UnavailableError
from hoplab.core.ip import with_port
from hoplab.core.wait import HOST
from hoplab.host import netns
from hoplab.host.remote import connection as connect
from hoplab.host.remote import run as run_there
from hoplab.observe.facts.neighbours import NEIGHBOURS
from hoplab.spec.libvirt_uri import RemoteHost

TOLD_S = 5.0  # seconds until another host has told what its server was asked, on an idle machine


@dataclass(frozen=True)
class Reply:
    """The answer to a request from outside, or why there was none."""

    status: int = 0
    body: str = ""
    names: tuple[str, ...] = ()  # that the server's certificate is for
    why: str = ""

    def __str__(self) -> str:
        return str(self.status) if self.status else f"no answer ({self.why})"


def _names(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the DNS names of a certificate, given as by ``SSLSocket.getpeercert``."""
    return tuple(name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS")


def _path(url: SplitResult) -> str:
    """Return what a request for the URL asks a server for.

    >>> _path(urlsplit("http://way.yash.com/app?version=2")), _path(urlsplit("http://way.yash.com"))
    ('/app?version=2', '/')
    """
    return urlunsplit(("", "", url.path or "/", url.query, ""))


@dataclass(frozen=True)
class ExternalHost:
    """A running HTTP server outside of the cluster, and a client beside it."""

    address: IPv4Address | IPv6Address
    port: int
    namespace: str  # the lab's; "" for the host's own
    _asked: dict[str, IPv4Address | IPv6Address]
    remote: RemoteHost | None = None  # the host that has the host end, where that is not this one

    def url(self, path: str) -> str:
        return f"http://{with_port(self.address, self.port)}/{path}"

    def client_of(self, path: str) -> IPv4Address | IPv6Address | None:
        """Return the client address of the request for the path; None when there was none.

        What another host's server was asked comes by SSH, and the answer may be here before it: that is waited for.
        """
        if self.remote:
            return HOST.settled(lambda: self._asked.get(f"/{path}"), bool, TOLD_S, poll_s=0.05)
        return self._asked.get(f"/{path}")

    def get(self, url: str, timeout: float) -> str | None:
        """Make an HTTP request from the host end; return the body of the answer, None without an answer."""
        bodies = self.get_all(url, (), timeout)
        return bodies[0] if bodies else None

    def get_all(self, url: str, paths: Sequence[str], timeout: float) -> list[str] | None:
        """Make a request, then one for each of the paths on the same connection; None where one gets no answer."""
        found = urlsplit(url)
        asked, bodies = [_path(found), *paths], []
        with netns.entered(self.namespace):
            connection = HTTPConnection(found.hostname or "", found.port, timeout=timeout)
            try:
                if self.remote:
                    connection.sock = connect(found.hostname or "", found.port or 80, timeout, self.remote)
                for left, path in zip(reversed(range(len(asked))), asked, strict=True):
                    connection.request("GET", path, headers={} if left else {"Connection": "close"})
                    bodies.append(connection.getresponse().read().decode())
                return bodies
            except (OSError, HTTPException):
                return None
            finally:
                connection.close()

    def fetch(self, url: str, to: IPv4Address, timeout: float, ca: Path | None = None, body: bytes = b"") -> Reply:
        """Request a URL from this address, whatever its host resolves to: ``curl --resolve``. https needs the CA.

        With a body it is a POST request. A server that refuses a large one may answer before it has read all of it.
        """
        found = urlsplit(url)
        host, port = found.hostname or "", found.port or {"https": 443}.get(found.scheme, 80)
        connection = HTTPConnection(host, port)
        names: tuple[str, ...] = ()
        with netns.entered(self.namespace):
            try:
                connection.sock = connect(str(to), port, timeout, self.remote)
                if found.scheme == "https":
                    trusted = ssl.create_default_context(cafile=ca)
                    connection.sock = wrapped = trusted.wrap_socket(connection.sock, server_hostname=host)
                    names = _names(wrapped.getpeercert() or {})
                headers = {"Host": found.netloc, "Connection": "close"}
                with suppress(BrokenPipeError, ConnectionResetError):  # the answer is there nevertheless, or nothing is
                    connection.request("POST" if body else "GET", _path(found), body or None, headers)
                response = connection.getresponse()
                return Reply(response.status, response.read().decode(errors="replace"), names)
            except (OSError, HTTPException) as error:
                return Reply(why=str(error) or type(error).__name__)
            finally:
                connection.close()

    def neighbour(self, address: IPv4Address) -> str:
        """Return the MAC of an address in the host end's neighbour table; "" when it has none."""
        shown = self._run(f"{NEIGHBOURS.command} {address}")
        return next((entry.mac for entry in NEIGHBOURS.parse(shown) if entry.address == address), "")

    def flush_neighbour(self, address: IPv4Address) -> None:
        """Remove an address from the neighbour table, so that the next packet needs an ARP request."""
        self._run(f"ip neigh flush {address}")

    def _run(self, command: str) -> str:
        """Run a command at the host end; raise UnavailableError where it fails, as for a user who is not root."""
        if self.remote:
            try:
                return run_there(self.remote, f"PATH=$PATH:/usr/sbin:/sbin; {command}")
            except HostError as error:
                raise UnavailableError(f"`{command}` at the host end: {error.message}") from error
        with netns.entered(self.namespace):
            done = subprocess.run(command.split(), check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise UnavailableError(
                f"`{command}` at the host end of the lab network failed: {done.stderr.strip()}",
                remedy="it needs root: a private libvirt (lab:libvirt private) has a network of its own for that",
            )
        return done.stdout

    @contextmanager
    def routed(self, address: IPv4Address, via: IPv4Address) -> Iterator[None]:
        """Route packets to the address through a node while the body runs, in place of a load balancer."""
        with netns.entered(self.namespace):
            subprocess.run(["ip", "route", "replace", f"{address}/32", "via", str(via)], check=True)
        try:
            yield
        finally:
            with netns.entered(self.namespace):
                subprocess.run(["ip", "route", "delete", f"{address}/32"], check=True)


SERVER = """
import http.server, json, os, socket, sys, threading
address = sys.argv[1]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, self.client_address[0], flush=True)
        body = json.dumps({"remote_addr": "%s:%s" % self.client_address[:2], "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
server = Server((address, 0), Handler)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
os._exit(0)
"""  # for the Python 3 of another host, of any version; it ends with its standard input


@contextmanager
def serving_there(address: IPv4Address | IPv6Address, remote: RemoteHost) -> Iterator[ExternalHost]:
    """Do what ``serving`` does on another host, at the host end of the lab network, with that host's python3."""
    command = [*remote.ssh("-T"), shlex.join(["python3", "-c", SERVER, str(address)])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as server:
        assert server.stdin and server.stdout and server.stderr
        port = server.stdout.readline().strip()
        if not port.isdigit():
            said = (server.stderr.read().strip() or "no reason given").splitlines()[-1]
            raise HostError(
                f"can't listen on {address}, the host end of the lab network on {remote.name}: {said}",
                remedy=f"python3 has to be on {remote.name}, and the lab has to run: ./lab status",
            )
        asked: dict[str, IPv4Address | IPv6Address] = {}

        def note() -> None:
            for line in server.stdout or ():
                path, _, client = line.strip().rpartition(" ")
                asked[path] = ip_address(client)

        reader = threading.Thread(target=note, name="outside", daemon=True)
        reader.start()
        try:
            yield ExternalHost(address, int(port), "", asked, remote)
        finally:
            server.stdin.close()
            server.wait()
            reader.join()


@contextmanager
def serving(
    address: IPv4Address | IPv6Address, namespace: str, port: int = 0, remote: RemoteHost | None = None
) -> Iterator[ExternalHost]:
    """Serve on a free port of an address of the network namespace ("" for the host's own) while the body runs."""
    if remote:
        with serving_there(address, remote) as there:
            yield there
        return
    asked: dict[str, IPv4Address | IPv6Address] = {}

    class Handler(BaseHTTPRequestHandler):
        """Answers like the echo pods."""

        def do_GET(self) -> None:
            asked[self.path] = ip_address(self.client_address[0])
            body = json.dumps({"remote_addr": "{}:{}".format(*self.client_address[:2]), "path": self.path}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing to standard error."""

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if address.version == 6 else socket.AF_INET

    try:
        with netns.entered(namespace):
            server = Server((str(address), port), Handler)  # its socket stays in the namespace
    except OSError as error:
        raise HostError(
            f"can't listen on {address}, the host end of the lab network: {error.strerror}",
            remedy="`./lab status` shows whether the lab runs; `./lab start` starts it",
        ) from None
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="outside", daemon=True)
    thread.start()
    try:
        yield ExternalHost(address, server.server_address[1], namespace, asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
