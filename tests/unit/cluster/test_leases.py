"""Leases of the control plane's programs, released before a start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from hoplab.cluster import leases
from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths


def test_only_programs_that_elect_a_leader_have_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    @contextmanager
    def connect(_paths: LabPaths, _netns: str) -> Iterator[object]:
        yield lambda method, path: asked.append((method, path.rpartition("/")[2]))

    monkeypatch.setattr(leases, "connect_directly", connect)
    for program in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        leases.release(LabPaths("dev", tmp_path), "", program)
    assert asked == [("DELETE", "kube-controller-manager"), ("DELETE", "kube-scheduler")]


def test_without_an_answer_the_program_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_paths: LabPaths, _netns: str) -> NoReturn:
        raise ClusterError("the API server does not answer")

    monkeypatch.setattr(leases, "connect_directly", connect)
    leases.release(LabPaths("dev", tmp_path), "", "kube-scheduler")
