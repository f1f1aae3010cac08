"""What is known of ingress controllers: how their configuration and their log are read."""

from __future__ import annotations

import pytest

from hoplab import ingress
from hoplab.errors import LabError
from hoplab.image.readable import controller
from hoplab.ingress import Access, nginx_conf, readable
from tests.unit.conftest import GOLDEN

CONF = (GOLDEN / "readable.nginx.conf").read_text()


def test_by_name() -> None:
    assert ingress.chosen("readable").NAMESPACE == readable.NAMESPACE
    with pytest.raises(LabError, match="nothing is known of the ingress controller 'other'") as failed:
        ingress.chosen("other")
    assert "hoplab/ingress/" in failed.value.remedy


def test_the_promise_names_the_controller_that_is_there() -> None:
    assert readable.CONTROLLER == controller.CONTROLLER


def test_server_blocks() -> None:
    found = {each.host: each.paths for each in readable.served(CONF)}
    assert found["app1.yash.com"] == {
        "/login": ("10.244.1.4:8080",),
        "/api": (),
        "/": ("10.244.0.3:8080", "10.244.1.3:8080"),
    }
    assert found[r"~^[^.]+\.yash\.com$"] == {'/a b"; }': ("10.244.1.4:8080",), "/": ()}
    assert found[""] == {"/": ()}


def test_quotes_comments_and_words() -> None:
    found = nginx_conf.parse('a \'b; c\' "d \\" e"; # f;\ng ${h}i { j k; } l')
    assert [each.words for each in found.block] == [("a", "b; c", 'd " e'), ("g", "${h}i")]
    assert found.value("j") == ("k",) and found.value("x") == ()


@pytest.mark.parametrize("text", ["}", "a { b", "server { location", ";"])
def test_half_a_file(text: str) -> None:
    nginx_conf.served(text)


def test_access_log() -> None:
    line = (
        '192.168.77.1 https://app1.yash.com "GET /login?a=b HTTP/1.1" 200 '
        "-> shop.one.80 10.244.1.3:8080, 10.244.0.3:8080 502, 200"
    )
    assert readable.access(f"{line}\n") == Access(
        "192.168.77.1", "app1.yash.com", "/login?a=b", 200, "10.244.0.3:8080", line
    )
    nobody = readable.access('192.168.77.1 http://x "GET / HTTP/1.1" 404 -> - - -')
    assert nobody and (nobody.status, nobody.upstream) == (404, "")
    assert readable.access("2026/11/25 13:23:15 [notice] 7#7: signal 1") is None
