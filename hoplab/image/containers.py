"""The container images of the component table, as one OCI archive, and their import into a node's containerd."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hoplab.core.errors import ImageError
from hoplab.core.progress import Progress
from hoplab.image import oci
from hoplab.image.commands import isolated, run
from hoplab.image.debian import ROOT_TAR
from hoplab.image.store import Stage, Store, digest, file_digest
from hoplab.spec.catalog import HERE, ContainerImage

SPACE_GIB = 2.0
ARCHIVE = "images.tar"
RECIPE = "d1edcc81d28f3b5df65f211af23bf74213eb61c2a75d40c277ec0bb324144916"  # how a node's disk gets its images
OWN = "here/"  # before the path of a file beside the table


def key(images: tuple[ContainerImage, ...], stages: Mapping[str, Stage]) -> str:
    """Return the digest of the images' descriptions, of their content, and of the code that writes the archive."""
    files = {source for image in images for source in image.files.values()}
    own = {source: file_digest(HERE / source.partition("/")[2]) for source in sorted(files) if source.startswith(OWN)}
    sources = {source.partition("/")[0] for source in files - set(own)}
    sources |= {f"debian.{image.base}" for image in images if image.base}
    contents = {source: stages[source].content for source in sorted(sources)}
    return digest([dataclasses.astuple(image) for image in images], {**contents, **own}, oci.RECIPE)


def build(
    images: tuple[ContainerImage, ...],
    stages: Mapping[str, Stage],
    store: Store,
    progress: Progress,
    name: str = "containers",
) -> Stage:
    """Return the stage with the archive of all images; ``stages`` by "go.<component>" and "debian.<system>"."""

    def write(output: Path) -> dict[str, Any]:
        progress.task("writing container images")
        work = output.parent
        log = store.log(name)
        log.unlink(missing_ok=True)
        bases = {
            base: oci.Blob.of_file(oci.LAYER, stages[f"debian.{base}"].directory / ROOT_TAR)
            for base in sorted({image.base for image in images if image.base})
        }
        built = []
        for number, image in enumerate(images):
            layers = [bases[image.base]] if image.base else []
            if image.files:
                layer = work / f"layer-{number}.tar"
                oci.write_layer(layer, _files(image, stages, work, log))
                layers.append(oci.Blob.of_file(oci.LAYER, layer))
            built.append(oci.image(image.name, layers, image.entrypoint, image.command))
        oci.write_archive(output / ARCHIVE, built)
        return {"images": [image.name for image in images]}

    return store.make(name, key(images, stages), write, space_gib=SPACE_GIB)


# A containerd of our own for as long as a command runs. $1 its programs' folder  $2 its root directory  $3 a scratch
# folder; what follows is for the command.
CONTAINERD = r"""
set -eu
programs=$1 root=$2 scratch=$3
shift 3
mkdir -p "$scratch/state"
cat > "$scratch/config.toml" <<END
version = 3
root = "$root"
state = "$scratch/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
                    "io.containerd.podsandbox.controller.v1.cri", "io.containerd.nri.v1.nri"]
[grpc]
address = "$scratch/containerd.sock"
[ttrpc]
address = "$scratch/containerd.sock.ttrpc"
END
"$programs/containerd" --log-level warn --config "$scratch/config.toml" & pid=$!
ctr() { "$programs/ctr" --address "$scratch/containerd.sock" --namespace k8s.io "$@"; }
tries=0
until ctr version >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ $tries -gt 300 ] || ! kill -0 $pid; then echo "containerd does not answer"; exit 1; fi
    sleep 0.1
done
"""

# The layers' archives are not kept once unpacked: the kubelet needs only what they were unpacked to.
IMPORT = r"""
for archive in "$@"; do
    ctr images import --local --discard-unpacked-layers "$archive"
done
ctr content prune references
ctr images list --quiet
kill $pid
wait $pid || true
"""

# $1 an image's name  $2 its digest  $3 the archive to make
PULL = r"""
repository=${1%:*}
ctr content fetch --platform linux/amd64 "$repository@$2"
ctr images tag "$repository@$2" "$1"
ctr images export --platform linux/amd64 "$3" "$1"
"""


def bake(archives: Iterable[Path], programs: Path, root: Path, scratch: Path, log: Path) -> None:
    """Import archives into the containerd of the root file system ``root``, with a private containerd on this host.

    On an emulated machine the same import takes minutes instead of seconds. It runs in namespaces of its own, so the
    overlay mounts it makes while unpacking are nowhere else to be seen, and go with it.
    """
    target = root / "var/lib/containerd"
    _with_containerd(IMPORT, programs, target, scratch, archives, "importing container images", log)
    shutil.rmtree(target / "tmpmounts", ignore_errors=True)


def pull(name: str, digest: str, archive: Path, programs: Path, scratch: Path, log: Path) -> None:
    """Fetch an image by its digest from the registry its name says, and write it as an archive."""
    _with_containerd(PULL, programs, scratch / "root", scratch, [name, digest, archive], f"pulling {name}", log)


def _with_containerd(
    script: str, programs: Path, root: Path, scratch: Path, arguments: Iterable[object], what: str, log: Path
) -> None:
    scratch.mkdir()
    argv = ["sh", "-c", CONTAINERD + script, "sh", programs, root, scratch, *arguments]
    run(isolated([str(word) for word in argv]), what, log)


def _files(image: ContainerImage, stages: Mapping[str, Stage], work: Path, log: Path) -> dict[str, Path]:
    """Return path in the image -> file here; of a folder, each of its files."""
    found: dict[str, Path] = {}
    for path, source in image.files.items():
        file = _file(source, stages, work, log)
        if file.is_dir():
            found |= {path + str(one.relative_to(file)): one for one in file.rglob("*") if one.is_file()}
        else:
            found[path] = file
    return found


def _file(source: str, stages: Mapping[str, Stage], work: Path, log: Path) -> Path:
    """Return the file of a table entry: one beside the table, a built program, or one of a Debian root file system."""
    if source.startswith(OWN):
        return HERE / source.removeprefix(OWN)
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
