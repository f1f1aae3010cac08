"""What lessons send to a lab and change in it: bodies from outside, edited objects, a scaled deployment."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from hoplab.core.errors import ClusterError
from hoplab.observe.facts import Facts
from hoplab.verify.external import ExternalHost
from hoplab.verify.objects import INGRESSES
from hoplab.verify.workload import APP1, APP2
from tests.support.imaginary.ingress import WITHOUT, World

HERE = IPv4Address("127.0.0.1")


@contextmanager
def server(answer: bytes, reads: int) -> Iterator[tuple[int, list[bytes]]]:
    """A server on the loopback that answers one request after this many bytes of it, and closes the connection."""
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                while sum(map(len, got)) < reads and (more := connection.recv(65536)):
                    got.append(more)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # an nginx lingers too, so that the answer is not lost
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1], got
        thread.join()


@pytest.mark.parametrize("reads", [1, 500_000])
def test_a_body_is_posted_and_may_be_refused_before_it_is_read(reads: int) -> None:
    outside = ExternalHost(HERE, 0, "", {})
    with server(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", reads) as (port, got):
        reply = outside.fetch(f"http://app1.yash.com:{port}/", HERE, 10, body=bytes(500_000))
    assert reply.status == 413
    assert got[0].startswith(b"POST / HTTP/1.1\r\n") and b"Content-Length: 500000\r\n" in got[0]


def test_an_edit_and_its_annotations_are_undone() -> None:
    kept: dict[str, Any] = {"metadata": {"annotations": {"a": "1"}}, "spec": {"x": 1}, "data": {"y": 2}}
    states: list[dict[str, Any]] = []

    def api(method: str, _path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        if method == "PUT":
            assert body
            states.append(body)
        return 200, states[-1] if states else kept

    def edit(item: dict[str, Any]) -> None:
        item["metadata"]["annotations"]["b"] = "2"
        item["spec"] = {"x": 3}

    session = World().session()
    object.__setattr__(session, "api", api)
    with session.edited(f"{INGRESSES}/apps", edit):
        assert states == [{"metadata": {"annotations": {"a": "1", "b": "2"}}, "spec": {"x": 3}, "data": {"y": 2}}]
    assert states[-1] == kept


def test_a_deployment_is_scaled_once_for_all_lessons() -> None:
    world = World()
    session = world.session()
    first = session.scaling()
    asked = world.turn
    assert session.scaling() is first and world.turn == asked
    assert (first.deployment, len(first.before), len(first.more)) == (APP1, 2, 3)
    assert first.edited_to in session.endpoints(APP2)
    assert first.stream.sent and not first.stream.lost


def test_rules_are_not_waited_for_where_programs_do_kube_proxys_work() -> None:
    session, asked = World().session(), []
    lab = session.snapshot

    def rules_when(wanted: Callable[[Facts], bool]) -> dict[str, Facts]:
        asked.append(wanted(Facts("worker1", {})))  # not one rule
        return {}

    object.__setattr__(session, "rules_when", rules_when)
    without = replace(lab.setting, cni="cilium", proxy_mode="cilium")
    object.__setattr__(session, "snapshot", replace(lab, setting=without))
    assert len(session.scaling().more) == 3
    assert asked == [True, True]


def test_why_it_could_not_be_scaled_is_the_same_for_all_lessons() -> None:
    session = World(there=False).session()
    with pytest.raises(ClusterError, match=r"ingresses/apps can't be changed: not found") as first:
        session.scaling()
    with pytest.raises(ClusterError) as second:
        session.scaling()
    assert first.value is second.value


def test_scaling_begins_early_only_where_no_other_lesson_looks_at_the_deployment() -> None:
    alone = World().session()
    object.__setattr__(alone, "snapshot", WITHOUT)
    alone.begin_scaling()
    assert "_scaling" not in vars(alone)
    session = World().session()
    session.begin_scaling()
    begun = vars(session)["_scaling"]
    session.settle()
    assert begun.done() and session.scaling() is begun.result()


def test_nothing_is_waited_for_where_nothing_is_scaled() -> None:
    session = World().session()
    session.settle()
    assert "_scaling" not in vars(session)
