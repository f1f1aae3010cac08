"""Stages are there whole or not at all, one build runs at a time, and a full disk is said to be one."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections import namedtuple
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from hoplab.core.errors import HostError, ImageError
from hoplab.core.lock import locked
from hoplab.image import commands
from hoplab.image.store import GIB, Store, digest, tree_digest

Usage = namedtuple("Usage", "total used free")


class Notes:
    """Progress that keeps what was noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.noted = threading.Event()

    def phase(self, title: str) -> AbstractContextManager[None]:
        return nullcontext()

    def task(self, text: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.noted.set()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "image")


def write(output: Path) -> dict[str, Any]:
    (output / "file").write_text("content")
    return {"fact": 1}


def test_a_stage_is_made_once(store: Store) -> None:
    made = store.make("thing", "k1", write, space_gib=0)

    def never(output: Path) -> dict[str, Any]:
        raise AssertionError("built again")

    assert store.make("thing", "k1", never, space_gib=0) == made
    assert (made.directory / "file").read_text() == "content"
    assert store.manifest(made.directory)["fact"] == 1
    assert store.find("thing", "k2") is None


def test_content_digest_tells_what_came_of_it(store: Store) -> None:
    def other(output: Path) -> dict[str, Any]:
        (output / "file").write_text("other content")
        return {}

    one, two, same = (
        store.make("thing", key, build, space_gib=0) for key, build in (("1", write), ("2", other), ("3", write))
    )
    assert one.content == same.content != two.content


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_an_interrupted_stage_leaves_nothing(store: Store, error: BaseException) -> None:
    def broken(output: Path) -> dict[str, Any]:
        write(output)
        (output.parent / "scratch").write_text("half")
        raise error

    with pytest.raises(type(error)):
        store.make("thing", "k1", broken, space_gib=0)
    assert store.find("thing", "k1") is None
    assert not list(store.work.iterdir())


def test_the_next_build_removes_what_a_dead_one_left(store: Store) -> None:
    (store.work / "123-thing" / "out").mkdir(parents=True)
    progress = Notes()
    with store.locked(progress):
        assert not list(store.work.iterdir())
    assert progress.notes == ["removing what an interrupted build left: 123-thing"]


def test_a_second_build_waits_and_says_for_whom(store: Store) -> None:
    store.root.mkdir(parents=True)
    progress = Notes()
    entered = threading.Event()

    def second() -> None:
        with store.locked(progress):
            entered.set()

    with locked(store.root / "lock", "image build"):
        waiting = threading.Thread(target=second)
        waiting.start()
        assert progress.noted.wait(5)
        assert not entered.is_set()
    waiting.join(5)
    assert entered.is_set()
    [note] = progress.notes
    assert note.startswith(f"the node image is being worked on by `image build` (pid {os.getpid()}) since ")
    assert note.endswith("; waiting for it to end")


def test_too_little_space_is_refused_before_anything_is_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, GIB))
    with pytest.raises(ImageError) as caught:
        store.make("node", "k1", write, space_gib=6)
    assert caught.value.message == (
        "not enough disk space for the image stage node: it needs 6.0 GiB, 1.0 GiB are free in " + str(store.root)
    )
    assert "image prune" in caught.value.remedy
    assert not store.work.exists()


def test_a_disk_that_fills_up_is_explained(store: Store) -> None:
    def full(output: Path) -> dict[str, Any]:
        write(output)
        raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(ImageError, match="not enough disk space for the image stage node"):
        store.make("node", "k1", full, space_gib=0)
    assert not list(store.work.iterdir())


def test_other_io_errors_are_not_called_a_full_disk(store: Store) -> None:
    def broken(output: Path) -> dict[str, Any]:
        raise PermissionError(errno.EACCES, "no")

    with pytest.raises(PermissionError):
        store.make("node", "k1", broken, space_gib=0)


def test_tree_digest_sees_names_modes_and_contents(tmp_path: Path) -> None:
    file = tmp_path / "a" / "file"
    file.parent.mkdir()
    file.write_text("one")
    seen = [tree_digest([tmp_path], tmp_path)]
    file.write_text("two")
    seen.append(tree_digest([tmp_path], tmp_path))
    file.chmod(0o755)
    seen.append(tree_digest([tmp_path], tmp_path))
    file.rename(tmp_path / "a" / "other")
    seen.append(tree_digest([tmp_path], tmp_path))
    assert len(set(seen)) == 4
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_text("")
    assert tree_digest([tmp_path], tmp_path) == seen[-1]
    assert digest(1, 2) != digest(2, 1)


def test_missing_programs_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: None if program in {"go", "mmdebstrap"} else f"/bin/{program}")
    with pytest.raises(HostError) as caught:
        commands.require(["go", "mmdebstrap", "tar"])
    assert caught.value.message == "building the node image needs go, mmdebstrap"
    assert caught.value.remedy == "apt-get install --no-install-recommends golang-go mmdebstrap"


def test_it_must_be_root_of_the_host_or_of_own_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(HostError, match="is built by root, or in namespaces of your own") as refused:
        commands.require({})
    assert refused.value.remedy == "./lab image build"


def test_a_command_that_fails_shows_its_last_lines_and_names_the_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    seen: list[str] = []
    with pytest.raises(ImageError) as caught:
        commands.run(["sh", "-c", "seq 1 40; echo broken >&2; exit 3"], "counting", log, on_line=seen.append)
    assert caught.value.message.startswith("counting failed (exit status 3):\n27\n")
    assert caught.value.message.endswith("40\nbroken")
    assert caught.value.log == str(log)
    assert len(seen) == 41
    assert log.read_text().startswith("$ sh -c seq")


def test_a_command_that_fills_the_disk_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        commands.run(["sh", "-c", "echo 'write: No space left on device'; exit 1"], "writing", tmp_path / "x.log")
    assert caught.value.errno == errno.ENOSPC
