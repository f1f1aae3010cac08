"""One look at a running lab, which creates nothing there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hoplab import image
from hoplab.core.paths import LabPaths
from hoplab.lab import state
from hoplab.verify import live_look


def test_it_takes_one_snapshot_and_closes_its_connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done: list[str] = []
    nodes = [SimpleNamespace(name="worker1"), SimpleNamespace(name="worker2")]
    lab = SimpleNamespace(image="0123456789abcdef", accel="tcg", netns="lab", nodes=nodes)

    class Hosts:
        def __init__(self, names: list[str], _config: Path) -> None:
            done.append(f"ssh {names}")

        def close(self) -> None:
            done.append("closed")

    @contextmanager
    def connect(_paths: LabPaths, netns: str, **_options: Any) -> Iterator[object]:
        done.append(f"api {netns}")
        yield object()
        done.append("api closed")

    def partial_look(setting: str, versions: dict[str, str], *_more: object, without: frozenset[str]) -> Any:
        assert not without
        assert setting == "the setting" and versions == {
            "kubernetes": "1.37.2",
            "image": "0123456789ab",
            "accel": "tcg",
        }
        return lambda: done.append("looked") or "a snapshot"  # type: ignore[func-returns-value]

    monkeypatch.setattr(state, "load", lambda _: lab)
    monkeypatch.setattr(state, "built_setting", lambda *_: "the setting")
    monkeypatch.setattr(image, "component_versions", lambda: {"kubernetes": "1.37.2"})
    for name, stand_in in (("connect", connect), ("Hosts", Hosts), ("PartialLook", partial_look)):
        monkeypatch.setattr(live_look, name, stand_in)
    monkeypatch.setattr(live_look, "GuardedApi", lambda api: api)
    monkeypatch.setattr(live_look, "Diagnosis", lambda *_: None)
    assert live_look.look(LabPaths("dev", tmp_path), done.append) == "a snapshot"  # type: ignore[comparison-overlap]
    assert done == ["api lab", "ssh ['worker1', 'worker2']", "looking at the nodes", "looked", "closed", "api closed"]
