"""A small Kubernetes API server for tests: HTTPS on the loopback, one prepared answer for each request."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Answer:
    """What the server does with one request."""

    status: int = 200
    body: Any = None  # JSON, or bytes as they are
    lines: Sequence[Any] | None = None  # of a watch: each is JSON with a newline, or bytes as they are
    cut: bool = False  # close the connection without the end of the response
    hang: bool = False  # ... or leave it open and send nothing more


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


class _Http(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that does not trust the certificate hangs up."""


class ApiServer:
    """The server and its log. A request without a prepared answer is refused with 500."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.account = folder
        self.answers: list[Answer] = []
        self.requests: list[Request] = []
        self.ended = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text("a-token\n")
        pair = folder / "server.pem"
        pair.write_text(self_signed(host))
        (folder / "ca.crt").write_text(pair.read_text().partition("-----BEGIN PRIVATE KEY")[0])
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pair)
        self.http = _Http(("127.0.0.1", 0), self._handler())
        # The handshake is each connection's own: one that fails must not stop the server.
        self.http.socket = tls.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.http.server_address[1]

    @property
    def asked(self) -> list[str]:
        """What was requested: "list", or "watch from VERSION"."""
        versions = (request.query.get("resourceVersion") for request in self.requests)
        return [f"watch from {version}" if version else "list" for version in versions]

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.requests.append(
                    Request(
                        self.command,
                        url.path,
                        dict(parse_qsl(url.query)),
                        dict(self.headers),
                        json.loads(body) if body else None,
                    )
                )
                answer = server.answers.pop(0) if server.answers else Answer(500, {"message": "no more answers"})
                self.close_connection = True
                self.send_response(answer.status)
                if answer.lines is None:
                    text = _text(answer.body)
                    self.send_header("Content-Length", str(len(text) + (100 if answer.cut else 0)))
                    self.end_headers()
                    self.wfile.write(text)
                else:
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for line in answer.lines:
                        text = _text(line) + (b"" if isinstance(line, bytes) else b"\n")
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
                    if not answer.cut and not answer.hang:
                        self.wfile.write(b"0\r\n\r\n")
                self.wfile.flush()
                if answer.hang:
                    server.ended.wait(30)

            do_POST = do_PATCH = do_DELETE = do_GET

            def log_message(self, *_: object) -> None: ...

        return Handler


@contextlib.contextmanager
def serving(folder: Path, host: str = "127.0.0.1") -> Iterator[ApiServer]:
    """Run a server; ``folder`` becomes that of a service account for it. Its certificate is for ``host``."""
    server = ApiServer(folder, host)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.http.shutdown()
        thread.join()
        server.http.server_close()


def _text(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def self_signed(host: str) -> str:
    """A certificate for an IP address, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(key, SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM).decode() + secret.decode()
