"""The checkpoints of a lab: one folder each, which is complete or does not exist.

~/.cache/hoplab/checkpoints/<lab id>/<name>/           manifest.json and
    lab/         the lab's folder without what the image, libvirt and logs have
    memory/      <domain>.save, one for each machine
    inventory/   the lab's two files in <project>/inventory
~/.cache/hoplab/checkpoints/<lab id>/.<name>.<pid>.part/   in work; removed by the next command if that was killed

They stay when the lab is destroyed.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hoplab.core import fs
from hoplab.core.paths import LabPaths, cache_dir
from hoplab.lab.checkpoint import manifest as manifests
from hoplab.lab.checkpoint.manifest import CheckpointError, Manifest

NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,38}[a-z0-9])?")
KEPT = re.compile(r"up-[0-9a-f]{12}")  # names of what `up` keeps, see kept.py
MARGIN = 256 * 2**20  # bytes that stay free on a disk
LAB, MEMORY, INVENTORY = "lab", "memory", "inventory"


def root() -> Path:
    """Return the folder with the checkpoints of all labs of this user."""
    return cache_dir() / "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint, as `list` shows it."""

    folder: Path
    manifest: Manifest | None  # None where it can't be read
    problem: str = ""

    @property
    def name(self) -> str:
        return self.folder.name


class Store:
    """The checkpoints of one lab."""

    def __init__(self, paths: LabPaths) -> None:
        self.lab = paths.lab
        self.folder = root() / paths.id

    def names(self) -> list[str]:
        """Return the names of all complete checkpoints, sorted."""
        return sorted(path.name for path in self.folder.glob("*") if path.is_dir() and not path.name.startswith("."))

    def all(self) -> list[Checkpoint]:
        """Return all checkpoints, the oldest first; damaged ones at the end."""
        found = [self._look(self.folder / name) for name in self.names()]
        return sorted(found, key=lambda one: one.manifest.made.timestamp() if one.manifest else float("inf"))

    @staticmethod
    def _look(folder: Path) -> Checkpoint:
        try:
            return Checkpoint(folder, manifests.read(folder))
        except CheckpointError as error:
            return Checkpoint(folder, None, error.message)

    def find(self, name: str) -> Path:
        """Return the folder of a checkpoint; raise CheckpointError where there is none of this name."""
        refuse_bad_name(name)
        folder = self.folder / name
        if not folder.is_dir():
            there = self.names()
            raise CheckpointError(
                f"lab {self.lab!r} has no checkpoint {name!r}",
                remedy=f"it has: {', '.join(there)}" if there else "make one: ./lab checkpoint create NAME",
            )
        return folder

    def refuse_taken(self, name: str) -> None:
        """Raise CheckpointError where the name is no name, or is in use."""
        refuse_bad_name(name)
        if (self.folder / name).exists():
            raise CheckpointError(
                f"lab {self.lab!r} has a checkpoint {name!r} already",
                remedy=f"take another name, or delete that one: ./lab checkpoint delete --lab {self.lab} {name}",
            )

    def draft(self, name: str) -> Path:
        """Return a new, empty folder to write a checkpoint to."""
        root().mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.mkdir(exist_ok=True, mode=0o700)
        draft = self.folder / f".{name}.{os.getpid()}.part"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        return draft

    def keep(self, draft: Path, name: str) -> Path:
        """Give a complete draft its name, with everything in it on disk before."""
        for path in manifests.files_below(draft):
            if not path.is_symlink():
                fs.sync(path)
        fs.sync(draft / manifests.FILE)
        draft.rename(self.folder / name)
        fs.sync(self.folder)
        return self.folder / name

    def delete(self, name: str) -> int:
        """Remove a checkpoint, damaged or not; return how many bytes it had."""
        folder = self.find(name)
        size = size_of(folder)
        remove(folder)
        return size

    def clean(self) -> list[str]:
        """Remove what killed commands left, and return its names; the caller holds the lab's lock."""
        left = sorted(self.folder.glob(".*.part"))
        for folder in left:
            shutil.rmtree(folder)
        return [folder.name.lstrip(".").rpartition(".")[0].rpartition(".")[0] for folder in left]


def folders() -> list[Path]:
    """Return the folders of all complete checkpoints of this user, of every lab."""
    return [file.parent for file in root().glob(f"*/*/{manifests.FILE}")]


def size_of(folder: Path) -> int:
    """Return how many bytes a checkpoint has."""
    return sum(path.lstat().st_size for path in manifests.files_below(folder))


def remove(folder: Path) -> None:
    """Remove a checkpoint, whole or not at all: it loses its name first. The lab's folder goes with its last one."""
    fs.remove_folder(folder.rename(folder.with_name(f".{folder.name}.{os.getpid()}.part")))
    with suppress(OSError):
        folder.parent.rmdir()
        root().rmdir()


def images() -> set[str]:
    """Return the digests of the node images that the checkpoints of this user need."""
    found = set()
    for folder in folders():
        with suppress(CheckpointError):
            found.add(manifests.read(folder).image)
    return found


def refuse_bad_name(name: str) -> None:
    """Raise CheckpointError where a text can't be the name of a checkpoint."""
    if not NAME.fullmatch(name):
        raise CheckpointError(
            f"{name!r} can't be the name of a checkpoint",
            remedy="use up to 40 of the characters a-z, 0-9, dot and dash, with a letter or a digit at both ends",
        )


def is_kept(name: str) -> bool:
    """Return whether a checkpoint is one that `up` keeps."""
    return KEPT.fullmatch(name) is not None


def existing(folder: Path) -> Path:
    """Return the folder, or the first one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def refuse_full_disk(needs: dict[Path, int], what: str) -> None:
    """Raise CheckpointError where a disk has less free space than the sum of what is needed in folders on it."""
    sums: dict[int, tuple[Path, int]] = {}
    for folder, size in needs.items():
        there = existing(folder)
        device = there.stat().st_dev
        first, total = sums.get(device, (there, 0))
        sums[device] = first, total + size
    for folder, size in sums.values():
        free = shutil.disk_usage(folder).free
        if free < size + MARGIN:
            raise CheckpointError(
                f"{what} needs {mib(size)} and {mib(MARGIN)} to spare at {folder}, and {mib(free)} are free there",
                remedy="free some space, delete checkpoints (./lab checkpoint list), or set XDG_CACHE_HOME to another"
                " disk; nothing was changed",
            )


def mib(size: int) -> str:
    """Return a size in words.

    >>> mib(3 * 2**20)
    '3 MiB'
    """
    return f"{size / 2**20:.0f} MiB"
