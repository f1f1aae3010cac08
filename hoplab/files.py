"""Files that people asked for: written whole or not at all, and refused before the work if they can't be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from hoplab.errors import LabError


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


def write(file: Path, text: str) -> None:
    """Write a file atomically: whoever reads it sees all of it, and a failure leaves what was there before."""
    check(file)
    draft = _draft(file)
    try:
        with draft.open("w", encoding="utf-8", errors="replace") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file.resolve())
    except OSError as error:
        raise _refused(file, error) from None
    finally:
        draft.unlink(missing_ok=True)


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
