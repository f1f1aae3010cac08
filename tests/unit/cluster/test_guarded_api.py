"""The API of a hurt lab: one request is waited for, the others fail at once or are read from the cache."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from hoplab.cluster.api import ApiUnreachable, KubernetesApi
from hoplab.cluster.guarded_api import GuardedApi
from hoplab.core.errors import ClusterError, UnavailableError

READY = (200, "[+]ping ok\n[+]etcd ok\nreadyz check passed")
NO_ETCD = (500, "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed")


class Server:
    """An API server whose answers are given by path; None is no answer. Each request takes 7 seconds."""

    def __init__(self, **answers: tuple[int, str] | None) -> None:
        self.answers = {f"/{name}": answer for name, answer in answers.items()}
        self.asked: list[str] = []
        self.now = 0.0

    def within(self, _timeout_s: float) -> Server:
        return self

    def request(self, method: str, path: str, _body: dict[str, Any] | None = None) -> tuple[int, str]:
        self.asked.append(f"{method} {path}")
        self.now += 7
        answer = self.answers.get(path.split("?", maxsplit=1)[0])
        if answer is None:
            raise ApiUnreachable(f"the API server does not answer {method} {path}: refused")
        return answer

    def guarded(self) -> GuardedApi:
        return GuardedApi(cast("KubernetesApi", self), lambda: self.now)


def test_an_api_that_answers_is_asked_as_it_is() -> None:
    server = Server(nodes=(200, '{"items": []}'), lost=(404, '{"message": "no"}'))
    api = server.guarded()
    assert api.read("/nodes") == {"items": []} and api("GET", "/lost") == (404, {"message": "no"})
    assert api.problem == "" and api.waited == 0 and server.asked == ["GET /nodes", "GET /lost"]


def test_an_api_that_does_not_answer_is_asked_once() -> None:
    server = Server()
    api = server.guarded()
    for _ in range(3):
        with pytest.raises(ApiUnreachable, match="does not answer GET /nodes: refused") as caught:
            api.read("/nodes")
        assert isinstance(caught.value, ClusterError) and isinstance(caught.value, UnavailableError)
        assert "./lab start" in caught.value.remedy
    assert server.asked == ["GET /nodes", "GET /readyz?verbose"]
    assert api.waited == 14 and not api.cached and not api.etcd_lost


def test_a_request_that_a_ready_server_refuses_is_an_answer() -> None:
    api = Server(metrics=(503, "no metrics"), readyz=READY, nodes=(200, "{}")).guarded()
    assert api("GET", "/metrics") == (503, {"message": "no metrics"})
    assert api("GET", "/nodes") == (200, {}) and api.problem == ""


def test_without_etcd_reads_come_from_the_cache_and_writes_fail() -> None:
    server = Server(nodes=(500, "etcdserver: request timed out"), readyz=NO_ETCD)
    api = server.guarded()
    assert api("GET", "/nodes") == (500, {"message": "etcdserver: request timed out"})
    assert server.asked[-1] == "GET /nodes?resourceVersion=0" and api.cached and api.etcd_lost
    server.answers["/pods"] = (200, json.dumps({"items": [1]}))
    assert api("GET", "/pods?limit=1") == (200, {"items": [1]})
    assert server.asked[-1] == "GET /pods?limit=1&resourceVersion=0"
    with pytest.raises(ApiUnreachable, match="answers /nodes with 500: etcdserver: request timed out"):
        api("POST", "/pods", {})
    assert api.failing == ("[-]etcd failed: reason withheld",)


def test_a_cache_that_does_not_answer_is_asked_once() -> None:
    server = Server(readyz=NO_ETCD)
    api = server.guarded()
    for _ in range(2):
        with pytest.raises(ApiUnreachable, match="does not answer GET /nodes"):
            api("GET", "/nodes")
    assert server.asked == ["GET /nodes", "GET /readyz?verbose", "GET /nodes?resourceVersion=0"]
    assert not api.cached


def test_a_ready_server_may_be_late_once() -> None:
    server = Server(readyz=READY, nodes=(200, "{}"))
    api = server.guarded()
    for lost in (False, True):
        with pytest.raises(ApiUnreachable, match="does not answer GET /pods"):
            api("GET", "/pods")
        assert bool(api.problem) == lost
        if not lost:
            assert api("GET", "/nodes") == (200, {}) and api.waited == 14


def test_a_server_that_is_not_ready_says_which_check_fails() -> None:
    api = Server(nodes=(503, "busy"), readyz=(500, "no lines")).guarded()
    with pytest.raises(ApiUnreachable, match="answers /nodes with 503: busy"):
        api("GET", "/nodes")
    assert api.failing == ("/readyz answers with 500",)
