"""The container images of the component table, as one OCI archive, and their import into a node's containerd."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hoplab.errors import ImageError
from hoplab.image import oci
from hoplab.image.commands import isolated, run
from hoplab.image.components import ContainerImage
from hoplab.image.debian import ROOT_TAR
from hoplab.image.store import Stage, Store, digest, file_digest
from hoplab.progress import Progress

SPACE_GIB = 2.0
ARCHIVE = "images.tar"


def key(images: tuple[ContainerImage, ...], stages: Mapping[str, Stage]) -> str:
    """Digest of the images' descriptions, of what is put in them, and of the code that writes the archive."""
    sources = {source.partition("/")[0] for image in images for source in image.files.values()}
    sources |= {f"debian.{image.base}" for image in images if image.base}
    contents = {source: stages[source].content for source in sorted(sources)}
    return digest([dataclasses.astuple(image) for image in images], contents, file_digest(Path(oci.__file__)))


def build(images: tuple[ContainerImage, ...], stages: Mapping[str, Stage], store: Store, progress: Progress) -> Stage:
    """The archive with all images, made now or earlier; ``stages`` by "go.<component>" and "debian.<system>"."""

    def write(output: Path) -> dict[str, Any]:
        progress.task("writing container images")
        work = output.parent
        log = store.log("containers")
        log.unlink(missing_ok=True)
        bases = {
            base: oci.Blob.of_file(oci.LAYER, stages[f"debian.{base}"].directory / ROOT_TAR)
            for base in sorted({image.base for image in images if image.base})
        }
        built = []
        for number, image in enumerate(images):
            layer = work / f"layer-{number}.tar"
            files = {name: _file(source, stages, work, log) for name, source in image.files.items()}
            oci.write_layer(layer, files)
            layers = [bases[image.base]] if image.base else []
            layers.append(oci.Blob.of_file(oci.LAYER, layer))
            built.append(oci.image(image.name, layers, image.entrypoint, image.command))
        oci.write_archive(output / ARCHIVE, built)
        return {"images": [image.name for image in images]}

    return store.make("containers", key(images, stages), write, space_gib=SPACE_GIB)


# $1 containerd  $2 ctr  $3 its root directory  $4 a scratch folder  $5 the archive
# The layers' archives are not kept once unpacked: the kubelet needs only what they were unpacked to.
IMPORT = r"""
set -eu
mkdir -p "$4/state"
cat > "$4/config.toml" <<END
version = 3
root = "$3"
state = "$4/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
                    "io.containerd.podsandbox.controller.v1.cri", "io.containerd.nri.v1.nri"]
[grpc]
address = "$4/containerd.sock"
[ttrpc]
address = "$4/containerd.sock.ttrpc"
END
"$1" --log-level warn --config "$4/config.toml" & pid=$!
tries=0
until "$2" --address "$4/containerd.sock" version >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ $tries -gt 300 ] || ! kill -0 $pid; then echo "containerd does not answer"; exit 1; fi
    sleep 0.1
done
"$2" --address "$4/containerd.sock" --namespace k8s.io images import --local --discard-unpacked-layers "$5"
"$2" --address "$4/containerd.sock" --namespace k8s.io content prune references
"$2" --address "$4/containerd.sock" --namespace k8s.io images list --quiet
kill $pid
wait $pid || true
"""


def bake(archive: Path, programs: Path, root: Path, scratch: Path, log: Path) -> None:
    """Import the archive into the containerd of the root file system ``root``, with a private containerd on this host.

    On an emulated machine the same import takes minutes instead of seconds. It runs in namespaces of its own, so the
    overlay mounts it makes while unpacking are nowhere else to be seen, and go with it.
    """
    target = root / "var/lib/containerd"
    scratch.mkdir()
    arguments = [programs / "containerd", programs / "ctr", target, scratch, archive]
    run(isolated(["sh", "-c", IMPORT, "sh", *map(str, arguments)]), "importing container images", log)
    shutil.rmtree(target / "tmpmounts", ignore_errors=True)


def _file(source: str, stages: Mapping[str, Stage], work: Path, log: Path) -> Path:
    """The file that a table entry means: a program we built, or a file taken out of a Debian root file system."""
    stage, _, name = source.partition("/")
    if stage not in stages:
        raise ImageError(f"components.toml: {source} is in no component", remedy="name one of " + ", ".join(stages))
    if stage.startswith("go."):
        return stages[stage].directory / name
    folder = work / "debian-files"
    folder.mkdir(exist_ok=True)
    archive = stages[stage].directory / ROOT_TAR
    run(["tar", "--extract", f"--file={archive}", f"--directory={folder}", f"./{name}"], f"taking {source}", log)
    return folder / name
