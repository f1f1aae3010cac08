"""The user's kubeconfig, in which a lab is a context: ``kubectl --context hoplab-dev`` works from any shell here.

``hoplab.cluster.kubeconfig`` edits the text. Here is the file: which one, kubectl's lock on it, its owner and mode.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from hoplab.cluster import kubeconfig as text_of
from hoplab.core import fs
from hoplab.core.errors import FileError
from hoplab.core.paths import LabPaths
from hoplab.core.wait import HOST, Expired, NotYet, Timing

LOCK_S = 5.0  # kubectl holds its lock for some milliseconds
REMEDY = "mend the file, then run this again; or leave it alone: lab:kubeconfig off"


def users_file(paths: LabPaths) -> Path:
    """Return the file that kubectl writes new entries to: of $KUBECONFIG the first that exists, else the last.

    Kubeconfigs of labs of this project are left out: they are labs' own.
    """
    listed = [Path(name) for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    own = paths.root.parent.resolve()
    files = [file for file in listed if not file.resolve().is_relative_to(own)]
    default = Path.home() / ".kube" / "config"
    return next((file.absolute() for file in files if os.path.exists(file)), (files or [default])[-1].absolute())


def offer(lab_kubeconfig: str, paths: LabPaths, server: str, file: Path, timing: Timing = HOST) -> str:
    """Add the lab's context to a kubeconfig, or renew it; return its name. Raise FileError where that can't be done.

    The name is ``hoplab-<lab>``, and ``hoplab-<lab id>`` where another checkout has a lab of that name there.
    """
    with _editing(file, timing):
        before = _read(file)
        name = text_of.name_for(before, paths.id, f"hoplab-{paths.lab}", f"hoplab-{paths.id}")
        lab = text_of.entries(lab_kubeconfig, owner=paths.id, name=name, server=server)
        after = text_of.merged(before, lab)
        _write(file, before, after)
    return text_of.context_of(after, paths.id)


def withdraw(paths: LabPaths, file: Path, timing: Timing = HOST) -> list[str]:
    """Remove the lab's contexts from a kubeconfig; return their names. Raise FileError where that can't be done.

    A file in which nothing else was ever written is removed.
    """
    try:
        if paths.id.encode() not in file.read_bytes():
            return []
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return []
    except OSError as error:
        raise FileError(f"{file} can't be read: {error.strerror}", remedy=REMEDY) from None
    with _editing(file, timing):
        before = _read(file)
        after, names = text_of.without(before, paths.id)
        if after == text_of.SKELETON and after != before:
            file.unlink()
        else:
            _write(file, before, after)
    return names


def trouble(paths: LabPaths, file: Path) -> str:
    """Return why the lab can't become a context of a kubeconfig, "" where it can; nothing is written."""
    probe = text_of.Entries(paths.id, f"hoplab-{paths.id}", {"server": "https://127.0.0.1:1"}, {})
    try:
        text_of.merged(_read(file), probe)
    except FileError as error:
        return f"{file} can't be edited: {error.message}"
    except (OSError, UnicodeError) as error:
        return f"{file} can't be read: {error.strerror if isinstance(error, OSError) else 'not UTF-8'}"
    return ""


def standalone(lab_kubeconfig: str, paths: LabPaths, server: str) -> str:
    """Return a kubeconfig with the lab's context alone."""
    name = f"hoplab-{paths.lab}"
    return text_of.alone(text_of.entries(lab_kubeconfig, owner=paths.id, name=name, server=server))


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")  # not read_text, which makes one line break of the other
    except FileNotFoundError:
        return ""


def _write(file: Path, before: str, after: str) -> None:
    """Replace the file if it differs; it keeps its mode and owner, and a new one is its user's alone."""
    if after != before:
        fs.write(file, after, mode=0o600, keep_rights=True)


@contextlib.contextmanager
def _editing(file: Path, timing: Timing) -> Iterator[None]:
    """Hold the lock that kubectl and kind hold while they change a kubeconfig; name the file in errors of the body."""
    lock = file.with_name(f"{file.name}.lock")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        timing.until(lambda: _locked(lock), LOCK_S, poll_s=0.1)
    except Expired:
        raise FileError(
            f"{file} is locked: {lock} exists", remedy=f"where no kubectl runs, remove what one left: rm {lock}"
        ) from None
    except OSError as error:
        raise FileError(f"{file} can't be changed: {error.strerror}", remedy=REMEDY) from None
    try:
        yield
    except FileError as error:
        raise FileError(f"{file} is left as it is: {error.message}", remedy=error.remedy or REMEDY) from None
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise FileError(f"{file} is left as it is: {reason}", remedy=REMEDY) from None
    finally:
        lock.unlink(missing_ok=True)


def _locked(lock: Path) -> NotYet | None:
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return NotYet("locked")
    return None
