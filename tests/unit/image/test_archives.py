"""Images that are brought: every fault of an archive is named, and what is kept is what node images are made with."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from hoplab import cli, image
from hoplab.core.errors import ImageError
from hoplab.image import archives, containers, disk, gobuild, oci
from hoplab.image.store import Stage, Store
from hoplab.spec.catalog import ArchivedImage, components
from tests.support.image_archives import CNI, TABLE, Files, blob, built, docker_files, layout, named, oci_files, written

pytestmark = pytest.mark.usefixtures("folder")


# --- what is taken


def test_an_oci_archive_is_kept_and_found(tmp_path: Path, folder: Path) -> None:
    files = oci_files()
    ((entry, kept),), left_out = archives.add(written(tmp_path / "a.tar", files), TABLE)
    assert (entry, left_out) == (TABLE[0], [])
    assert kept.file == folder / "quay.io+calico+cni_v3.32.1.tar"
    assert kept.digest == json.loads(files["index.json"])["manifests"][0]["digest"]
    assert archives.find(TABLE) == (kept,)
    assert archives.missing(TABLE) == tuple(TABLE[1:])
    assert [file.name for file in folder.iterdir()] == [kept.file.name], "scratch files are left"


def test_what_is_kept_is_an_oci_archive_with_the_very_same_blobs(tmp_path: Path) -> None:
    files = oci_files()
    ((_, kept),), _ = archives.add(written(tmp_path / "a.tar", files), TABLE)
    with tarfile.open(kept.file) as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert {name: data for name, data in found.items() if name.startswith("blobs")} == {
        name: data for name, data in files.items() if name.startswith("blobs")
    }
    ((_, again),), _ = archives.add(kept.file, TABLE)
    assert again == kept


@pytest.mark.parametrize("compress", [gzip.compress], ids=["gzip"])
def test_an_archive_may_be_compressed(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    plain = written(tmp_path / "a.tar", oci_files())
    (tmp_path / "a.tar.gz").write_bytes(compress(plain.read_bytes()))
    assert archives.add(tmp_path / "a.tar.gz", TABLE) == archives.add(plain, TABLE)


def test_the_machine_that_nodes_are_is_chosen_from_a_multi_platform_image(tmp_path: Path) -> None:
    files: Files = {}
    arm = built(files, "arm64", (b"arm",)) | {"platform": {"os": "linux", "architecture": "arm64"}}
    amd = built(files) | {"platform": {"os": "linux", "architecture": "amd64"}}
    attestation = built(files, "amd64", (b"signed",)) | {"platform": {"os": "unknown", "architecture": "unknown"}}
    index = blob(files, oci.INDEX, json.dumps({"manifests": [arm, amd, attestation]}).encode())
    del files["blobs/sha256/" + arm["digest"][7:]]  # an export for one platform has only that one's blobs
    ((_, kept),), _ = archives.add(written(tmp_path / "a.tar", layout(files, named(index, CNI))), TABLE)
    assert (kept.digest, kept.source) == (amd["digest"], index["digest"])
    assert kept.is_release(ArchivedImage("cni_calico", CNI, index["digest"]))
    assert kept.is_release(ArchivedImage("cni_calico", CNI, amd["digest"]))
    assert not kept.is_release(TABLE[0])


def test_docker_save_is_understood(tmp_path: Path) -> None:
    ((entry, kept),), _ = archives.add(written(tmp_path / "a.tar", docker_files()), TABLE)
    assert (entry.name, kept.name) == (CNI, CNI)
    with tarfile.open(kept.file) as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
        manifest = json.load(tar.extractfile("blobs/sha256/" + kept.digest[7:]))  # type: ignore[arg-type]
        layers = [tar.extractfile("blobs/sha256/" + layer["digest"][7:]).read() for layer in manifest["layers"]]  # type: ignore[union-attr]
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == CNI
    assert layers == [b"base", b"program"]


@pytest.mark.parametrize(
    "name", ["quay.io/calico/cni:v3.32.1", "docker.io/calico/cni:v3.32.1", "localhost/calico/cni:v3.32.1"]
)
def test_name_and_version_decide_not_the_registry(tmp_path: Path, name: str) -> None:
    ((_, kept),), _ = archives.add(written(tmp_path / "a.tar", oci_files(name)), TABLE)
    assert kept.name == CNI


def test_skopeo_and_podman_name_images_in_their_own_annotation(tmp_path: Path) -> None:
    files: Files = {}
    entry = named(built(files), CNI, "org.opencontainers.image.ref.name")
    ((_, kept),), _ = archives.add(written(tmp_path / "a.tar", layout(files, entry)), TABLE)
    assert kept.name == CNI


def test_an_archive_may_hold_several_images_also_ones_that_nobody_needs(tmp_path: Path) -> None:
    files: Files = {}
    entries = [
        named(built(files, layers=(name.encode(),)), name) for name in (CNI, TABLE[1].name, "quay.io/calico/csi:v1")
    ]
    kept, left_out = archives.add(written(tmp_path / "a.tar", layout(files, *entries)), TABLE)
    assert [entry for entry, _ in kept] == TABLE[:2]
    assert left_out == ["quay.io/calico/csi:v1"]
    assert archives.missing(TABLE) == (TABLE[2],)


def test_an_image_that_is_added_again_replaces_the_first(tmp_path: Path) -> None:
    archives.add(written(tmp_path / "a.tar", oci_files()), TABLE)
    files: Files = {}
    entry = named(built(files, layers=(b"another build",)), CNI)
    ((_, kept),), _ = archives.add(written(tmp_path / "b.tar", layout(files, entry)), TABLE)
    assert archives.find(TABLE) == (kept,)


# --- node images


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Store:
    """Every stage is there at once, and a build of the disk only writes down what it was given."""
    store = image._store()

    def stage(name: str) -> Stage:
        return store.make(name, "key", lambda _: {"size_gib": 20, "versions": {}, "stages": []}, space_gib=0)

    def node(order: disk.Order, store: Store, _progress: object) -> Stage:
        facts = {"size_gib": 20, "versions": {}, "archives": {kept.name: kept.digest for kept in order.archives}}
        return store.make("node", order.key, lambda _: facts, space_gib=0)

    monkeypatch.setattr(image, "_check_host", lambda: None)
    monkeypatch.setattr(gobuild, "build", lambda component, *_: stage(f"go-{component.name}"))
    monkeypatch.setattr(image.debian, "build", lambda system, *_: stage(f"debian-{system.name}"))
    monkeypatch.setattr(image, "_build_boot", lambda *_: {"boot": stage("boot")})
    monkeypatch.setattr(containers, "build", lambda *_: stage("containers"))
    monkeypatch.setattr(disk, "build", node)
    return store


def add_all(tmp_path: Path, component: str) -> None:
    for entry in components().archives_of([component]):
        archives.add(written(tmp_path / "a.tar", oci_files(entry.name)), components().archives)


@pytest.mark.usefixtures("whole")
def test_an_archive_makes_a_new_node_image_for_labs_that_need_it_and_for_no_other(tmp_path: Path) -> None:
    def made(*needs: str) -> image.NodeImage:
        return image.ensure_image("tcg", image._Silent(), needs=needs)

    without = made()
    add_all(tmp_path, "ingress_nginx")
    assert made() == made("cni_flannel") == without
    first = made("ingress_nginx", "cni_flannel")
    assert first.digest != without.digest
    assert list(first.archives) == [entry.name for entry in components().archives_of(["ingress_nginx"])]
    assert made("ingress_nginx") == first
    files: Files = {}
    name = next(iter(first.archives))
    archives.add(
        written(tmp_path / "b.tar", layout(files, named(built(files, layers=(b"new",)), name))), components().archives
    )
    assert made("ingress_nginx").digest not in {first.digest, without.digest}


@pytest.mark.usefixtures("whole")
def test_without_archive_and_registry_the_images_are_named_before_anything_else_is_built(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def unreachable(name: str, digest: str, *_: object) -> None:
        asked.append((name, digest))
        message = f"pulling {name} failed (exit status 1):\nfetching\nctr: dial tcp: lookup quay.io: no such host"
        raise ImageError(message, remedy="read the log", log="/cache/logs/pull.log")

    monkeypatch.setattr(containers, "pull", unreachable)
    monkeypatch.setattr(image, "_build_boot", lambda *_: pytest.fail("something is built"))
    wanted = components().archives_of(["cni_calico"])
    archives.add(written(tmp_path / "a.tar", oci_files(wanted[1].name)), components().archives)
    with pytest.raises(ImageError) as failed:
        image.ensure_image("tcg", image._Silent(), needs=["cni_calico"])
    lines = failed.value.message.splitlines()
    assert lines[0] == f"container images of cni_calico are not in {folder}, and could not be pulled:"
    assert lines[1:-1] == [f"  {entry.name}@{entry.digest}" for entry in (wanted[0], wanted[2])]
    assert lines[-1] == "ctr: dial tcp: lookup quay.io: no such host"
    assert "./lab image add" in failed.value.remedy
    assert failed.value.log == "/cache/logs/pull.log"
    assert asked == [(wanted[0].name, wanted[0].digest)]


@pytest.mark.usefixtures("whole")
def test_what_is_pulled_is_kept_like_what_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = components().archives_of(["ingress_nginx"])

    def registry(name: str, digest: str, archive: Path, *_: object) -> None:
        assert (name, digest) == (entry.name, entry.digest)
        written(archive, oci_files(name))

    monkeypatch.setattr(containers, "pull", registry)
    made = image.ensure_image("tcg", image._Silent(), needs=["ingress_nginx"])
    assert list(made.archives) == [entry.name]
    monkeypatch.setattr(containers, "pull", lambda *_: pytest.fail("it is pulled twice"))
    assert image.ensure_image("tcg", image._Silent(), needs=["ingress_nginx"]) == made


def test_pulling_is_by_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(containers, "run", lambda argv, *_: ran.append(argv))
    containers.pull(CNI, TABLE[0].digest, tmp_path / "a.tar", tmp_path, tmp_path / "scratch", tmp_path / "log")
    assert ran[0][-3:] == [CNI, TABLE[0].digest, str(tmp_path / "a.tar")]
    assert 'ctr content fetch --platform linux/amd64 "$repository@$2"' in containers.PULL


# --- the verbs


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.cli, ["image", *words], catch_exceptions=False)
    return result.exit_code, result.output


def test_add_says_what_was_added_and_what_is_still_missing(tmp_path: Path) -> None:
    node, cni, controllers = components().archives_of(["cni_calico"])
    files: Files = {}
    entries = [named(built(files, layers=(name.encode(),)), name) for name in (cni.name, "quay.io/calico/csi:v3.32.1")]
    archive = written(tmp_path / "calico.tar", layout(files, *entries))
    code, out = run("add", str(archive))
    assert code == 0
    digest = entries[0]["digest"][:19]
    assert out.splitlines() == [
        f"added     {cni.name}  {digest}  built elsewhere: upstream's release is {cni.digest[:19]}",
        "left out  quay.io/calico/csi:v3.32.1: no component needs it",
        f"cni_calico: still missing {node.name}, {controllers.name}",
        "ingress_nginx: still missing docker.io/nginx/nginx-ingress:5.5.3",
        "ingress_traefik: still missing docker.io/library/traefik:v3.7.13",
        "ingress_haproxy: still missing docker.io/haproxytech/kubernetes-ingress:3.2.15",
        "ingress_ingress_nginx: still missing registry.k8s.io/ingress-nginx/controller:v1.15.1",
        "gateway_nginx: still missing ghcr.io/nginx/nginx-gateway-fabric:2.6.5, "
        "ghcr.io/nginx/nginx-gateway-fabric/nginx:2.6.5",
    ]
    others = [written(tmp_path / f"{n}.tar", oci_files(entry.name)) for n, entry in enumerate((node, controllers))]
    _, out = run("add", *map(str, others))
    assert "cni_calico: complete" in out.splitlines()


def test_list_shows_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    (entry,) = components().archives_of(["ingress_nginx"])
    ((_, kept),), _ = archives.add(written(tmp_path / "a.tar", oci_files(entry.name)), components().archives)
    _, out = run("list")
    assert f"ingress_nginx  {entry.name}  {kept.digest[:19]}  built elsewhere" in out
    assert "cni_calico  quay.io/calico/cni:v3.32.1  not here; pulled when a lab needs it" in out


def test_an_ingress_controller_is_at_hand_when_all_its_images_are(tmp_path: Path) -> None:
    assert image.ingress_controllers() == ("readable",)
    add_all(tmp_path, "cni_calico")
    assert image.ingress_controllers() == ("readable",)
    add_all(tmp_path, "ingress_nginx")
    add_all(tmp_path, "ingress_ingress_nginx")
    assert image.ingress_controllers() == ("readable", "nginx", "ingress-nginx")


def test_prune_leaves_archives_alone(tmp_path: Path) -> None:
    add_all(tmp_path, "cni_calico")
    image.prune_images(set())
    assert image.missing_images("cni_calico") == ()


# --- the table


def test_archives_of_the_table_are_pinned_and_named_once() -> None:
    table = components().archives
    assert len({entry.name for entry in table}) == len(table) == len({archives._short(entry.name) for entry in table})
    for entry in table:
        assert archives.full_name(entry.name) == entry.name
        assert entry.digest.startswith("sha256:")
        assert archives.HEX.fullmatch(entry.digest[7:])


def test_doctests() -> None:
    import doctest  # noqa: PLC0415 -- only here

    assert doctest.testmod(archives).attempted >= 3
    assert doctest.testmod(archives).failed == 0
