"""Atomic writes, and the removal of folders. A reader sees the old file or the new one, never a part of it.

write(paths.state, text)
with replacing(archive) as draft:
    make_tar(draft)
"""

from __future__ import annotations

import errno
import getpass
import os
import pwd
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from hoplab.core.errors import FileError


def check(file: Path, *, force: bool = True) -> None:
    """Raise FileError if the file cannot be written: no such folder, no permission or (without ``force``) it exists.

    For files that take long to make: the refusal comes before the work.
    """
    _refuse_special(file)
    if file.exists() and not force:
        raise FileError(f"{file} exists", remedy="name another file, or overwrite it with --force")
    draft = _draft(file)
    with file_errors(file):
        draft.touch()
        draft.unlink()


def write(file: Path, text: str, *, mode: int = 0o666, previous: Path | None = None, keep_rights: bool = False) -> None:
    """Write a file atomically and durably; a failure leaves what was there before.

    A new file has ``mode`` (less the umask) from its first byte on. The version before is kept as ``previous``. With
    ``keep_rights`` a file that exists keeps its owner and mode.
    """
    with replacing(file, mode=mode, previous=previous) as draft, file_errors(file):
        draft.write_text(text, encoding="utf-8", errors="replace")
        if keep_rights and file.exists():
            was = file.stat()
            if (was.st_uid, was.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(draft, was.st_uid, was.st_gid)
            draft.chmod(was.st_mode & 0o7777)


def write_if_changed(file: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a file atomically if its content differs; otherwise leave it untouched, with its time and mode."""
    if not file.exists() or file.read_bytes() != text.encode(errors="replace"):
        write(file, text, mode=mode)


def growing(file: Path) -> IO[bytes]:
    """Open a file, anew, for bytes that others read while it grows: what is in it after a failure stays."""
    with file_errors(file):
        return file.open("wb")


@contextmanager
def replacing(file: Path, *, mode: int = 0o666, previous: Path | None = None) -> Iterator[Path]:
    """Give an empty file to fill, in the same folder; after the body it takes the place of ``file`` in one step.

    Content and name are on disk then. If the body raises, ``file`` stays as it was and the error passes.
    """
    _refuse_special(file)
    target, draft = file.resolve(), _draft(file)  # a symbolic link stays one
    try:
        with file_errors(file):
            os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield draft
        with file_errors(file):
            sync(draft)
            if previous is not None and target.exists():
                second_name = _draft(previous)
                os.link(target, second_name)  # not a rename: ``file`` exists at every moment
                second_name.replace(previous)
            draft.replace(target)
            sync(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder with everything in it, also while others remove what is theirs in it.

    An ssh that shares its connection removes its socket when the connection breaks.
    """
    while folder.exists():
        with suppress(FileNotFoundError):  # what was there a moment ago is not there any more
            shutil.rmtree(folder)


def remove_but(folder: Path, keep: Iterable[Path]) -> None:
    """Remove a folder with everything in it but these, and the folders they are in."""
    kept = [path for path in keep if path.exists()]
    if not kept:
        remove_folder(folder)
    for path in list(folder.iterdir()) if kept else []:
        below = [keeper for keeper in kept if keeper.is_relative_to(path)]
        if path in kept:
            continue
        if below:
            remove_but(path, below)
        elif path.is_dir() and not path.is_symlink():
            remove_folder(path)
        else:
            path.unlink()


def of_another_user(path: Path, below: Iterable[Path]) -> FileError | None:
    """Return the error for a path below one of these folders that belongs to another user; None for any other path.

    ``sudo ./lab`` leaves files of root where the user's home is kept.
    """
    for top in below:
        for part in [path, *path.parents] if path.is_relative_to(top) else []:
            with suppress(OSError):  # a folder that is closed hides what is in it
                if part.stat().st_uid != os.geteuid():
                    owner = _user(part.stat().st_uid)
                    remedy = f"after a run with sudo they are made yours by: sudo chown -R {getpass.getuser()} {top}"
                    return FileError(f"{path} may not be used: {part} belongs to {owner}", remedy=remedy)
            if part == top:
                break
    return None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _draft(file: Path) -> Path:
    """Return a name that no other writer has, in the folder of the file: a rename works within one file system only."""
    target = file.resolve()
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def _refuse_special(file: Path) -> None:
    if file.exists() and not file.is_file():  # never replace a folder or /dev/null by a regular file
        raise FileError(f"{file} is not a regular file", remedy="name another one")


def sync(path: Path) -> None:
    """Write the content of a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def file_errors(file: Path) -> Iterator[None]:
    """Raise FileError with a remedy in place of an OSError of the body."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOENT | errno.ENOTDIR:
                remedy = f"make its folder first: mkdir -p {file.parent}"
            case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
                remedy = f"free some space (df -h {file.parent}), or name a file on another disk"
            case _:
                remedy = "name a file in a folder that you may write to, or become root: sudo ./lab ..."
        raise FileError(f"{file} can't be written: {error.strerror or error}", remedy=remedy) from None
