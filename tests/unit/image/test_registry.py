"""Whether the registry of an image answers, with a server of this test in its place."""

from __future__ import annotations

import urllib.error
from email.message import Message
from threading import Event

import pytest

from hoplab import image
from hoplab.image import registry

NGINX = "docker.io/nginx/nginx-ingress:5.5.3"


class Server:
    """Answers with a status, or raises what a connection raises."""

    def __init__(self, outcome: int | Exception) -> None:
        self.outcome, self.asked = outcome, list[tuple[str, float]]()

    def __call__(self, url: str, timeout: float) -> object:
        self.asked.append((url, timeout))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.outcome >= 400:
            raise urllib.error.HTTPError(url, self.outcome, "", Message(), None)
        return object()


@pytest.mark.parametrize(
    ("outcome", "wanted"),
    [
        (200, True),
        (401, True),  # it asks who we are
        (404, False),  # something else listens there
        (503, False),
        (TimeoutError("timed out"), False),
        (urllib.error.URLError("no such host"), False),
        (ConnectionResetError(), False),
    ],
)
def test_answers(outcome: int | Exception, wanted: bool) -> None:
    server = Server(outcome)
    assert registry.answers(NGINX, server) is wanted
    assert server.asked == [("https://registry-1.docker.io/v2/", registry.PATIENCE_S)]


def test_a_name_that_nobody_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "PATIENCE_S", 0.05)
    ended = Event()

    def get(_url: str, timeout: float) -> object:
        return ended.wait(60 + timeout)

    assert registry.answers(NGINX, get) is False
    ended.set()


def test_a_registry_is_asked_once() -> None:
    server = Server(200)
    assert registry.answers(NGINX, server) and registry.answers(NGINX, server)
    assert len(server.asked) == 1


@pytest.mark.parametrize("answer", [True, False])
def test_what_is_at_hand_is_not_asked_for(answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answers(name: str) -> bool:
        asked.append(name)
        return answer

    monkeypatch.setattr(registry, "answers", answers)
    offered = image.offered_ingress_controllers(["nginx", "readable"])  # readable is built here
    assert offered == (("nginx",) if answer else ())
    assert asked == [NGINX]
