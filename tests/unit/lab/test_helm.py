"""`./lab helm`: which program it becomes, where, and with which kubeconfig. Nothing is built."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hoplab import image
from hoplab.core.errors import ClusterError, StateError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.lab import helm, host_access, state
from tests.support.labs import MADE
from tests.support.progress import RecordingProgress

Ran = list[tuple[Path, list[str], Mapping[str, str]]]


@pytest.fixture
def paths(tmp_path: Path) -> LabPaths:
    found = LabPaths("dev", project=tmp_path)
    state.save(replace(MADE, netns=""), found)
    return found


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    found: Ran = []

    def become(program: Path, words: list[str], environment: Mapping[str, str]) -> None:
        found.append((program, words, environment))

    def ensure(verb: str, _progress: Progress) -> Path:
        return Path("/cache") / verb

    monkeypatch.setattr(os, "execve", become)
    monkeypatch.setattr(image, "ensure_program", ensure)
    return found


def test_it_reaches_the_forwarded_api(paths: LabPaths, ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_access, "kubeconfig_text", lambda _paths: "of the loopback\n")
    helm.run(paths, ["install", "web", "./chart", "--help"], RecordingProgress())
    ((program, words, environment),) = ran
    assert (program, words) == (Path("/cache/helm"), ["helm", "install", "web", "./chart", "--help"])
    file = Path(environment["KUBECONFIG"])
    assert file.read_text() == "of the loopback\n" and file.stat().st_mode & 0o777 == 0o600
    assert file.is_relative_to(paths.root)
    assert Path(environment["KUBECACHEDIR"]).is_relative_to(paths.root)


def test_without_a_forwarded_api_it_runs_as_kubectl_does(
    paths: LabPaths, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org")

    def refused(_paths: LabPaths) -> str:
        raise ClusterError("not forwarded", remedy="./lab start")

    monkeypatch.setattr(host_access, "kubeconfig_text", refused)
    helm.run(paths, ["list", "-A"], RecordingProgress())
    ((_, words, environment),) = ran
    assert words == ["helm", "list", "-A"]
    assert environment["KUBECONFIG"] == str(paths.kubeconfig)
    assert Path(environment["KUBECACHEDIR"]).is_relative_to(paths.root)
    assert environment["NO_PROXY"].startswith("example.org,192.168.77.1")


def test_of_a_lab_that_is_not_there_nothing_is_built(tmp_path: Path, ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "ensure_program", lambda *_: pytest.fail("it is built"))
    with pytest.raises(StateError, match="there is no lab 'blue' here"):
        helm.run(LabPaths("blue", project=tmp_path), ["list"], RecordingProgress())
    assert ran == []
