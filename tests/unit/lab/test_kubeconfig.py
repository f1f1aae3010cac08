"""The user's kubeconfig as a file: which one, its lock, mode and links; a file that can't be edited stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hoplab.core.errors import FileError
from hoplab.core.paths import LabPaths
from hoplab.core.wait import Timing
from hoplab.lab import kubeconfig
from tests.support.kubeconfigs import KUBECTLS, OWN

SERVER = "https://127.0.0.1:23456"


@pytest.fixture
def paths(tmp_path: Path) -> LabPaths:
    return LabPaths("dev", tmp_path / "project")


def test_the_file_is_the_one_that_kubectl_writes_to(
    paths: LabPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert kubeconfig.users_file(paths) == tmp_path / ".kube" / "config"
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/a::{tmp_path}/b")
    assert kubeconfig.users_file(paths) == tmp_path / "b"
    (tmp_path / "a").touch()
    assert kubeconfig.users_file(paths) == tmp_path / "a"
    monkeypatch.setenv("KUBECONFIG", str(paths.kubeconfig))  # the lab's own is no place for contexts
    assert kubeconfig.users_file(paths) == tmp_path / ".kube" / "config"


def test_a_new_file_is_its_users_alone_and_goes_with_the_lab(paths: LabPaths, tmp_path: Path) -> None:
    file = tmp_path / "home" / ".kube" / "config"
    assert kubeconfig.offer(OWN, paths, SERVER, file) == "hoplab-dev"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert kubeconfig.withdraw(paths, file) == ["hoplab-dev"]
    assert list(file.parent.iterdir()) == []
    assert kubeconfig.withdraw(paths, file) == []


def test_a_file_keeps_mode_link_and_content(paths: LabPaths, tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles", tmp_path / "config"
    real.write_bytes(KUBECTLS.replace("\n", "\r\n").encode())
    real.chmod(0o640)
    link.symlink_to(real)
    kubeconfig.offer(OWN, paths, SERVER, link)
    assert link.is_symlink() and real.stat().st_mode & 0o777 == 0o640
    assert b"hoplab-dev" in real.read_bytes()
    assert kubeconfig.withdraw(paths, link) == ["hoplab-dev"]
    assert link.is_symlink() and real.read_bytes() == KUBECTLS.replace("\n", "\r\n").encode()
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file to somebody")
def test_a_file_of_another_user_stays_that_users(paths: LabPaths, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(KUBECTLS)
    os.chown(file, 12345, 12346)
    kubeconfig.offer(OWN, paths, SERVER, file)
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 12346)


def test_a_renewed_lab_that_says_the_same_writes_nothing(paths: LabPaths, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(KUBECTLS)
    kubeconfig.offer(OWN, paths, SERVER, file)
    inode = file.stat().st_ino
    kubeconfig.offer(OWN, paths, SERVER, file)
    assert file.stat().st_ino == inode


def test_two_checkouts_with_a_lab_of_one_name_have_two_contexts(paths: LabPaths, tmp_path: Path) -> None:
    file, other = tmp_path / "config", LabPaths("dev", tmp_path / "clone")
    assert kubeconfig.offer(OWN, paths, SERVER, file) == "hoplab-dev"
    assert kubeconfig.offer(OWN, other, SERVER, file) == f"hoplab-{other.id}"
    assert kubeconfig.offer(OWN, paths, SERVER, file) == "hoplab-dev"
    assert kubeconfig.withdraw(paths, file) == ["hoplab-dev"]
    assert kubeconfig.withdraw(other, file) == [f"hoplab-{other.id}"]


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"a: [", "is left as it is: not YAML: line 1: "), (b"\xff", "is left as it is: not UTF-8")],
)
def test_a_file_that_cannot_be_read_stays_as_it_is(paths: LabPaths, tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "config"
    file.write_bytes(content)
    with pytest.raises(FileError) as refused:
        kubeconfig.offer(OWN, paths, SERVER, file)
    assert refused.value.message.startswith(f"{file} {why}")
    assert refused.value.remedy == "mend the file, then run this again; or leave it alone: lab:kubeconfig off"
    assert file.read_bytes() == content and [path.name for path in tmp_path.iterdir()] == ["config"]
    assert kubeconfig.withdraw(paths, file) == []
    file.write_bytes(content + paths.id.encode())
    with pytest.raises(FileError):
        kubeconfig.withdraw(paths, file)


def test_a_lock_of_kubectl_is_waited_for_and_named(paths: LabPaths, tmp_path: Path) -> None:
    file, lock = tmp_path / "config", tmp_path / "config.lock"
    lock.touch()
    times = iter(range(1000))
    waiting = Timing(clock=lambda: next(times), sleep=lambda _seconds: None, slowness=lambda: 1.0)
    with pytest.raises(FileError) as refused:
        kubeconfig.offer(OWN, paths, SERVER, file, waiting)
    assert refused.value.message == f"{file} is locked: {lock} exists"
    assert refused.value.remedy == f"where no kubectl runs, remove what one left: rm {lock}"
    assert lock.exists() and not file.exists()
    released = Timing(sleep=lambda _seconds: lock.unlink())
    kubeconfig.offer(OWN, paths, SERVER, file, released)
    assert file.exists() and not lock.exists()


def test_a_file_that_may_not_be_read_is_named(paths: LabPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_file: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(FileError, match="config can't be read: Permission denied"):
        kubeconfig.withdraw(paths, tmp_path / "config")
    with pytest.raises(FileError, match="config is left as it is: Permission denied"):
        kubeconfig.offer(OWN, paths, SERVER, tmp_path / "config")


def test_a_folder_that_cannot_be_made_is_named(paths: LabPaths, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(FileError, match="config can't be changed: "):
        kubeconfig.offer(OWN, paths, SERVER, tmp_path / "home" / "config")
