"""The adapter of agnhost: what its netexec answers becomes what an echo pod would have answered."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv6Address

import pytest

from hoplab.observe.script import Output
from hoplab.verify import external, probe
from hoplab.verify.probe import ECHO, Server
from hoplab.verify.traffic import parse_answer

POD = "echo-9p2h6"
SERVER = Server("alpha", (IPv4Address("10.244.1.2"), IPv6Address("fd00:244:1::2")))
AGNHOST = replace(probe.of_image(probe.AGNHOST_IMAGE), servers=lambda: {POD: SERVER})
LOOPBACK = IPv4Address("127.0.0.1")


@contextmanager
def netexec() -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """A server like `agnhost netexec`, with the path and the client's port of each request."""
    asked: list[tuple[str, int]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections open, as Go's server does

        def do_GET(self) -> None:
            asked.append((self.path, self.client_address[1]))
            said = {"/clientip": "{}:{}".format(*self.client_address), "/hostname": POD}
            body = said.get(self.path, "NOW: 2026-11-28").encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ran(command: str) -> Output:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    return Output(done.returncode, done.stdout, done.stderr)


def test_images_are_known_by_their_names() -> None:
    for image in ("agnhost", "mirror.example:5000/a/agnhost@sha256:00", probe.AGNHOST_IMAGE):
        assert probe.of_image(image).args[0] == "netexec" and probe.of_image(image).image == image
    for image in ("mirror.example/echo:2", "agnhostess:1", "x/agnhost/y"):
        assert probe.of_image(image).args == ECHO.args


def test_one_request_of_a_pod() -> None:
    with netexec() as (url, asked):
        found = AGNHOST.read(ran(AGNHOST.command(url)))
    answer = parse_answer(found.out)
    assert (answer.remote, answer.local, answer.node, answer.pod) == (LOOPBACK, IPv4Address("10.244.1.2"), "alpha", POD)
    assert answer.to == "10.244.1.2:8080"
    assert [path for path, _ in asked] == ["/", "/clientip", "/hostname"]
    assert len({port for _, port in asked}) == 1, "all three have to be of one connection, so that one pod answers"


def test_a_series_has_a_connection_for_each() -> None:
    with netexec() as (url, asked):
        found = AGNHOST.read(ran(AGNHOST.command(f"{url}[1-3]")))
    assert [parse_answer(line).pod for line in found.out.splitlines()] == [POD] * 3
    assert len({port for _, port in asked}) == 3


def test_from_outside() -> None:
    with netexec() as (url, asked), external.serving(LOOPBACK, "") as outside:
        bodies = outside.get_all(url, AGNHOST.paths, 5)
    assert bodies is not None and parse_answer(AGNHOST.join(bodies)).pod == POD
    assert len({port for _, port in asked}) == 1


def test_the_outside_answers_as_it_is() -> None:
    with external.serving(LOOPBACK, "") as outside:
        found = AGNHOST.read(ran(AGNHOST.command(outside.url("abc"))))
        assert outside.client_of("abc") == LOOPBACK
    assert parse_answer(found.out).remote == LOOPBACK


def test_a_failure_is_left_as_it_is() -> None:
    found = ran(AGNHOST.command("http://127.0.0.1:9/"))
    assert found.code == 7 and AGNHOST.read(found) is found
    found = ran(AGNHOST.command("http://127.0.0.1:9/[1-3]"))
    assert found.code == 7 and "curl: (7)" in found.err


def test_the_address_is_of_the_clients_family() -> None:
    joined = json.loads(AGNHOST.join(["NOW", "[fd00::9]:4711", POD]))
    assert joined["local_addr"] == "[fd00:244:1::2]:8080"
    assert json.loads(AGNHOST.join(["NOW", "10.0.0.1:4711", "another"]))["local_addr"] == ""


@pytest.mark.parametrize("answers", [["text"], ["{}", "a", "b"], ["NOW", "one"]])
def test_other_answers_are_not_changed(answers: list[str]) -> None:
    assert AGNHOST.join(answers) == answers[0] and ECHO.join(answers) == answers[0]


def test_the_labs_own_is_asked_as_before() -> None:
    assert ECHO.command("http://x/").startswith("curl ") and "Connection: close" in ECHO.command("http://x/")
    output = Output(0, "{}\n")
    assert ECHO.read(output) is output
