"""Kernel and initrd that the nodes are booted with: one small program and one module, in a cpio archive."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hoplab.core.progress import Progress
from hoplab.image.debian import KERNEL, MODULES
from hoplab.image.store import Stage, Store, digest

INITRD = "initrd.img"
RECIPE = "e52715e4695e39bbe2b7b28de8bdc837e530a2c3746e6b20f0d87944bbef6f6b"  # see image.store.digest
SPACE_GIB = 0.1
DIRECTORY, FILE, CHARACTER_DEVICE = 0o040755, 0o100755, 0o020600
CONSOLE = (5, 1)  # the kernel opens /dev/console for /init before anything is mounted


def key(stages: Mapping[str, Stage]) -> str:
    """Return the digest of program and kernel, and of the code that combines them."""
    return digest(stages["go.initrd"].content, stages["debian.node"].content, RECIPE)


def build(stages: Mapping[str, Stage], store: Store, progress: Progress) -> Stage:
    """Return the stage with kernel and initrd, built or cached."""

    def write(output: Path) -> dict[str, Any]:
        progress.task("writing the initrd")
        system = stages["debian.node"].directory
        modules = {f"modules/{file.name}": file for file in sorted((system / MODULES).iterdir())}
        (output / INITRD).write_bytes(archive({"init": stages["go.initrd"].directory / "init", **modules}))
        shutil.copyfile(system / KERNEL, output / KERNEL)
        return {}

    return store.make("boot", key(stages), write, space_gib=SPACE_GIB)


def archive(files: Mapping[str, Path]) -> bytes:
    """Return a cpio archive ("newc", what the kernel unpacks) with these executable files and the folders of /init."""
    entries = [_entry(folder, DIRECTORY) for folder in ("dev", "modules", "proc", "root")]
    entries.append(_entry("dev/console", CHARACTER_DEVICE, device=CONSOLE))
    entries += [_entry(name, FILE, file.read_bytes()) for name, file in files.items()]
    return b"".join([*entries, _entry("TRAILER!!!", 0)])


def _entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    path = name.encode() + b"\0"
    # magic, inode, mode, uid, gid, links, mtime, size, device of the file system, device, length of the name, checksum
    numbers: Iterable[int] = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + path
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
