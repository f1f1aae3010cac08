"""Container images that can't be built from the package registries: added as archives, or pulled by digest.

<cache>/image/archives/<name>.tar  one image for linux/amd64, checked, and rewritten by hoplab.image.oci

``./lab image add`` reads OCI archives (`ctr image export`, `skopeo copy`, `podman save --format oci-archive`) and
docker-archives (`docker save`). The component table lists the possible images and their components.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoplab.core import fs, paths
from hoplab.core.errors import ImageError
from hoplab.core.progress import Progress
from hoplab.image import containers, oci
from hoplab.image.store import Store, explained_space
from hoplab.spec.catalog import ArchivedImage

SOURCE = "hoplab.local/source"  # annotation: the digest of the image at its source
NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")  # annotations with an image's name
INDEXES = (oci.INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = (oci.MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
PLATFORM = "linux/amd64"
CHUNK = 2**20
HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Kept:
    """An image in the local folder."""

    name: str
    digest: str  # of its manifest: its id in the node's containerd
    source: str  # of its source: a multi-platform index has another digest than its manifests
    file: Path

    def is_release(self, entry: ArchivedImage) -> bool:
        """Return whether it is upstream's own image, not one built elsewhere."""
        return entry.digest in (self.digest, self.source)


@dataclass(frozen=True)
class Found:
    """An image in an added archive."""

    name: str
    source: str
    manifest: oci.Blob
    config: oci.Blob
    layers: tuple[oci.Blob, ...]


def folder() -> Path:
    """Return the local folder of images."""
    return paths.cache_dir() / "image" / "archives"


def file_of(name: str) -> Path:
    """Return the file of an image of this name.

    >>> file_of("quay.io/calico/node:v3.32.1").name
    'quay.io+calico+node_v3.32.1.tar'
    """
    return folder() / f"{name.replace('/', '+').replace(':', '_')}.tar"


def find(wanted: Iterable[ArchivedImage]) -> tuple[Kept, ...]:
    """Return the wanted images in the local folder. Only the first kilobytes of each archive are read."""
    return tuple(kept for entry in wanted if (kept := _kept(file_of(entry.name))))


def missing(wanted: Iterable[ArchivedImage]) -> tuple[ArchivedImage, ...]:
    """Return the wanted images that are not in the local folder."""
    return tuple(entry for entry in wanted if not file_of(entry.name).exists())


def _kept(file: Path) -> Kept | None:
    try:
        with tarfile.open(file) as tar:
            index = next(member for member in tar if member.name == "index.json")
            (entry,) = json.loads(_opened(tar, index).read())["manifests"]
        return Kept(entry["annotations"][NAMES[0]], entry["digest"], entry["annotations"][SOURCE], file)
    except FileNotFoundError:
        return None
    except (tarfile.TarError, StopIteration, ValueError, TypeError) as error:
        raise ImageError(f"{file} is damaged: {error}", remedy="remove it, then `./lab image add` it again") from None
    except KeyError as error:  # a file that was put there by hand
        raise ImageError(
            f"{file} was not written by `./lab image add`: its index.json has no {error}",
            remedy="move it to another folder, then `./lab image add` it",
        ) from None


def add(archive: Path, table: Sequence[ArchivedImage]) -> tuple[list[tuple[ArchivedImage, Kept]], list[str]]:
    """Extract the needed images of an archive; return them, and the names of images that no component needs."""
    with _opened_archive(archive) as tar, tempfile.TemporaryDirectory(dir=_made(folder())) as scratch:
        reader = _Reader(archive, tar, Path(scratch))
        with explained_space(archive.name, 2 * archive.stat().st_size / 2**30, folder()):
            kept: list[tuple[ArchivedImage, Kept]] = []
            left_out = []
            for name, load in reader.images():
                entry = _match(name, table)
                if entry is None:
                    left_out.append(name)
                else:
                    kept.append((entry, _keep(load(), entry.name)))
    if not kept:
        raise _nothing_needed(archive, left_out, table)
    return kept, left_out


def _keep(found: Found, name: str) -> Kept:
    """Write an image into the local folder, in place of one with the same name."""
    file = file_of(name)
    parts = (found.manifest, found.config, found.layers, name)
    with fs.replacing(file) as draft:
        oci.write_archive(draft, [parts], annotations={SOURCE: found.source})
    return Kept(name, f"sha256:{found.manifest.sha256}", found.source, file)


def _match(name: str, table: Iterable[ArchivedImage]) -> ArchivedImage | None:
    """Return the table's image of that name and version, whatever its registry.

    >>> _match("localhost/calico/cni:v1", [ArchivedImage("cni_calico", "quay.io/calico/cni:v1", "")]).name
    'quay.io/calico/cni:v1'
    """
    return next((entry for entry in table if _short(entry.name) == _short(full_name(name))), None)


def _short(name: str) -> str:
    return name.partition("/")[2]


