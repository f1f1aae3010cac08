"""Files are written whole or not at all, and every refusal has a remedy."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from hoplab.core import fs
from hoplab.core.errors import FileError
from hoplab.core.paths import PROJECT


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    fs.write(file, "✓ first")
    fs.write(file, "✓ second")
    assert file.read_text(encoding="utf-8") == "✓ second"
    assert list(tmp_path.iterdir()) == [file]


def test_a_new_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    fs.write(tmp_path / "report.html", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "report.html").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    fs.write(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "x"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "a folder that you may write to"), (errno.EDQUOT, "free some")],
)
def test_a_failed_write_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    file = tmp_path / "report.html"
    file.write_text("before")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match=f"report.html can't be written: {os.strerror(number)}") as caught:
        fs.write(file, "after")
    assert remedy in caught.value.remedy
    assert list(tmp_path.iterdir()) == [file] and file.read_text() == "before"


def test_an_error_while_a_draft_is_filled_passes(tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    file.write_text("before")
    with pytest.raises(ZeroDivisionError), fs.replacing(file) as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == [file] and file.read_text() == "before"


def test_the_version_before_is_kept_under_another_name(tmp_path: Path) -> None:
    file, previous = tmp_path / "state.json", tmp_path / "state.json.previous"
    fs.write(file, "1", previous=previous)
    assert not previous.exists()
    fs.write(file, "2", previous=previous)
    fs.write(file, "3", previous=previous)
    assert (file.read_text(), previous.read_text()) == ("3", "2")
    assert sorted(tmp_path.iterdir()) == [file, previous]


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    with fs.replacing(tmp_path / "key", mode=0o600) as draft:
        assert draft.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_file_of_somebody_elses_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "config"
    fs.write(file, "1", mode=0o600, keep_rights=True)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    fs.write(file, "2", mode=0o600, keep_rights=True)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("2", 0o640)


def test_an_unchanged_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    fs.write_if_changed(file, "worker1", mode=0o600)
    before = file.stat()
    fs.write_if_changed(file, "worker1", mode=0o600)
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    fs.write_if_changed(file, "worker2", mode=0o600)
    assert file.read_text() == "worker2"


# Files in a folder that appears as a whole or is thrown away, logs, and settings of the kernel
OTHER_WRITERS = {"engine/install.py", "engine/libvirt_objects.py", "host/netns.py", "host/ksm.py", "practice/echo.py"}
OTHER_WRITERS |= {"conformance/program.py", "devtools/gateway_conformance.py"}
OTHER_WRITERS |= {"lab/api_forward.py", "lab/fleet_run.py", "trace/live/node_program.py", "host/save_image.py"}
OTHER_WRITERS |= {f"host/{name}.py" for name in ("own_namespaces", "rootless")}  # no files of a lab
OTHER_WRITERS |= {f"lab/checkpoint/{name}.py" for name in ("copying", "fork", "journal", "store")}


def test_files_of_the_lab_have_one_writer() -> None:
    writes = re.compile(
        r"\.write_(?:text|bytes)\(|os\.fdopen|open\((?:\w+, )?\"[wax]b?\"|os\.link\(|os\.rename\(|\.rename\(|mkstemp"
    )
    package = PROJECT / "hoplab"
    writers = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if writes.search(file.read_text()) and "image" not in file.parts and file != package / "core/fs.py"
    }
    assert writers == OTHER_WRITERS


def test_a_missing_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"can't be written: No such file or directory") as caught:
        fs.check(tmp_path / "no" / "report.html")
    assert caught.value.remedy == f"make its folder first: mkdir -p {tmp_path / 'no'}"


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no").touch()
    with pytest.raises(FileError, match=r"can't be written: Not a directory"):
        fs.check(tmp_path / "no" / "report.html")


def test_a_folder_without_permission_is_refused() -> None:
    with pytest.raises(FileError, match=r"^/proc/self/report.html can't be written"):
        fs.check(Path("/proc/self/report.html"))


@pytest.mark.parametrize("place", [Path("/dev/null"), Path("/tmp")])
def test_devices_and_folders_are_not_replaced(place: Path) -> None:
    with pytest.raises(FileError, match=f"^{place} is not a regular file") as caught:
        fs.write(place, "x")
    assert caught.value.remedy == "name another one"


def test_a_check_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("x")
    fs.check(tmp_path / "here")
    fs.check(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["here"] and (tmp_path / "here").read_text() == "x"


def test_a_file_is_overwritten_only_with_force(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("x")
    with pytest.raises(FileError, match=r"here exists") as caught:
        fs.check(tmp_path / "here", force=False)
    assert "--force" in caught.value.remedy


def test_a_folder_goes_while_its_owners_remove_what_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    (folder / "sockets").mkdir(parents=True)
    for name in ("sockets/ssh-worker1", "sockets/ssh-worker2", "libvirtd.pid"):
        (folder / name).touch()
    unlink = os.unlink

    def just_before(name: str, *, dir_fd: int | None = None) -> None:
        if name.startswith("ssh-"):
            unlink(name, dir_fd=dir_fd)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", just_before)
    fs.remove_folder(folder)
    assert not folder.exists()
    fs.remove_folder(folder)  # somebody else was faster


def test_a_file_of_another_user_is_named_with_what_makes_it_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top, closed = tmp_path / "hoplab", tmp_path / "hoplab/checkpoints"
    closed.mkdir(parents=True)
    assert fs.of_another_user(closed / "dev/manifest.json", [top]) is None
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setenv("LOGNAME", "student")  # also where the user is root of namespaces
    error = fs.of_another_user(closed / "dev/manifest.json", [tmp_path / "project", top])
    assert error and error.message.startswith(f"{closed}/dev/manifest.json may not be used: {closed} belongs to ")
    assert error.remedy.endswith(f"sudo chown -R student {top}")
    assert fs.of_another_user(Path("/etc/shadow"), [top]) is None
