"""What a checkpoint says of itself: its origin, its files with their digests, and when its certificates expire."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from hoplab.core.errors import LabError
from hoplab.core.serialization import from_json, to_json
from hoplab.host.freeze import Hypervisor

FORMAT = 2
FILE = "manifest.json"
READERS = 4  # files that are digested at the same time


class CheckpointError(LabError):
    """A checkpoint can't be made, read or restored."""


@dataclass(frozen=True)
class StoredFile:
    """One file, or the target of a symbolic link, below the checkpoint's folder."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    path: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Expiry:
    """When a certificate expires."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    what: str  # "worker1: kubelet-client-current.pem"
    when: datetime


@dataclass(frozen=True)
class Manifest:
    """The description of one checkpoint."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    format: int
    name: str
    made: datetime
    lab: str
    id: str  # the lab's, unique on this host: paths and names in libvirt contain it
    image: str  # digest of the node image
    spec: str  # digest of the spec's file at the last `up`, "" where not known
    roles: str  # digest of roles and playbooks
    hypervisor: Hypervisor
    machines: Mapping[str, str]  # node -> name in libvirt
    memory_mib: int  # of all machines
    files: tuple[StoredFile, ...]
    expiries: tuple[Expiry, ...] = ()  # the earliest first
    content: str = field(default="")  # digest of everything above; the name of what is in it

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files)

    def sealed(self) -> Manifest:
        """Return it with the digest of its content."""
        return replace(self, content=self._digest())

    def _digest(self) -> str:
        text = json.dumps(to_json(self, exclude=("content",)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def intact(self) -> bool:
        """Return whether the manifest itself is as it was written."""
        return self.content == self._digest()

    def expired(self, now: datetime) -> list[Expiry]:
        """Return the certificates that have expired by then."""
        return [expiry for expiry in self.expiries if expiry.when <= now]

    def text(self) -> str:
        """Return the text of its file."""
        return json.dumps(to_json(self), indent=1) + "\n"


def read(folder: Path) -> Manifest:
    """Return the manifest of a checkpoint; raise CheckpointError where it is not one that this version wrote."""
    file = folder / FILE
    try:
        document: Any = json.loads(file.read_text())
        if document["format"] != FORMAT:
            raise _damaged(folder, f"it has format {document['format']!r}, this version reads format {FORMAT}")
        found = from_json(Manifest, document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{FILE} can't be read: {error}") from None
    if not found.intact():
        raise _damaged(folder, f"{FILE} was changed after it was written")
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the regular files and symbolic links of a checkpoint, without its manifest, in the order of their names."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(parent) / name
            if path != folder / FILE:
                yield path


def digested(folder: Path) -> tuple[StoredFile, ...]:
    """Return all files of a checkpoint with their digests."""
    with ThreadPoolExecutor(READERS) as pool:
        return tuple(pool.map(lambda path: _stored(folder, path), files_below(folder)))


def _stored(folder: Path, path: Path) -> StoredFile:
    name = str(path.relative_to(folder))
    if path.is_symlink():
        target = os.readlink(path).encode()
        return StoredFile(name, len(target), hashlib.sha256(target).hexdigest())
    with path.open("rb") as file:
        return StoredFile(name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def refuse_damaged(folder: Path, manifest: Manifest) -> None:
    """Raise CheckpointError unless every file is there with the size and the digest that it had."""
    there = {str(path.relative_to(folder)) for path in files_below(folder)}
    wanted = {file.path: file for file in manifest.files}
    if missing := sorted(wanted.keys() - there):
        raise _damaged(folder, f"{_some(missing)} missing")
    if more := sorted(there - wanted.keys()):
        raise _damaged(folder, f"{_some(more)} not of it")
    sizes = [file.path for file in manifest.files if (folder / file.path).lstat().st_size != file.size]
    if sizes:
        raise _damaged(folder, f"{_some(sizes)} of another size than written")
    changed = [found.path for found in digested(folder) if found != wanted[found.path]]
    if changed:
        raise _damaged(folder, f"{_some(changed)} not as written")


def refuse_other_host(manifest: Manifest, now: Hypervisor) -> None:
    """Raise CheckpointError where the saved memory could not be resumed here."""
    then = manifest.hypervisor
    differing = []
    for what, before, after in (("libvirt", then.libvirt, now.libvirt), ("QEMU", then.qemu, now.qemu)):
        if before.partition(".")[0] != after.partition(".")[0]:
            differing.append(f"{what} {before}, and here is {after or 'none'}")
    if then.accel != now.accel:
        differing.append(f"acceleration {then.accel}, and here is {now.accel}")
    if then.cpu != now.cpu:
        differing.append(f"the CPU {then.cpu}, and here is {now.cpu}")
    if differing:
        raise CheckpointError(
            f"checkpoint {manifest.name} was made with {'; with '.join(differing)}",
            remedy=f"its memory can't be resumed on this host; make the lab anew: ./lab up --lab {manifest.lab}",
        )


def refuse_missing_image(manifest: Manifest, images: Iterable[str]) -> None:
    """Raise CheckpointError where the node image is not in the cache."""
    if manifest.image not in images:
        raise CheckpointError(
            f"checkpoint {manifest.name} needs the node image {manifest.image[:12]}, which is not in the cache",
            remedy=f"if ./lab image build --lab {manifest.lab} makes another one, delete the checkpoint: "
            f"./lab checkpoint delete --lab {manifest.lab} {manifest.name}",
        )


def refuse_expired(manifest: Manifest, now: datetime) -> None:
    """Raise CheckpointError where certificates of the cluster have expired by now."""
    if expired := manifest.expired(now):
        names = "; ".join(f"{expiry.what} on {expiry.when:%Y-%m-%d %H:%M}" for expiry in expired)
        raise CheckpointError(
            f"certificates in checkpoint {manifest.name} have expired: {names}",
            remedy=f"make the lab anew, with new certificates: ./lab destroy --lab {manifest.lab}, then "
            f"./lab up --lab {manifest.lab}, and ./lab checkpoint create",
        )


def utc_now() -> datetime:
    """Return the time by this host's clock."""
    return datetime.now(UTC)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
    return f"{names[0]}{more}"


def _damaged(folder: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {folder.name} is damaged: {why}",
        remedy=f"nothing was changed; delete it: ./lab checkpoint delete {folder.name}",
        log=str(folder),
    )
