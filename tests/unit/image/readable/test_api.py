"""The API client of `readable`, against a TLS server that answers as it is told."""

from __future__ import annotations

import http.client
import itertools
import random
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hoplab.image.readable import api as subject
from hoplab.image.readable.api import Api, Refused, follow
from tests.support.api_server import Answer, ApiServer, serving

PATH = "/api/v1/services"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with serving(tmp_path / "account") as running:
        yield running


@pytest.fixture
def api(server: ApiServer) -> Api:
    return Api("127.0.0.1", server.port, server.account)


def item(name: str, version: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": name, "resourceVersion": version}, **more}


def listing(version: str, *items: dict[str, Any]) -> Answer:
    return Answer(body={"metadata": {"resourceVersion": version}, "items": list(items)})


def change(kind: str, changed: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": changed}


def bookmark(version: str) -> dict[str, Any]:
    return change("BOOKMARK", {"metadata": {"resourceVersion": version}})


class Enough(Exception):
    """The test has seen enough rounds."""


def followed(api: Api, rounds: int, pause: Callable[[int], None] = lambda _: None) -> list[list[str]]:
    """Follow for that many rounds; the names (with ``x``, if they have any) after each change."""
    seen: list[list[str]] = []
    count = itertools.count(1)

    def sleep(_seconds: float) -> None:
        number = next(count)
        pause(number)
        if number >= rounds:
            raise Enough

    def changed(objects: Any) -> None:
        seen.append(sorted(name + str(found.get("x", "")) for name, found in objects.items()))

    with pytest.raises(Enough):
        follow(api, PATH, {}, changed, sleep)
    return seen


def test_a_request_has_the_token_and_the_query(server: ApiServer, api: Api) -> None:
    server.answers = [listing("7", item("one", "3"))]
    found = api.get(PATH, {"fieldSelector": "type=kubernetes.io/tls"})
    assert [each["metadata"]["name"] for each in found["items"]] == ["one"]
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", PATH)
    assert request.query == {"fieldSelector": "type=kubernetes.io/tls"}
    assert request.headers["Authorization"] == "Bearer a-token"


def test_what_is_written(server: ApiServer, api: Api) -> None:
    server.answers = [Answer(201, {}), Answer(200, {}), Answer(200, {})]
    api.post("/api/v1/namespaces/shop/events", {"reason": "NoService"})
    api.patch("/some/status", {"status": {"ä": []}})
    api.delete("/some/service")
    made, changed, removed = server.requests
    assert (made.method, made.body, made.headers["Content-Type"]) == (
        "POST",
        {"reason": "NoService"},
        "application/json",
    )
    assert (removed.method, removed.path, removed.body) == ("DELETE", "/some/service", None)
    assert (changed.method, changed.body) == ("PATCH", {"status": {"ä": []}})
    assert changed.headers["Content-Type"] == "application/merge-patch+json"


def test_a_list_and_its_changes(server: ApiServer, api: Api) -> None:
    server.answers = [
        listing("5", item("one", "2"), item("two", "3")),
        Answer(
            lines=[
                change("ADDED", item("three", "6")),
                change("MODIFIED", item("one", "7", x="!")),
                change("DELETED", item("two", "8")),
            ]
        ),
    ]
    assert followed(api, 1) == [
        ["shop/one", "shop/two"],
        ["shop/one", "shop/three", "shop/two"],
        ["shop/one!", "shop/three", "shop/two"],
        ["shop/one!", "shop/three"],
    ]
    assert server.asked == ["list", "watch from 5"]
    assert server.requests[1].query["allowWatchBookmarks"] == "1"
    assert server.requests[1].query["timeoutSeconds"] == "600"


def test_the_next_watch_continues_from_the_last_event_or_bookmark(server: ApiServer, api: Api) -> None:
    server.answers = [
        listing("5"),
        Answer(lines=[change("ADDED", item("one", "6"))]),
        Answer(lines=[bookmark("90")]),
        Answer(lines=[]),
        Answer(lines=[]),
    ]
    assert followed(api, 4) == [[], ["shop/one"]], "a bookmark changes nothing"
    assert server.asked == ["list", "watch from 5", "watch from 6", "watch from 90", "watch from 90"]


GONE = {"kind": "Status", "code": 410, "message": "too old resource version"}


@pytest.mark.parametrize("gone", [Answer(410, GONE), Answer(lines=[change("ERROR", GONE)])], ids=["status", "event"])
def test_a_version_that_is_too_old_is_listed_again(server: ApiServer, api: Api, gone: Answer) -> None:
    server.answers = [listing("5", item("one", "2")), gone, listing("80", item("two", "70")), Answer(lines=[])]
    assert followed(api, 2) == [["shop/one"], ["shop/two"]]
    assert server.asked == ["list", "watch from 5", "list", "watch from 80"]


def test_a_kind_that_the_api_does_not_have_has_no_objects(server: ApiServer, api: Api) -> None:
    """Definitions of kinds come and go; what else is served must not wait for them."""
    missing = Answer(404, {"message": "the server could not find the requested resource"})
    server.answers = [missing, listing("5", item("one", "2")), missing, listing("7"), Answer(lines=[])]
    assert followed(api, 3) == [[], ["shop/one"], [], []]
    assert server.asked == ["list", "list", "watch from 5", "list", "watch from 7"]


def test_an_error_in_a_watch_that_is_not_about_versions_lists_nothing(server: ApiServer, api: Api) -> None:
    server.answers = [
        listing("5"),
        Answer(lines=[change("ERROR", {"code": 500, "message": "etcd"})]),
        Answer(lines=[]),
    ]
    followed(api, 2)
    assert server.asked == ["list", "watch from 5", "watch from 5"]


@pytest.mark.parametrize(
    "rest", [(), (b'{"type": "MODIFIED", "obj',), (b'{"type": "MODIFIED"}',)], ids=["between", "within", "at the end"]
)
def test_a_cut_connection_is_taken_up_where_it_was(
    server: ApiServer, api: Api, rest: tuple[bytes, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [
        listing("5"),
        Answer(lines=[change("ADDED", item("one", "6")), *rest], cut=True),
        Answer(lines=[change("DELETED", item("one", "7"))]),
    ]
    assert followed(api, 2) == [[], ["shop/one"], []]
    assert server.asked == ["list", "watch from 5", "watch from 6"]
    assert ("the response ends within a line" in capsys.readouterr().err) == bool(rest)


def test_a_list_that_is_cut_is_no_list(server: ApiServer, api: Api) -> None:
    server.answers = [
        Answer(body={"metadata": {"resourceVersion": "1"}, "items": []}, cut=True),
        listing("5", item("one", "2")),
        Answer(lines=[]),
    ]
    assert followed(api, 2) == [["shop/one"]]


def test_an_expired_token_is_read_again(server: ApiServer, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [listing("5", item("one", "2")), Answer(401, {"message": "Unauthorized"}), Answer(lines=[])]

    def renew(number: int) -> None:
        (server.account / "token").write_text(f"token-{number}")

    assert followed(api, 2, renew) == [["shop/one"]], "what was seen holds"
    sent = [request.headers["Authorization"] for request in server.requests]
    assert sent == ["Bearer a-token", "Bearer a-token", "Bearer token-1"]
    assert f"watching {PATH}: 401: Unauthorized" in capsys.readouterr().err


@pytest.mark.parametrize(
    "garbage",
    [
        [Answer(body=b"<html>")],
        [Answer(body=[])],
        [Answer(body={"items": None, "metadata": {"resourceVersion": "1"}})],
        [Answer(body={"items": [{}], "metadata": {"resourceVersion": "1"}})],
        [listing("5", item("two", "2")), Answer(lines=[b"no json\n"])],
        [listing("5", item("two", "2")), Answer(lines=[["a"]])],
        [listing("5", item("two", "2")), Answer(lines=[{"type": "ADDED", "object": {"metadata": {}}}])],
        [listing("5", item("two", "2")), Answer(lines=[b"\xff\n"])],
    ],
)
def test_after_garbage_everything_is_listed(server: ApiServer, api: Api, garbage: list[Answer]) -> None:
    server.answers = [*garbage, listing("9", item("one", "8")), Answer(lines=[])]
    assert followed(api, 2)[-1] == ["shop/one"]
    assert server.asked[-2:] == ["list", "watch from 9"]


def test_a_server_that_is_away_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path) as gone:
        port = gone.port
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 9:
            raise Enough

    with pytest.raises(Enough):
        follow(Api("127.0.0.1", port, tmp_path), PATH, {}, lambda _: None, sleep)
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert "Connection refused" in capsys.readouterr().err


def test_only_an_event_shortens_the_waits_again(server: ApiServer, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that lists and then refuses every watch is not asked four times a second for ever."""
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 4:
            raise Enough

    server.answers = [listing("5"), Answer(410, GONE), listing("6"), Answer(410, GONE), listing("7")]
    server.answers += [Answer(lines=[bookmark("8")]), Answer(lines=[])]
    with pytest.raises(Enough):
        follow(api, PATH, {}, lambda _: None, sleep)
    assert waits == [0.25, 0.5, 0.25, 0.5]


def test_a_silent_server_is_given_up(server: ApiServer, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "TIMEOUT", 0.3)
    monkeypatch.setattr(subject, "WATCH", 0)
    server.answers = [listing("5"), Answer(lines=[change("ADDED", item("one", "6"))], hang=True), Answer(lines=[])]
    assert followed(api, 2) == [[], ["shop/one"]]
    assert server.asked == ["list", "watch from 5", "watch from 6"]


def test_a_watch_may_be_silent_longer_than_a_list(server: ApiServer, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "TIMEOUT", 0.3)
    limits: list[float | None] = []
    real = http.client.HTTPSConnection.getresponse

    def getresponse(connection: http.client.HTTPSConnection) -> http.client.HTTPResponse:
        limits.append(connection.sock.gettimeout())
        return real(connection)

    monkeypatch.setattr(http.client.HTTPSConnection, "getresponse", getresponse)
    server.answers = [listing("5"), Answer(lines=[])]
    followed(api, 1)
    assert limits == [0.3, 600.3]


def test_a_connection_that_leads_nowhere_any_more_is_noticed(
    server: ApiServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[int] = []
    real = http.client.HTTPSConnection.getresponse

    def getresponse(connection: http.client.HTTPSConnection) -> http.client.HTTPResponse:
        options.append(connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        options.append(connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))
        return real(connection)

    monkeypatch.setattr(http.client.HTTPSConnection, "getresponse", getresponse)
    server.answers = [listing("5")]
    api.get(PATH, {})
    assert options == [1, 10]


def test_a_server_of_another_ca_gets_no_token(server: ApiServer, tmp_path: Path) -> None:
    with serving(tmp_path / "other") as other, pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        Api("127.0.0.1", server.port, other.account).get(PATH, {})
    assert server.requests == []


def test_a_server_of_another_name_gets_no_token(tmp_path: Path) -> None:
    with serving(tmp_path / "other", host="127.0.0.2") as other:
        with pytest.raises(ssl.SSLError, match="IP address mismatch"):
            Api("127.0.0.1", other.port, other.account).get(PATH, {})
        assert other.requests == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"message": "no such thing"}, "no such thing"),
        (b"nope\n", "nope"),
        (["x"], '["x"]'),
        (b"\xff", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_refusal_has_the_servers_words(server: ApiServer, api: Api, body: Any, message: str) -> None:
    server.answers = [Answer(403, body)]
    with pytest.raises(Refused) as refused:
        api.get(PATH, {})
    assert (refused.value.code, str(refused.value)) == (403, f"403: {message}")


def test_a_redirect_is_not_followed(server: ApiServer, api: Api) -> None:
    server.answers = [Answer(302, {})]
    with pytest.raises(Refused):
        api.get(PATH, {})


def test_without_a_service_account(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Api("127.0.0.1", 1, tmp_path).get(PATH, {})


def test_key() -> None:
    assert subject.key({"metadata": {"namespace": "shop", "name": "one"}}) == "shop/one"
    assert subject.key({"metadata": {"name": "nginx"}}) == "/nginx"
