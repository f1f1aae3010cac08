"""Which commands of a user who is not root enter their namespaces: on private labs, and only where it is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hoplab.core.paths import LabPaths
from hoplab.lab import rootless, state
from tests.support.labs import MADE


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    entered: list[str] = []
    monkeypatch.setattr("hoplab.lab.rootless.rootless", lambda: True)
    monkeypatch.setattr("hoplab.host.rootless.enter", lambda: entered.append("entered"))
    return entered


def lab(folder: Path, spec: str = "config: {}\n") -> LabPaths:
    paths = LabPaths("dev", folder)
    paths.spec.write_text(spec)
    return paths


SYSTEM = "config: {lab:libvirt: system}\n"


def test_a_lab_that_exists_is_where_its_state_says(tmp_path: Path) -> None:
    paths = lab(tmp_path, SYSTEM)
    paths.root.mkdir(parents=True)
    for netns, private in (("hoplab-dev-1", True), ("", False)):
        state.save(replace(MADE, netns=netns), paths)
        assert rootless.is_private(paths) == private


def test_a_lab_without_a_state_is_where_its_files_are_or_its_spec_says(tmp_path: Path) -> None:
    assert rootless.is_private(lab(tmp_path))
    assert not rootless.is_private(lab(tmp_path, SYSTEM))
    paths = lab(tmp_path, SYSTEM)
    paths.libvirt.mkdir(parents=True)  # half made, before the spec was changed
    assert rootless.is_private(paths)


def test_a_broken_spec_is_no_reason_to_stay_outside(tmp_path: Path) -> None:
    assert rootless.is_private(lab(tmp_path, "config: [\n"))


def test_what_makes_nothing_enters_only_where_a_lab_is(tmp_path: Path, entered: list[str]) -> None:
    paths = lab(tmp_path)
    rootless.enter(paths, makes=False)
    assert entered == []
    rootless.enter(paths, makes=True)
    rootless.enter(None, makes=True)  # node images
    assert len(entered) == 2
    paths.root.mkdir(parents=True)
    rootless.enter(paths, makes=False)
    assert len(entered) == 3


def test_a_lab_of_the_systems_libvirt_is_not_entered(tmp_path: Path, entered: list[str]) -> None:
    rootless.enter(lab(tmp_path, SYSTEM), makes=True)
    assert entered == []


def test_as_root_nothing_is_entered(tmp_path: Path, entered: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.lab.rootless.rootless", lambda: False)
    rootless.enter(lab(tmp_path), makes=True)
    assert entered == []
