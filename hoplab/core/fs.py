"""Files that people asked for: written whole or not at all, and refused before the work if they can't be."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from hoplab.core.errors import LabError


class FileError(LabError):
    """A file that was asked for can't be written."""


def check(file: Path, *, force: bool = True) -> None:
    """FileError now rather than after the work: the folder is missing or closed, or (without ``force``) it exists."""
    if file.exists() and not file.is_file():  # to put a file in the place of a folder or of /dev/null helps nobody
        raise FileError(f"{file} is not a regular file", remedy="name another one")
    if file.exists() and not force:
        raise FileError(f"{file} exists", remedy="name another file, or overwrite it with --force")
    draft = _draft(file)
    try:
        draft.touch()
        draft.unlink()
    except OSError as error:
        raise _refused(file, error) from None


def write(file: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a file atomically: whoever reads it sees all of it, and a failure leaves what was there before."""
    check(file)
    draft = _draft(file)
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file.resolve())
    except OSError as error:
        raise _refused(file, error) from None
    finally:
        draft.unlink(missing_ok=True)


def remove_but(folder: Path, keep: Iterable[Path]) -> None:
    """Remove a folder with everything in it but these, and the folders they are in."""
    kept = [path for path in keep if path.exists()]
    if not kept:
        shutil.rmtree(folder)
    for path in list(folder.iterdir()) if kept else []:
        below = [each for each in kept if each.is_relative_to(path)]
        if path in kept:
            continue
        if below:
            remove_but(path, below)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _draft(file: Path) -> Path:
    """Beside the file itself, where it can be renamed from; a symbolic link stays one."""
    target = file.resolve()
    return target.with_name(f".{target.name}.{os.getpid()}")


def _refused(file: Path, error: OSError) -> FileError:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            remedy = f"make its folder first: mkdir -p {file.parent}"
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            remedy = "free some space there, or name a file on another disk"
        case _:
            remedy = "name a file in a folder that you may write to"
    return FileError(f"{file} can't be written: {error.strerror}", remedy=remedy)
