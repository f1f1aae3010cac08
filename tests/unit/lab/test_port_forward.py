"""`lab forward`: which way a connection goes, what is said, and connections that are really carried."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from hoplab.core.errors import HostError, LabError
from hoplab.lab import forwarder, port_forward
from hoplab.lab.forwarder import Forwarder
from hoplab.lab.port_forward import ClusterView, Destination, Forward, Wanted
from hoplab.observe.facts.api_endpointslices import Endpoint
from hoplab.observe.facts.api_ingresses import API_INGRESSES, ApiIngress
from hoplab.observe.facts.api_nodes import ApiNode
from hoplab.observe.facts.api_services import ApiService, ServicePort

FIRST, SECOND = IPv4Address("192.168.77.20"), IPv4Address("192.168.77.21")
HTTP = ServicePort("", "TCP", 80, 0)


def node(name: str, address: IPv4Address, *, ready: bool = True) -> ApiNode:
    return ApiNode(name, address, None, ready, "", "", "", "", (), ())


def service(name: str, *ports: ServicePort, policy: str = "Cluster", ips: tuple[str, ...] = ()) -> ApiService:
    addresses = tuple(IPv4Address(ip) for ip in ips)
    return ApiService("shop", name, "", IPv4Address("10.96.7.7"), ports, policy, balancer_ips=addresses)


def endpoint(name: str, port_name: str = "", *, on: str = "worker2", ready: bool = True) -> Endpoint:
    return Endpoint("shop", name, port_name, "TCP", IPv4Address("10.244.1.9"), 8080, ready, on)


def seen(
    *services: ApiService, endpoints: tuple[Endpoint, ...] | None = None, **more: tuple[ApiIngress, ...]
) -> ClusterView:
    if endpoints is None:
        endpoints = tuple(endpoint(service.name, port.name) for service in services for port in service.ports)
    nodes = (node("worker1", FIRST), node("worker2", SECOND))
    return ClusterView(IPv4Network("192.168.77.0/24"), nodes, services, endpoints, **more)


def planned(text: str, known: ClusterView) -> list[str]:
    return [f"{forward.local} {forward.destination}" for forward in port_forward.plan([Wanted.parse(text)], known)]


def refused(text: str, known: ClusterView) -> str:
    with pytest.raises(LabError) as caught:
        port_forward.plan([Wanted.parse(text)], known)
    return f"{caught.value.message}; {caught.value.remedy}"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ingress", Wanted("ingress")),
        ("80:ingress:https", Wanted("ingress", "https", 80)),
        ("shop/web", Wanted("shop/web")),
        ("web:80", Wanted("default/web", "80")),
        ("default/ingress", Wanted("default/ingress")),
    ],
)
def test_wanted_is_parsed(text: str, wanted: Wanted) -> None:
    assert Wanted.parse(text) == wanted


@pytest.mark.parametrize("text", ["", "8080", "8080:80", "0:web", "65536:web", "a/b/c", "Web", "web:", ":web"])
def test_wanted_refuses_what_cannot_be_forwarded(text: str) -> None:
    with pytest.raises(LabError, match="can't be forwarded"):
        Wanted.parse(text)


def test_plan_takes_the_way_from_outside() -> None:
    node_port = replace(HTTP, node_port=30080)
    assert planned("shop/web", seen(service("web", HTTP))) == ["8080 10.96.7.7:80 from worker1"]
    assert planned("shop/web", seen(service("web", node_port))) == ["8080 192.168.77.20:30080"]
    assert planned("shop/web", seen(service("web", node_port, policy="Local"))) == ["8080 192.168.77.21:30080"]
    assert planned("shop/web", seen(service("web", node_port, ips=("192.168.77.245",)))) == ["8080 192.168.77.245:80"]
    assert planned("shop/web", seen(service("web", HTTP, ips=("203.0.113.80",)))) == ["8080 10.96.7.7:80 from worker1"]
    headless = replace(service("web", HTTP), cluster_ip=None)
    assert planned("shop/web", seen(headless)) == ["8080 10.244.1.9:8080 from worker2"]


def test_plan_avoids_a_node_that_is_down() -> None:
    known = seen(service("web", replace(HTTP, node_port=30080)))
    half = replace(known, nodes=(node("worker1", FIRST, ready=False), node("worker2", SECOND)))
    assert planned("shop/web", half) == ["8080 192.168.77.21:30080"]
    none = replace(seen(service("web", HTTP)), nodes=())
    assert refused("shop/web", none) == "no node is Ready; see ./lab status"


def test_plan_gives_every_port_a_local_one() -> None:
    web = service("web", ServicePort("http", "TCP", 80, 0), ServicePort("admin", "TCP", 9090, 0))
    known = seen(web, service("dns", ServicePort("dns", "UDP", 53, 0), ServicePort("dns-tcp", "TCP", 53, 0)))
    assert planned("shop/web", known) == ["8080 10.96.7.7:80 from worker1", "9090 10.96.7.7:9090 from worker1"]
    assert planned("7000:shop/web:admin", known) == ["7000 10.96.7.7:9090 from worker1"]
    assert planned("shop/dns:53", known) == ["8053 10.96.7.7:53 from worker1"]
    twice = port_forward.plan([Wanted.parse("shop/web:80"), Wanted.parse("shop/web:http")], known)
    assert [forward.local for forward in twice] == [8080, 8081]


def test_plan_refuses_with_what_there_is() -> None:
    dns = service("dns", ServicePort("dns", "UDP", 53, 0))
    two = service("two", ServicePort("http", "TCP", 80, 0), ServicePort("admin", "TCP", 9090, 0))
    known = seen(service("web", HTTP), dns, two)
    assert refused("shop/wep", known) == "there is no service shop/wep; did you mean shop/web?"
    assert refused("qqqqqq", known) == "there is no service default/qqqqqq; there are shop/web, shop/dns, shop/two"
    assert refused("shop/web:81", known) == "shop/web has no port 81; it has 80"
    assert refused("shop/dns", known) == "shop/dns uses UDP on that port; only TCP can be forwarded"
    assert refused("7000:shop/two", known) == "shop/two has several ports, and 7000 is one; name one of them: 80, 9090"
    idle = seen(service("web", HTTP), endpoints=(endpoint("web", ready=False),))
    assert refused("shop/web", idle) == (
        "no pod behind shop/web:80 is ready; see ./lab kubectl -n shop get endpointslices,pods"
    )
    with pytest.raises(LabError, match="port 7000 is requested twice"):
        port_forward.plan([Wanted.parse("7000:shop/web")] * 2, known)


INGRESS = """{"items": [
  {"metadata": {"namespace": "shop", "name": "apps"},
   "spec": {"rules": [{"host": "app1.yash.com"}, {"host": "*.yash.com"}, {}],
            "tls": [{"hosts": ["app1.yash.com"], "secretName": "my-tls-secret"}]},
   "status": {"loadBalancer": {"ingress": [{"ip": "192.168.77.20"}, {"hostname": "elsewhere"}]}}},
  {"metadata": {"namespace": "shop", "name": "orphan"},
   "spec": {"rules": [{"host": "orphan.yash.com"}]}, "status": {"loadBalancer": {}}}
]}"""


def test_plan_of_the_ingress_address() -> None:
    ingresses = API_INGRESSES.parse(INGRESS)
    assert str(ingresses[0]) == "shop/apps"
    known = seen(ingresses=ingresses)
    found = port_forward.plan([Wanted.parse("ingress")], known)
    assert port_forward.described(found, Path("ca.crt")) == [
        "http://127.0.0.1:8080  ingress (192.168.77.20:80)",
        "https://127.0.0.1:8443  ingress (192.168.77.20:443)",
        "/etc/hosts  127.0.0.1 app1.yash.com",
        "curl        curl --resolve app1.yash.com:8080:127.0.0.1 http://app1.yash.com:8080/",
        "curl        curl --cacert ca.crt --resolve app1.yash.com:8443:127.0.0.1 https://app1.yash.com:8443/",
    ]
    assert planned("80:ingress:http", known) == ["80 192.168.77.20:80"]
    assert planned("ingress:443", known) == ["8443 192.168.77.20:443"]
    assert refused("ingress:8080", known) == "the ingress address has no port 8080; it has 80 and 443"
    assert refused("9000:ingress", known) == "ingress has several ports, and 9000 is one; name one of them: 80, 443"
    assert "no Ingress has an address" in refused("ingress", seen(ingresses=ingresses[1:]))
    assert "lab:ingress.controller" in refused("ingress", seen(ingresses=ingresses[1:]))
    assert refused("ingress", seen()).startswith("there is no Ingress; ")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def a_forward(destination: Destination) -> Forward:
    return Forward(free_port(), "shop/web:80", destination)


def test_listen_names_a_taken_port_and_another() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = Forward(other.getsockname()[1], "shop/web:80", Destination(FIRST, 80))
        free = a_forward(Destination(FIRST, 80))
        with pytest.raises(HostError) as caught:
            forwarder.listen([free, taken])
    assert caught.value.message == f"port {taken.local} of 127.0.0.1 is taken"
    assert f"./lab forward {taken.local + 1000 if taken.local < 64536 else 9000}:shop/web:80" in caught.value.remedy
    forwarder.listen([free])[free].close()  # the first one was given back


def test_listen_names_a_port_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    class Refused(socket.socket):
        pass

    monkeypatch.setattr(Refused, "bind", bind)
    monkeypatch.setattr(socket, "socket", Refused)
    with pytest.raises(HostError, match=r"port 80 of 127\.0\.0\.1 is for root") as caught:
        forwarder.listen([Forward(80, "ingress", Destination(FIRST, 80))])
    assert "./lab forward 1080:ingress:80" in caught.value.remedy


@contextmanager
def far_end(answer: Callable[[socket.socket], None]) -> Iterator[Destination]:
    """A server on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Destination(IPv4Address("127.0.0.1"), server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def shout(connection: socket.socket) -> None:
    """All that was sent, in capitals, once the sender is done."""
    received = b""
    while data := connection.recv(4096):
        received += data
    connection.sendall(received.upper())


def asked(port: int, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while data := client.recv(4096):
            answer += data
        return answer


def ended(port: int) -> str:
    """How a connection ends whose client waits for an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        try:
            return "end of stream" if client.recv(1) == b"" else "answer"
        except ConnectionResetError:
            return "reset"


def while_it_runs(destination: Destination, body: Callable[[int], object]) -> tuple[object, list[str]]:
    """What the body finds at the forwarded port, and what was said until its connections had ended."""
    said: list[str] = []
    one = a_forward(destination)
    carrier = Forwarder(forwarder.listen([one]), "", Path("none"), said.append)

    async def run() -> object:
        stop = asyncio.Event()
        serving = asyncio.create_task(carrier.serve(stop))
        try:
            found = await asyncio.to_thread(body, one.local)
            if carrier._open:
                await asyncio.wait(carrier._open, timeout=10)
            return found
        finally:
            stop.set()
            await serving

    return asyncio.run(run()), said


def test_forwarder_carries_both_ways_to_the_end() -> None:
    text = os.urandom(300_000).hex().encode()
    with far_end(shout) as destination:
        found, said = while_it_runs(destination, lambda port: [asked(port, text), asked(port, b"again")])
    assert found == [text.upper(), b"AGAIN"]
    assert said == []


def test_forwarder_reports_who_does_not_answer() -> None:
    destination = Destination(IPv4Address("127.0.0.1"), free_port())
    found, said = while_it_runs(destination, ended)
    assert found == "reset"
    assert said == [f"shop/web:80: {destination} does not answer: Connection refused"]


def test_forwarder_gives_up_after_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(forwarder, "CONNECT_S", 0.05)
    monkeypatch.setattr(Forwarder, "_outside", silent)
    found, said = while_it_runs(Destination(FIRST, 80), ended)
    assert (found, said) == ("reset", ["shop/web:80: 192.168.77.20:80 does not answer: not within 0.05 s"])


SSH = """#!{python}
import socket, sys, threading, time
if "-N" in sys.argv:
    time.sleep(600)
host, _, port = sys.argv[sys.argv.index("-W") + 1].partition(":")
assert sys.argv[-1] == "worker1" and "ControlMaster=no" in sys.argv
try:
    far = socket.create_connection((host, int(port)))
except OSError:
    sys.exit("channel 0: open failed: connect failed: Connection refused")
def send():
    while data := sys.stdin.buffer.read1(4096):
        far.sendall(data)
    far.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := far.recv(4096):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `ssh -W` that needs no other machine."""
    program = tmp_path / "ssh"
    program.write_text(SSH.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.usefixtures("ssh")
def test_forwarder_reaches_a_cluster_ip_through_a_node() -> None:
    with far_end(shout) as destination:
        found, said = while_it_runs(replace(destination, node="worker1"), lambda port: asked(port, b"hello"))
    assert (found, said) == (b"HELLO", [])


@pytest.mark.usefixtures("ssh")
def test_forwarder_reports_the_complaint_of_ssh() -> None:
    destination = Destination(IPv4Address("127.0.0.1"), free_port(), "worker1")
    found, said = while_it_runs(destination, lambda port: asked(port, b""))
    assert found == b""
    assert said == [f"shop/web:80: {destination}: channel 0: open failed: connect failed: Connection refused"]


def test_forwarder_ends_by_ctrl_c_with_open_connections() -> None:
    carried, ended = threading.Event(), threading.Event()

    def hold(connection: socket.socket) -> None:
        connection.recv(1)
        carried.set()
        ended.wait(30)

    with far_end(hold) as destination:
        one = a_forward(destination)
        carrier = Forwarder(forwarder.listen([one]), "", Path("none"), lambda _text: None)

        def interrupt() -> None:
            with socket.create_connection(("127.0.0.1", one.local), timeout=10) as client:
                client.sendall(b"x")
                carried.wait(30)
                os.kill(os.getpid(), signal.SIGINT)
                client.recv(1)  # our end of it is closed too

        thread = threading.Thread(target=interrupt)
        began = time.monotonic()
        thread.start()
        carrier.run()
        thread.join()
        ended.set()
    assert time.monotonic() - began < forwarder.END_S + 20
    forwarder.listen([one])[one].close()  # the port is free again
