"""How `auto` comes to an ingress controller whose image is not here."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from hoplab.core.errors import ImageError
from hoplab.expectations.parts import known_parts
from hoplab.infra import context
from hoplab.spec.model import LabSpec
from tests.support.progress import RecordingProgress


class Noting(RecordingProgress):
    """A progress whose notes are expected."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Registries:
    """What context.py calls in hoplab/image: images at hand, those that registries offer, and what was pulled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, offers: Iterable[str], fails: str = "") -> None:
        self.at_hand, self.offers, self.fails = ["readable"], set(offers), fails
        self.asked, self.pulled = list[str](), list[str]()
        monkeypatch.setattr(context, "ingress_controllers", lambda: tuple(self.at_hand))
        monkeypatch.setattr(context, "offered_ingress_controllers", self.ask)
        monkeypatch.setattr(context, "pull_images", self.pull)

    def ask(self, names: Iterable[str]) -> tuple[str, ...]:
        self.asked += names
        return tuple(name for name in names if name in self.offers)

    def pull(self, role: str, _progress: object) -> None:
        if self.fails:
            raise ImageError(f"could not be pulled\n{self.fails}", remedy="")
        self.pulled.append(role)


def test_auto_pulls_what_it_prefers(monkeypatch: pytest.MonkeyPatch) -> None:
    registries, progress = Registries(monkeypatch, offers=["nginx"]), Noting()
    assert context.pull_for_auto(LabSpec("dev"), known_parts(), progress)
    assert registries.pulled == ["ingress_nginx"]
    assert progress.notes == [
        "ingress controller: the image of nginx is not at hand, its registry answers: it is pulled"
    ]


def test_auto_goes_on_without_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registries, progress = Registries(monkeypatch, offers=[]), Noting()
    assert not context.pull_for_auto(LabSpec("dev"), known_parts(), progress)
    assert (registries.asked, registries.pulled, progress.notes) == (["nginx"], [], [])


def test_auto_goes_on_when_a_registry_answers_and_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    Registries(monkeypatch, offers=["nginx"], fails="ctr: 429 Too Many Requests")
    progress = Noting()
    assert not context.pull_for_auto(LabSpec("dev"), known_parts(), progress)
    assert progress.notes[1:] == ["warning: ctr: 429 Too Many Requests"]


@pytest.mark.parametrize(
    "spec",
    [
        LabSpec("dev", ingress_controller="readable"),
        LabSpec("dev", ingress_controller="none"),
        LabSpec("dev", gateway_api=True),
    ],  # only readable serves that
)
def test_no_registry_is_asked_for_nothing(spec: LabSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    registries = Registries(monkeypatch, offers=["nginx"])
    assert context.pull_for_auto(spec, known_parts(), Noting())
    registries.at_hand.append("nginx")
    assert context.pull_for_auto(LabSpec("dev"), known_parts(), Noting())
    assert (registries.asked, registries.pulled) == ([], [])