def full_name(name: str) -> str:
    """Return a name in the form of containerd.

    >>> full_name("calico/node:v3.32.1"), full_name("nginx"), full_name("quay.io/calico/cni:v1")
    ('docker.io/calico/node:v3.32.1', 'docker.io/library/nginx:latest', 'quay.io/calico/cni:v1')
    """
    host, slash, rest = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not re.search(r"[.:]|^localhost$", host):
        name = f"docker.io/{host}/{rest}"
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _nothing_needed(archive: Path, names: list[str], table: Sequence[ArchivedImage]) -> ImageError:
    wanted = [entry.name for entry in table]
    versions = {_short(entry.name).rpartition(":")[0]: entry.name for entry in table}
    near = [versions[image] for name in names if (image := _short(full_name(name)).rpartition(":")[0]) in versions]
    said = f"{archive} holds {', '.join(names)}, which no component needs"
    return ImageError(said, remedy=f"what is needed is {', '.join(near or wanted)}")


class _Reader:
    """A reader of an archive; every defect is an error with the archive's name."""

    def __init__(self, archive: Path, tar: tarfile.TarFile, scratch: Path) -> None:
        self.archive = archive
        self.tar = tar
        self.scratch = scratch
        self.members = {member.name.removeprefix("./"): member for member in tar.getmembers()}

    def images(self) -> Iterator[tuple[str, Any]]:
        """Yield each image's name and its loader: only needed images are read and checked."""
        if "index.json" in self.members:
            return self._oci_images()
        if "manifest.json" in self.members:
            return self._docker_images()
        raise self._fault("it has neither an index.json (OCI) nor a manifest.json (docker)", _HOW)

    def _oci_images(self) -> Iterator[tuple[str, Any]]:
        layout = self._json("oci-layout").get("imageLayoutVersion", "")
        if not str(layout).startswith("1."):
            raise self._fault(f"its OCI layout has version {layout or 'none'}, not 1.x", _HOW)
        entries = self._json("index.json").get("manifests") or []
        if not entries:
            raise self._fault("it holds no image", _HOW)
        for entry in entries:
            annotations = entry.get("annotations") or {}
            name = next((annotations[key] for key in NAMES if key in annotations), "")
            if "/" not in name and NAMES[0] not in annotations:
                named = f"only the tag {name!r}" if name else "no name"
                raise self._fault(f"an image in it has {named}", f"the full name belongs into its index: {_HOW}")
            yield name, lambda entry=entry, name=name: self._oci_image(entry, name)

    def _oci_image(self, entry: Mapping[str, Any], name: str) -> Found:
        source = entry["digest"]
        if entry.get("mediaType") in INDEXES:
            index = json.loads(self._blob(entry, f"the index of {name}").data)
            there = {_platform(entry): entry for entry in reversed(index["manifests"])}
            if PLATFORM not in there:
                raise self._wrong_platform(name, ", ".join(sorted(found for found in there if "unknown" not in found)))
            entry = there[PLATFORM]
        if entry.get("mediaType") not in MANIFESTS:
            raise self._fault(f"{name} is a {entry.get('mediaType')}, not an image", _HOW)
        manifest = self._blob(entry, f"the manifest of {name}")
        parts = json.loads(manifest.data)
        config = self._blob(parts["config"], f"the configuration of {name}")
        self._check_config(json.loads(config.data), name, len(parts["layers"]))
        layers = tuple(
            self._blob(layer, f"layer {number} of {name}") for number, layer in enumerate(parts["layers"], 1)
        )
        return Found(name, source, manifest, config, layers)

    def _docker_images(self) -> Iterator[tuple[str, Any]]:
        entries = self._json("manifest.json")
        if not entries:
            raise self._fault("it holds no image", _HOW)
        for entry in entries:
            if not entry.get("RepoTags"):
                raise self._fault("an image in it has no name", "save it by name: docker save NAME:TAG")
            for name in entry["RepoTags"]:
                yield full_name(name), lambda entry=entry, name=name: self._docker_image(entry, name)

    def _docker_image(self, entry: Mapping[str, Any], name: str) -> Found:
        """Return an image of `docker save`: it has no manifest, and its configuration lists its layers."""
        config = self._file(entry["Config"], oci.CONFIG, f"the configuration of {name}")
        said = HEX.search(entry["Config"])
        if said and said[0] != config.sha256:
            raise self._damaged(f"the configuration of {name}", said[0], config.sha256)
        content = json.loads(config.data)
        self._check_config(content, name, len(entry["Layers"]))
        layers = []
        for number, (path, said_digest) in enumerate(
            zip(entry["Layers"], content["rootfs"]["diff_ids"], strict=True), 1
        ):
            layer = self._file(path, oci.LAYER, f"layer {number} of {name}")
            if said_digest != f"sha256:{layer.sha256}":
                raise self._damaged(f"layer {number} of {name}", said_digest.removeprefix("sha256:"), layer.sha256)
            layers.append(layer)
        manifest = oci.manifest(config, layers)
        return Found(name, f"sha256:{manifest.sha256}", manifest, config, tuple(layers))

    def _check_config(self, config: Mapping[str, Any], name: str, layers: int) -> None:
        platform = f"{config.get('os')}/{config.get('architecture')}"
        if platform != PLATFORM:
            raise self._wrong_platform(name, platform)
        said = len(config["rootfs"]["diff_ids"])
        if said != layers:
            raise self._fault(f"{name} should have {said} layers and has {layers}", _AGAIN)

    def _json(self, path: str) -> Any:
        if path not in self.members:
            raise self._fault(f"it has no {path}", _HOW)
        try:
            return json.loads(_opened(self.tar, self.members[path]).read())
        except ValueError as error:
            raise self._fault(f"its {path} is not JSON: {error}", _AGAIN) from None

    def _blob(self, entry: Mapping[str, Any], what: str) -> oci.Blob:
        """Return the blob of a descriptor, checked against its digest and size."""
        algorithm, _, said = entry["digest"].partition(":")
        if algorithm != "sha256" or not HEX.fullmatch(said):
            raise self._fault(f"{what} has the digest {entry['digest']}, which is no SHA-256", _HOW)
        blob = self._file(f"blobs/sha256/{said}", entry.get("mediaType", ""), what)
        if blob.sha256 != said:
            raise self._damaged(what, said, blob.sha256)
        if blob.size != entry["size"]:
            raise self._fault(f"{what} should have {entry['size']} bytes and has {blob.size}", _AGAIN)
        return blob

    def _file(self, path: str, media_type: str, what: str) -> oci.Blob:
        """Return a file of the archive, with the digest of its copy; layers stay on disk, other files are small."""
        if path not in self.members:
            raise self._fault(f"{what} is not in it ({path})", _AGAIN)
        hashed, size = hashlib.sha256(), 0
        copy = self.scratch / f"blob-{len(list(self.scratch.iterdir()))}"
        with _opened(self.tar, self.members[path]) as source, copy.open("wb") as target:
            while chunk := source.read(CHUNK):
                hashed.update(chunk)
                size += target.write(chunk)
        if "layer" in media_type or "rootfs" in media_type:
            return oci.Blob(media_type, hashed.hexdigest(), size, copy)
        return oci.Blob(media_type, hashed.hexdigest(), size, data=copy.read_bytes())

    def _fault(self, what: str, remedy: str) -> ImageError:
        return ImageError(f"{self.archive}: {what}", remedy=remedy)

    def _damaged(self, what: str, said: str, found: str) -> ImageError:
        return self._fault(
            f"{what} is damaged: it should be sha256:{said[:12]}... and is sha256:{found[:12]}...", _AGAIN
        )

    def _wrong_platform(self, name: str, there: str) -> ImageError:
        return self._fault(
            f"{name} is for {there or 'no platform'}, and nodes are {PLATFORM}", f"export it for {PLATFORM}: {_HOW}"
        )


