"""Archives of images that are refused: every error names what is wrong, and nothing is kept."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from hoplab.core.errors import ImageError
from hoplab.image import archives, oci
from tests.support.image_archives import CNI, TABLE, Files, blob, built, docker_files, layout, named, oci_files, written

pytestmark = pytest.mark.usefixtures("folder")


def refused(tmp_path: Path, files: Files) -> str:
    with pytest.raises(ImageError) as failed:
        archives.add(written(tmp_path / "a.tar", files), TABLE)
    assert failed.value.remedy
    assert not list(archives.folder().iterdir()), "something is kept"
    return failed.value.message.removeprefix(f"{tmp_path / 'a.tar'}").removeprefix(": ")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no file"):
        archives.add(tmp_path / "nowhere.tar", TABLE)
    with pytest.raises(ImageError, match="can't be read: Is a directory"):
        archives.add(tmp_path, TABLE)
    (tmp_path / "text").write_text("not a tar")
    with pytest.raises(ImageError, match="is no archive, or not a whole one") as failed:
        archives.add(tmp_path / "text", TABLE)
    assert "skopeo copy" in failed.value.remedy


@pytest.mark.parametrize("compressed", [False, True])
def test_half_an_archive(tmp_path: Path, compressed: bool) -> None:
    files = oci_files()
    files["blobs/sha256/" + "f" * 64] = bytes(range(256)) * 400
    data = written(tmp_path / "a.tar", files).read_bytes()
    data = gzip.compress(data) if compressed else data
    (tmp_path / "half.tar").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="is no archive, or not a whole one"):
        archives.add(tmp_path / "half.tar", TABLE)


def test_a_tar_of_something_else(tmp_path: Path) -> None:
    said = refused(tmp_path, {"etc/passwd": b"root"})
    assert said == "it has neither an index.json (OCI) nor a manifest.json (docker)"


def test_a_layout_of_another_time(tmp_path: Path) -> None:
    files = oci_files()
    assert refused(tmp_path, files | {"oci-layout": b"{}"}) == "its OCI layout has version none, not 1.x"
    assert "has version 2.0.0" in refused(tmp_path, files | {"oci-layout": b'{"imageLayoutVersion": "2.0.0"}'})
    del files["oci-layout"]
    assert refused(tmp_path, files) == "it has no oci-layout"


def test_no_image_in_it(tmp_path: Path) -> None:
    assert refused(tmp_path, layout({})) == "it holds no image"
    assert refused(tmp_path, {"manifest.json": b"[]"}) == "it holds no image"
    assert "its index.json is not JSON" in refused(tmp_path, layout({}) | {"index.json": b"{"})


def test_an_image_without_a_full_name(tmp_path: Path) -> None:
    files: Files = {}
    entry = built(files)
    assert refused(tmp_path, layout(files, entry)) == "an image in it has no name"
    tagged = named(entry, "v3.32.1", "org.opencontainers.image.ref.name")
    assert refused(tmp_path, layout(files, tagged)) == "an image in it has only the tag 'v3.32.1'"
    untagged = {"manifest.json": json.dumps([{"Config": "c", "RepoTags": None, "Layers": []}]).encode()}
    assert refused(tmp_path, untagged) == "an image in it has no name"


def test_an_image_that_nobody_needs(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="which no component needs") as failed:
        archives.add(written(tmp_path / "a.tar", oci_files("docker.io/library/redis:8")), TABLE)
    assert "what is needed is quay.io/calico/cni:v3.32.1, quay.io/calico/node" in failed.value.remedy


def test_another_version_of_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"v3\.31\.0, which no component needs") as failed:
        archives.add(written(tmp_path / "a.tar", oci_files("quay.io/calico/cni:v3.31.0")), TABLE)
    assert failed.value.remedy == f"what is needed is {CNI}"


def test_another_platform(tmp_path: Path) -> None:
    assert refused(tmp_path, oci_files(architecture="arm64")) == f"{CNI} is for linux/arm64, and nodes are linux/amd64"
    files: Files = {}
    arm = built(files, "arm64") | {"platform": {"os": "linux", "architecture": "arm64"}}
    index = blob(files, oci.INDEX, json.dumps({"manifests": [arm]}).encode())
    said = refused(tmp_path, layout(files, named(index, CNI)))
    assert said == f"{CNI} is for linux/arm64, and nodes are linux/amd64"


def test_something_that_is_no_image(tmp_path: Path) -> None:
    files: Files = {}
    entry = named(blob(files, "application/vnd.cncf.helm.config.v1+json", b"{}"), CNI)
    assert refused(tmp_path, layout(files, entry)).endswith("helm.config.v1+json, not an image")


def paths_of(files: Files) -> dict[str, str]:
    """What is in the one image of a layout -> its path."""
    top = json.loads(files["index.json"])["manifests"][0]["digest"][7:]
    manifest = json.loads(files[f"blobs/sha256/{top}"])
    parts = {"the manifest": top, "the configuration": manifest["config"]["digest"][7:]}
    parts |= {f"layer {n}": layer["digest"][7:] for n, layer in enumerate(manifest["layers"], 1)}
    return {what: f"blobs/sha256/{digest}" for what, digest in parts.items()}


@pytest.mark.parametrize("what", ["the manifest", "the configuration", "layer 1", "layer 2"])
def test_a_blob_that_is_damaged_or_missing(tmp_path: Path, what: str) -> None:
    files = oci_files()
    path = paths_of(files)[what]
    digest = path.rpartition("/")[2]
    other = hashlib.sha256(files[path] + b"!").hexdigest()
    said = refused(tmp_path, files | {path: files[path] + b"!"})
    assert said == f"{what} of {CNI} is damaged: it should be sha256:{digest[:12]}... and is sha256:{other[:12]}..."
    del files[path]
    assert refused(tmp_path, files) == f"{what} of {CNI} is not in it ({path})"


def test_a_descriptor_that_does_not_fit(tmp_path: Path) -> None:
    files: Files = {}
    entry = named(built(files), CNI)
    said = refused(tmp_path, layout(files, entry | {"size": 7}))
    assert said == f"the manifest of {CNI} should have 7 bytes and has {entry['size']}"
    said = refused(tmp_path, layout(files, entry | {"digest": "sha512:" + "0" * 128}))
    assert said.endswith("which is no SHA-256")
    said = refused(tmp_path, layout(files, entry | {"digest": "sha256:../../index.json"}))
    assert said.endswith("which is no SHA-256")


def test_a_layer_more_or_less_than_the_configuration_says(tmp_path: Path) -> None:
    files: Files = {}
    entry = built(files)
    manifest = json.loads(files["blobs/sha256/" + entry["digest"][7:]])
    short = blob(files, oci.MANIFEST, json.dumps(manifest | {"layers": manifest["layers"][:1]}).encode())
    assert refused(tmp_path, layout(files, named(short, CNI))) == f"{CNI} should have 2 layers and has 1"


def test_docker_save_that_is_damaged(tmp_path: Path) -> None:
    files = docker_files()
    name = "calico/cni:v3.32.1"
    assert f"layer 2 of {name} is damaged" in refused(tmp_path, files | {"1/layer.tar": b"bad"})
    config = next(path for path in files if path.endswith(".json") and path != "manifest.json")
    assert f"the configuration of {name} is damaged" in refused(tmp_path, files | {config: files[config] + b" "})
    del files["0/layer.tar"]
    assert refused(tmp_path, files) == f"layer 1 of {name} is not in it (0/layer.tar)"


def test_json_that_is_something_else(tmp_path: Path) -> None:
    files: Files = {}
    entry = named(blob(files, oci.MANIFEST, b'["not", "a manifest"]'), CNI)
    assert "is not laid out as an image" in refused(tmp_path, layout(files, entry))


def test_a_kept_archive_that_was_damaged_is_named(tmp_path: Path) -> None:
    ((_, kept),), _ = archives.add(written(tmp_path / "a.tar", oci_files()), TABLE)
    kept.file.write_bytes(b"rubbish")
    with pytest.raises(ImageError, match="is damaged") as failed:
        archives.find(TABLE)
    assert str(kept.file) in failed.value.message
    assert "remove it" in failed.value.remedy


def test_a_file_that_was_put_there_by_hand_is_named(tmp_path: Path) -> None:
    file = archives.file_of(CNI)
    file.parent.mkdir(parents=True)
    written(file, oci_files())
    with pytest.raises(ImageError, match=r"was not written by `./lab image add`: .* 'hoplab.local/source'") as failed:
        archives.find(TABLE)
    assert str(file) in failed.value.message
    assert "move it" in failed.value.remedy
