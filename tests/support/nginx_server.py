"""A real nginx with a configuration of `readable`, on free ports of the loopback, in front of pods that are threads."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hoplab.image.readable import conf
from hoplab.image.readable.addresses import SHARED, Home
from hoplab.image.readable.controller import Controller, Nginx
from tests.support.readable_objects import Seen


@dataclass(frozen=True)
class Reply:
    """An answer: its status, its headers (names in lower case), and what a pod says of the request."""

    status: int
    headers: dict[str, str]
    pod: str
    path: str
    got: dict[str, str]  # the headers that the pod got, names in lower case

    @property
    def location(self) -> str:
        return self.headers.get("location", "")


class Pods:
    """Pods of services: each says its name and what it was asked."""

    def __init__(self, *names: str) -> None:
        self.servers = {name: http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(name)) for name in names}

    def slice(self, name: str, namespace: str = "shop") -> dict[str, Any]:
        labels = {"kubernetes.io/service-name": name}
        return {
            "metadata": {"namespace": namespace, "name": name, "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": self.servers[name].server_address[1]}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        }


def _handler(name: str) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.dumps({"pod": name, "path": self.path, "headers": headers}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Pod", name)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, *_: object) -> None: ...

    return Handler


@contextlib.contextmanager
def running(*names: str) -> Iterator[Pods]:
    pods = Pods(*names)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in pods.servers.values()]
    for thread in threads:
        thread.start()
    try:
        yield pods
    finally:
        for server in pods.servers.values():
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


class Front:
    """The controller with its nginx."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, home: Home | None = None) -> None:
        ports = {name: _free_port() for name in ("HTTP", "HTTPS", "HEALTH")}
        for name, port in ports.items():
            monkeypatch.setattr(conf, name, port)
        for port, name in ((80, "HTTP"), (443, "HTTPS")):
            monkeypatch.setitem(SHARED, port, ports[name])
        self.ports = {"http": ports["HTTP"], "https": ports["HTTPS"]}
        self.controller = Controller(Nginx(folder), home)

    def serve(self, seen: Seen) -> None:
        """Serve what is asked for, and return when nginx does: it says so by its configuration's own host."""
        complaints = self.controller.apply(seen)
        assert not self.controller.refused, self.controller.refused
        assert not complaints, complaints
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.ports["http"]), 1):
                return
            assert time.monotonic() < end, "nginx does not listen"
            time.sleep(0.02)

    def get(
        self, host: str, path: str = "/", *, method: str = "GET", scheme: str = "http", door: int = 0, **headers: str
    ) -> Reply:
        """Send a request, to the Ingresses' port without a ``door``; ``headers`` have underscores for dashes."""
        door = door or self.ports[scheme]
        connection: http.client.HTTPConnection
        if scheme == "https":
            trusting = ssl._create_unverified_context()
            plain = socket.create_connection(("127.0.0.1", door), 10)
            connection = http.client.HTTPConnection("127.0.0.1")
            connection.sock = trusting.wrap_socket(plain, server_hostname=host)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", door, timeout=10)
        with contextlib.closing(connection):
            sent = {"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
            connection.request(method, path, headers=sent)
            response = connection.getresponse()
            body = response.read()
        found = {name.lower(): value for name, value in response.getheaders()}
        said: dict[str, Any] = json.loads(body) if "x-pod" in found else {"pod": "", "path": "", "headers": {}}
        return Reply(response.status, found, said["pod"], said["path"], said["headers"])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