_HOW = "`skopeo copy docker://NAME:TAG oci-archive:FILE:NAME:TAG`, `ctr image export`, or `docker save`, makes one"
_AGAIN = "make or copy the archive again"


def _platform(entry: Mapping[str, Any]) -> str:
    platform = entry.get("platform") or {}
    return f"{platform.get('os')}/{platform.get('architecture')}"


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    file = tar.extractfile(member)
    if file is None:
        raise tarfile.ReadError(f"{member.name} is not a file")
    return file


@contextmanager
def _opened_archive(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open the archive, compressed or not; raise ImageError where it is not an archive, or a truncated one."""
    try:
        with tarfile.open(archive) as tar:
            yield tar
    except FileNotFoundError:
        raise ImageError(f"there is no file {archive}", remedy="name an archive that is there") from None
    except (IsADirectoryError, PermissionError) as error:
        raise ImageError(f"{archive} can't be read: {error.strerror}", remedy="name a file that you may read") from None
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ImageError(f"{archive} is no archive, or not a whole one: {error}", remedy=_HOW) from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ImageError(f"{archive} is not laid out as an image: {error!r}", remedy=_AGAIN) from None


def pull(wanted: Sequence[ArchivedImage], programs: Path, store: Store, progress: Progress) -> None:
    """Pull the images that are not in the local folder from their registries, each by its digest."""
    missing_images = missing(wanted)
    log = store.log("pull")
    log.unlink(missing_ok=True)
    for entry in missing_images:
        progress.task(f"pulling {entry.name}")
        with tempfile.TemporaryDirectory(dir=_made(folder())) as scratch:
            archive = Path(scratch) / "pulled.tar"
            try:
                containers.pull(entry.name, entry.digest, archive, programs, Path(scratch) / "containerd", log)
            except ImageError as error:
                raise _unreachable(missing_images, error) from None
            add(archive, [entry])


def _unreachable(missing_images: Sequence[ArchivedImage], error: ImageError) -> ImageError:
    """Return the error for images without archive and registry: their components, and why the pull failed."""
    needs = ", ".join(sorted({entry.component for entry in missing_images}))
    images = "\n".join(f"  {entry.name}@{entry.digest}" for entry in missing_images)
    reason = error.message.strip().splitlines()[-1]
    return ImageError(
        f"container images of {needs} are not in {folder()}, and could not be pulled:\n{images}\n{reason}",
        remedy="`./lab image add ARCHIVE...` with archives of these images, or let this machine reach their registry",
        log=error.log,
    )
