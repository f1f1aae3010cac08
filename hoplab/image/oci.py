"""Container images written as one OCI archive: layers, configs, manifests and an index, byte for byte reproducible.

A few dozen lines of JSON and tar; the programs that usually do this need a daemon or a registry. The format is the OCI
image layout specification's; containerd takes an image's name from the annotation ``io.containerd.image.name``.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECIPE = "5222af04ae152a725603f7f910b25df38fe009135ac4570206ca41916f879092"  # see image.store.digest
EPOCH = "1970-01-01T00:00:00Z"  # no build time anywhere: same input, same bytes
LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True)
class Blob:
    """A file of the archive, known by its SHA-256; big ones stay on disk until they are written."""

    media_type: str
    sha256: str
    size: int
    path: Path | None = None
    data: bytes = field(default=b"", repr=False)

    @classmethod
    def of_file(cls, media_type: str, path: Path) -> Blob:
        with path.open("rb") as file:
            return cls(media_type, hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size, path)

    @classmethod
    def of_json(cls, media_type: str, value: Mapping[str, Any]) -> Blob:
        data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        return cls(media_type, hashlib.sha256(data).hexdigest(), len(data), data=data)

    def descriptor(self) -> dict[str, Any]:
        """Return the reference to this file in other files of the archive."""
        return {"mediaType": self.media_type, "digest": f"sha256:{self.sha256}", "size": self.size}


def write_layer(path: Path, files: Mapping[str, Path]) -> None:
    """Write a tar with these files (path in the image -> file here): mode 0755, root's, at the epoch, and folders."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
        for name in sorted(folders):
            tar.addfile(_entry(name, tarfile.DIRTYPE))
        for name, source in sorted(files.items()):
            entry = _entry(name, tarfile.REGTYPE)
            entry.size = source.stat().st_size
            with source.open("rb") as file:
                tar.addfile(entry, file)


def image(
    name: str, layers: Iterable[Blob], entrypoint: Iterable[str], command: Iterable[str] = ()
) -> tuple[Blob, Blob, tuple[Blob, ...], str]:
    """Return manifest, config and layers of one image for linux/amd64, and its name, for ``write_archive``."""
    parts = tuple(layers)
    config = Blob.of_json(
        CONFIG,
        {
            "architecture": "amd64",
            "os": "linux",
            "created": EPOCH,
            "config": {
                "Entrypoint": list(entrypoint),
                "Cmd": list(command) or None,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.sha256}" for layer in parts]},
        },
    )
    return manifest(config, parts), config, parts, name


def manifest(config: Blob, layers: Iterable[Blob]) -> Blob:
    """Return the manifest that refers to an image's parts; its digest is the image's."""
    return Blob.of_json(
        MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor() for layer in layers],
        },
    )


def write_archive(
    path: Path,
    images: Iterable[tuple[Blob, Blob, tuple[Blob, ...], str]],
    annotations: Mapping[str, str] | None = None,
) -> None:
    """Write one OCI archive with all images; a shared layer is in it once. The index comes first."""
    blobs: dict[str, Blob] = {}
    manifests = []
    for top, config, layers, name in images:
        blobs |= {blob.sha256: blob for blob in (top, config, *layers)}
        manifests.append(
            top.descriptor()
            | {
                "annotations": {"io.containerd.image.name": name, **(annotations or {})},
                "platform": {"architecture": "amd64", "os": "linux"},
            }
        )
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _add(tar, "index.json", json.dumps(index, sort_keys=True).encode())
        for sha256, blob in sorted(blobs.items()):
            if blob.path is None:
                _add(tar, f"blobs/sha256/{sha256}", blob.data)
                continue
            entry = _entry(f"blobs/sha256/{sha256}", tarfile.REGTYPE)
            entry.size = blob.size
            with blob.path.open("rb") as file:
                tar.addfile(entry, file)


def _entry(name: str, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = 0o755
    return entry


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = _entry(name, tarfile.REGTYPE)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
