"""LabState on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hoplab.core.errors import StateError
from hoplab.core.paths import LabPaths
from hoplab.lab import state
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import plan_lab

PLAN = plan_lab(LabSpec("dev"), lab_id="dev-1a2b3c", accel="tcg")


def made() -> state.LabState:
    return state.lab_state(PLAN, libvirt_uri="test:///default", netns="", image="abc", image_bin=Path("/image/bin"))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    paths = LabPaths("dev", tmp_path)
    lab = replace(made(), phases=(("machines", 1.5),))
    state.save(lab, paths)
    assert state.load(paths) == lab
    assert not list(paths.root.glob("*.part"))


def test_the_state_is_the_twin_of_the_plan() -> None:
    lab = made()
    assert [node.name for node in lab.nodes] == [node.name for node in PLAN.nodes]
    assert lab.gateway == str(PLAN.network.gateway)
    assert lab.hosted


def test_no_lab(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no lab 'dev' here") as failed:
        state.load(LabPaths("dev", tmp_path))
    assert "./lab up --lab dev" in failed.value.remedy


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({"nodes": [{"surprise": 1}], "phases": []})])
def test_an_unreadable_state(tmp_path: Path, text: str) -> None:
    paths = LabPaths("dev", tmp_path)
    paths.root.mkdir(parents=True)
    paths.state.write_text(text)
    with pytest.raises(StateError, match="can't be read as a lab's state") as failed:
        state.load(paths)
    assert "./lab up --lab dev" in failed.value.remedy
