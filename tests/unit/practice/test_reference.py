"""An exercise on a lab that is put back to a checkpoint first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from hoplab import cli
from hoplab.core.errors import LabError
from hoplab.lab.checkpoint import create
from hoplab.lab.checkpoint.manifest import CheckpointError
from hoplab.practice import PracticeError, reference
from tests.support.checkpoint_lab import CheckpointLab

COMMAND = "./lab practice start bridge --from day-4"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointLab:
    lab = CheckpointLab(tmp_path, monkeypatch)
    create.create(lab.paths, "day-4", lab.progress)
    lab.change("practised")
    return lab


def test_the_lab_returns_to_its_reference_state(lab: CheckpointLab) -> None:
    restored = reference.return_to(lab.paths, "day-4", COMMAND, lab.progress, yes=True)
    assert restored.manifest.name == "day-4"
    assert (lab.machines(), lab.content()) == ({("running", "first")}, ("disk 1", "etcd"))


def test_a_lab_that_was_destroyed_is_there_again(lab: CheckpointLab) -> None:
    lab.destroy()
    reference.return_to(lab.paths, "day-4", COMMAND, lab.progress, yes=False)
    assert lab.machines() == {("running", "first")}


def test_nothing_is_lost_without_yes(lab: CheckpointLab) -> None:
    with pytest.raises(PracticeError, match="the present state of lab 'dev', with every exercise in it") as refused:
        reference.return_to(lab.paths, "day-4", COMMAND, lab.progress, yes=False)
    assert refused.value.remedy == f"if that is what you want: {COMMAND} --yes"
    assert lab.machines() == {("running", "practised")}


def test_no_such_checkpoint(lab: CheckpointLab) -> None:
    with pytest.raises(CheckpointError, match="lab 'dev' has no checkpoint 'day-5'") as refused:
        reference.return_to(lab.paths, "day-5", COMMAND, lab.progress, yes=False)
    assert refused.value.remedy == "it has: day-4"


def test_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def no(paths: Any, checkpoint: str, command: str, _progress: object, *, yes: bool) -> None:
        asked.append((paths.lab, checkpoint, command, yes))
        raise LabError("enough")

    monkeypatch.setattr(reference, "return_to", no)
    words = ["practice", "start", "bridge", "--from", "day-4", "--lab", "blue", "--yes"]
    with pytest.raises(LabError, match="enough"):
        CliRunner().invoke(cli.cli, words, catch_exceptions=False)
    assert asked == [("blue", "day-4", "./lab practice start bridge --from day-4 --lab blue", True)]


def test_yes_alone_is_a_mistake() -> None:
    ran = CliRunner().invoke(cli.cli, ["practice", "start", "bridge", "--yes"])
    assert ran.exit_code == click.UsageError.exit_code and "--yes is for --from" in ran.output
