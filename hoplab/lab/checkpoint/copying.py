"""Which files of a lab are in a checkpoint, and how they are copied."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hoplab.core.paths import LabPaths
from hoplab.image import NodeImage
from hoplab.lab.checkpoint.manifest import CheckpointError

LARGE = 2**20  # bytes; a file from this size on is copied by cp, which keeps holes and shares blocks where it can
# Folders that libvirt, Ansible and the control plane make again, and logs
REMADE = ("ansible", "console", "control-plane/log", "libvirt/log", "libvirt/lib")


def image_volumes(digest: str) -> dict[str, str]:
    """Return the volumes that are copies of the node image: part of the image -> name in the pool.

    >>> image_volumes("09a70d5604b94d4e")["disk"]
    'disk-09a70d5604b9'
    """
    return {part: f"{part}-{digest.removeprefix('sha256:')[:12]}" for part in ("disk", "kernel", "initrd")}


def lab_files(paths: LabPaths, image: str) -> Iterator[Path]:
    """Yield what a checkpoint keeps of a lab's folder: folders before what is in them, files, symbolic links."""
    without = {paths.root / name for name in REMADE}
    without |= {paths.pool / name for name in image_volumes(image).values()}
    yield from _walk(paths.root, without)


def _walk(folder: Path, without: set[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        mode = path.lstat().st_mode
        if path in without or not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            continue  # sockets belong to processes
        yield path
        if stat.S_ISDIR(mode):
            yield from _walk(path, without)


def size_of(paths: LabPaths, image: str) -> int:
    """Return the bytes that a checkpoint's copy of a lab's folder has."""
    return sum(path.lstat().st_size for path in lab_files(paths, image) if path.is_file())


def copy_lab(paths: LabPaths, image: str, target: Path) -> None:
    """Copy a lab's folder, which nothing writes to, without what is made again."""
    target.mkdir(mode=0o700)
    for path in lab_files(paths, image):
        copy(path, target / path.relative_to(paths.root))
    shutil.copystat(paths.root, target)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder with everything in it."""
    target.mkdir(mode=0o700)
    for path in _walk(source, set()):
        copy(path, target / path.relative_to(source))
    shutil.copystat(source, target)


def copy(source: Path, target: Path) -> None:
    """Copy a file with mode and times, a symbolic link as one, or make an empty folder like this one."""
    with copy_errors(target):
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
        elif source.is_dir():
            target.mkdir()
            target.chmod(stat.S_IMODE(source.stat().st_mode))
        elif source.stat().st_size < LARGE:
            shutil.copy2(source, target)
        else:
            _copy_large(source, target)


def share(source: Path, target: Path) -> None:
    """Give a file that nobody writes to a second name; copy it where that is on another file system."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
            raise
        copy(source, target)


def place_image(image: NodeImage, pool: Path) -> None:
    """Put the volumes of a node image into a lab's pool."""
    parts = {"disk": image.disk, "kernel": image.kernel, "initrd": image.initrd}
    for part, name in image_volumes(image.digest).items():
        share(parts[part], pool / name)


def _copy_large(source: Path, target: Path) -> None:
    command = ["cp", "--archive", "--sparse=always", "--reflink=auto", "--", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        full = "No space left" in done.stderr
        raise OSError(errno.ENOSPC if full else errno.EIO, done.stderr.strip(), str(target))


@contextmanager
def copy_errors(target: Path) -> Iterator[None]:
    """Raise CheckpointError in place of an OSError of a copy."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise CheckpointError(
            f"{target} can't be written: {error.strerror}",
            remedy=f"free some space (df -h {target.parent}), then try again"
            if full
            else "become root: sudo ./lab ..., or see `dmesg` for errors of the disk",
        ) from None
