"""What the user names: a recording, `now`, or a checkpoint, which has no facts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.lab.checkpoint.store import Store
from hoplab.observe.recording_format import RecordingError
from hoplab.verify import session
from hoplab.verify.changes import sides
from tests.support.files import RECORDINGS
from tests.support.recordings import recording

FILE = RECORDINGS / "flannel-vxlan.json"
LAB = recording("flannel-vxlan")


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabPaths:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return LabPaths("dev", tmp_path / "project")


def test_a_file_is_a_recording(paths: LabPaths) -> None:
    assert sides.find(str(FILE), paths) == sides.Side(str(FILE), LAB)


def test_now_is_the_look_of_record(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    @contextmanager
    def look(*given: Any) -> Iterator[SimpleNamespace]:
        opened.append(given)
        yield SimpleNamespace(snapshot=LAB)

    monkeypatch.setattr(session, "opened", look)
    say = print
    assert sides.find("now", paths, say).snapshot is LAB
    assert opened == [(paths, say)]


def test_a_checkpoint_has_no_facts(paths: LabPaths) -> None:
    (Store(paths).folder / "day-4").mkdir(parents=True)
    with pytest.raises(LabError, match="checkpoint day-4 of lab 'dev' has memory and disks, and no facts") as error:
        sides.find("day-4", paths)
    assert error.value.remedy.startswith("record the lab when you make one: ./lab record day-4.json; or restore it")
    assert error.value.exit_code == 2


def test_a_name_of_nothing(paths: LabPaths) -> None:
    with pytest.raises(LabError, match=r"there is no file 'gone.json', and lab 'dev' has no checkpoint") as error:
        sides.find("gone.json", paths)
    assert (error.value.exit_code, "./lab record" in error.value.remedy) == (2, True)


@pytest.mark.parametrize(
    ("text", "why"), [("{}", "'hoplab'"), ('{"hoplab": 99}', "its format is 99"), ("no JSON", "Expecting value")]
)
def test_a_file_that_is_no_recording_of_this_version(paths: LabPaths, text: str, why: str) -> None:
    Path("other.json").write_text(text)
    with pytest.raises(RecordingError, match=f"other.json is not a recording of a lab: {why}"):
        sides.find("other.json", paths)
    with pytest.raises(RecordingError, match="is not a recording of a lab"):
        sides.find(str(Path.cwd()), paths)
