"""Stages on disk: each is a folder with the digest of its request in its name, and is complete or does not exist.

<cache>/image/lock                 held while anything is built or removed; names its holder
<cache>/image/work/<pid>-<stage>/  in work; renamed when done, or removed by the next build
<cache>/image/stages/<stage>-<key> done: files and manifest.json (the request, and a digest of the result)
<cache>/image/logs/<stage>.log     the output of the commands that made it
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoplab.core.errors import ImageError
from hoplab.core.lock import locked
from hoplab.core.progress import Progress

GIB = 2**30
MANIFEST = "manifest.json"


def digest(*parts: object) -> str:
    """Return the digest of these JSON values as twenty hex digits; another order is another digest.

    The values contain the code of a stage as its module's ``RECIPE``, a text that is changed by hand where the code
    makes something else: new names and comments rebuild no image. tests/unit/image/test_recipes.py checks it.
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(paths: Iterable[Path], below: Path) -> str:
    """Return one digest of the names, modes and contents of many files, in any order; folders are walked."""
    files = sorted({file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))})
    return digest(
        *(
            (str(file.relative_to(below)), file.stat().st_mode & 0o111 != 0, file_digest(file))
            for file in files
            if file.is_file() and "__pycache__" not in file.parts
        )
    )


@dataclass(frozen=True)
class Stage:
    """A finished stage."""

    name: str  # "go-etcd-0123..."
    directory: Path
    content: str  # digest of the result, which may differ for the same request later (Debian packages)


class Store:
    """The folder of stages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages = root / "stages"
        self.logs = root / "logs"
        self.work = root / "work"

    def find(self, name: str, key: str) -> Stage | None:
        """Return a cached stage, or None."""
        directory = self.stages / f"{name}-{key}"
        try:
            manifest = json.loads((directory / MANIFEST).read_text())
        except FileNotFoundError:
            return None
        return Stage(directory.name, directory, manifest["content"])

    def make(self, name: str, key: str, build: Callable[[Path], dict[str, Any]], *, space_gib: float) -> Stage:
        """Return a cached stage, or make it with ``build``, which fills a folder and returns entries for the manifest.

        The caller holds the lock. One rename gives the folder its name, so a build killed at any moment leaves either
        no stage or a complete one.
        """
        if found := self.find(name, key):
            return found
        self.check_space(name, space_gib)
        work = self.work / f"{os.getpid()}-{name}"
        remove_tree(work)
        output = work / "out"
        output.mkdir(parents=True)
        try:
            with explained_space(name, space_gib, self.root):
                facts = build(output)
                manifest = {"name": name, "key": key, "content": tree_digest([output], output), **facts}
                (output / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
                self.stages.mkdir(parents=True, exist_ok=True)
                os.sync()  # data before the name: after a power cut an existing stage must be complete
                output.rename(self.stages / f"{name}-{key}")
        finally:
            remove_tree(work)
        return Stage(f"{name}-{key}", self.stages / f"{name}-{key}", manifest["content"])

    def manifest(self, directory: Path) -> dict[str, Any]:
        """Return the manifest of a stage."""
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text())
        return manifest

    def log(self, name: str) -> Path:
        """Return the log file of a stage's commands."""
        self.logs.mkdir(parents=True, exist_ok=True)
        return self.logs / f"{name}.log"

    def check_space(self, name: str, space_gib: float) -> None:
        """Raise ImageError where a stage does not fit on the disk."""
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if free < space_gib * GIB:
            raise _no_space(name, space_gib, free, self.root)

    @contextlib.contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Hold the lock, after other builds have released it, and remove the leftovers of interrupted builds."""
        with locked(self.root / "lock", "image build", name="the node image", wait=progress.note):
            for leftover in sorted(self.work.glob("*")):
                progress.note(f"removing what an interrupted build left: {leftover.name}")
                remove_tree(leftover)
            yield


@contextlib.contextmanager
def explained_space(name: str, space_gib: float, root: Path) -> Iterator[None]:
    """Turn "no space left on device" into an ImageError with the needed and the free space."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _no_space(name, space_gib, shutil.disk_usage(root).free, root) from error


def remove_tree(path: Path) -> None:
    """Remove a folder and its content, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _no_space(name: str, space_gib: float, free: int, root: Path) -> ImageError:
    return ImageError(
        f"not enough disk space for the image stage {name}: it needs {space_gib:.1f} GiB, {free / GIB:.1f} GiB are free"
        f" in {root}",
        remedy="make room there (`./lab image prune` removes unused images), or set XDG_CACHE_HOME to another disk",
    )
