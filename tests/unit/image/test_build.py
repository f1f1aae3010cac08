"""What the stages are made of and asked for: commands, digests, archives; and the roles that make a node."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import stat
import tarfile
import threading
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from hoplab import image
from hoplab.core.errors import HostError, ImageError
from hoplab.core.paths import PROJECT
from hoplab.image import debian, disk, gobuild, initrd, oci
from hoplab.image.store import Stage, Store
from hoplab.spec.catalog import GoComponent, components

TABLE = components().shared
SILENT = image._Silent()


def test_kubernetes_is_stamped_with_its_version() -> None:
    argv, environment = gobuild.command(TABLE.go["kubernetes"], "kubeadm", Path("out"))
    assert argv[:4] == ["go", "build", "-mod=readonly", "-trimpath"]
    assert argv[-3:] == ["-o", "out/kubeadm", "k8s.io/kubernetes/cmd/kubeadm"]
    link = argv[argv.index("-ldflags") + 1]
    assert "-X k8s.io/component-base/version.gitVersion=v1.37.2" in link
    assert "-X k8s.io/component-base/version.gitTreeState=clean" in link
    assert environment["CGO_ENABLED"] == "0"


def test_cgo_is_linked_statically() -> None:
    argv, environment = gobuild.command(TABLE.go["flannel"], "flanneld", Path("out"))
    assert environment["CGO_ENABLED"] == "1"
    assert "-extldflags -static" in argv[argv.index("-ldflags") + 1]


def test_a_go_component_is_built_again_when_its_lock_or_flags_change(tmp_path: Path) -> None:
    (tmp_path / "go.sum").write_text("one")
    component = dataclasses.replace(TABLE.go["etcd"], folder=tmp_path)
    keys = {gobuild.key(component), gobuild.key(dataclasses.replace(component, tags=("x",)))}
    (tmp_path / "go.sum").write_text("two")
    keys.add(gobuild.key(component))
    assert len(keys) == 3


def test_files_come_out_of_the_module_that_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CRDs for instance: one file made of those that the module has, in a folder of the image."""
    module, log = tmp_path / "module", tmp_path / "log"
    (module / "crds").mkdir(parents=True)
    for name in "ba":
        (module / "crds" / f"{name}.yaml").write_text(f"---\nkind: {name}\n")

    downloaded: list[str] = []

    def go(argv: list[str], _what: str, _log: Path, **options: Any) -> None:
        assert argv[-1] == "example.org/one"
        if argv[:3] == ["go", "mod", "download"]:
            downloaded.append(argv[-1])
        else:
            assert downloaded, "go list knows no folder of a module that is not there"
            options["on_line"](str(module))

    monkeypatch.setattr(gobuild, "run", go)
    component = GoComponent("one", "1", "example.org/one", tmp_path, {}, files={"one.yaml": "crds/*.yaml"})
    stage = Stage("go-one-1", tmp_path / "stage", "")
    stage.directory.mkdir()
    gobuild._take_files(component, stage.directory / gobuild.SHARE, log)
    disk._link_files({"go.one": stage}, tmp_path / "share")
    assert (tmp_path / "share" / "one.yaml").read_text() == "---\nkind: a\n---\nkind: b\n"
    folders = dataclasses.replace(component, files={"src/": "*/b.*", "src/all/": "crds/**/*"})
    (module / "crds" / "deep").mkdir()
    (module / "crds" / "deep" / "c.yaml").write_text("c")
    (module / "crds" / "b.yaml").chmod(0o444)
    other = Stage("go-other-1", tmp_path / "other-stage", "")
    other.directory.mkdir()
    gobuild._take_files(folders, other.directory / gobuild.SHARE, log)
    copied = other.directory / gobuild.SHARE / "src"
    assert {str(file.relative_to(copied)) for file in copied.rglob("*") if file.is_file()} == {
        *("crds/b.yaml", "all/a.yaml", "all/b.yaml", "all/deep/c.yaml")
    }
    (copied / "all" / "b.yaml").write_text("in Go's cache this is refused")
    disk._link_files({"go.other": other}, tmp_path / "no-folders")
    assert not list((tmp_path / "no-folders").iterdir())
    gone = dataclasses.replace(component, files={"one.yaml": "gone/*.yaml"})
    with pytest.raises(ImageError, match="has no gone") as caught:
        gobuild._take_files(gone, tmp_path / "other", log)
    assert str(module) in caught.value.remedy


def test_files_of_a_component_are_part_of_its_key() -> None:
    component = TABLE.go["metallb"]
    assert gobuild.key(component) != gobuild.key(dataclasses.replace(component, files={}))


def test_a_mirror_is_only_where_packages_come_from() -> None:
    system = TABLE.debian["node"]
    assert debian.command(system, Path("root.tar"), "")[-2:] == ["trixie", "root.tar"]
    assert debian.command(system, Path("root.tar"), "file:///mirror")[-3:] == ["trixie", "root.tar", "file:///mirror"]
    more = dataclasses.replace(system, packages=(*system.packages, "vim"))
    assert debian.key(more) != debian.key(system)


def test_kernel_and_modules_are_taken_out_of_the_archive(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "boot").mkdir(parents=True)
    (root / "boot" / "vmlinuz-6.12").write_text("kernel")
    (root / "usr/lib/modules/6.12/kernel/drivers/block").mkdir(parents=True)
    for name in ("virtio_blk", "loop"):
        (root / f"usr/lib/modules/6.12/kernel/drivers/block/{name}.ko.xz").write_text(name)
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        tar.add(root, ".")
    output = tmp_path / "out"
    output.mkdir()
    debian._take_boot_files(tmp_path / "root.tar", output, tmp_path / "log")
    assert (output / debian.KERNEL).read_text() == "kernel"
    assert [file.name for file in (output / debian.MODULES).iterdir()] == ["virtio_blk.ko.xz"]


def _read_newc(data: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """name -> mode, content, device: as the kernel's documentation of its initramfs buffer format says."""
    found = {}
    while data:
        assert data[:6] == b"070701"
        numbers = [int(data[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
        mode, size, device, name_size = numbers[1], numbers[6], (numbers[9], numbers[10]), numbers[11]
        name = data[110 : 110 + name_size - 1].decode()
        start = (110 + name_size + 3) // 4 * 4
        found[name] = (mode, data[start : start + size], device)
        data = data[(start + size + 3) // 4 * 4 :]
    return found


def test_initrd_is_an_archive_that_the_kernel_reads(tmp_path: Path) -> None:
    (tmp_path / "init").write_text("program!")
    (tmp_path / "module").write_text("module")
    found = _read_newc(initrd.archive({"init": tmp_path / "init", "modules/m.ko.xz": tmp_path / "module"}))
    assert list(found) == ["dev", "modules", "proc", "root", "dev/console", "init", "modules/m.ko.xz", "TRAILER!!!"]
    assert stat.filemode(found["dev"][0]) == "drwxr-xr-x"
    assert (stat.filemode(found["dev/console"][0]), found["dev/console"][2]) == ("crw-------", (5, 1))
    assert (stat.filemode(found["init"][0]), found["init"][1]) == ("-rwxr-xr-x", b"program!")
    assert found["modules/m.ko.xz"][1] == b"module"


def _archive(folder: Path, name: str) -> Path:
    program, base = folder / "program", folder / "base.tar"
    program.write_text("binary")
    oci.write_layer(base, {"bin/sh": program})
    blob = oci.Blob.of_file(oci.LAYER, base)
    images = []
    for number in (1, 2):
        layer = folder / f"layer-{number}.tar"
        oci.write_layer(layer, {f"usr/bin/program{number}": program})
        layers = [blob, oci.Blob.of_file(oci.LAYER, layer)]
        images.append(oci.image(f"hoplab.local/{number}:1", layers, [f"/usr/bin/program{number}"], ["serve"]))
    oci.write_archive(folder / name, images)
    return folder / name


def test_archive_is_a_valid_oci_layout(tmp_path: Path) -> None:
    with tarfile.open(_archive(tmp_path, "a.tar")) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    index = json.loads(files["index.json"])
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert [m["annotations"]["io.containerd.image.name"] for m in index["manifests"]] == [
        "hoplab.local/1:1",
        "hoplab.local/2:1",
    ]
    for name, data in files.items():
        if name.startswith("blobs/"):
            assert name.endswith(hashlib.sha256(data).hexdigest())

    def blob(descriptor: dict[str, Any]) -> bytes:
        data = files["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]
        assert len(data) == descriptor["size"]
        return data

    layers = set()
    for entry in index["manifests"]:
        manifest = json.loads(blob(entry))
        config = json.loads(blob(manifest["config"]))
        assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
        assert config["config"]["Cmd"] == ["serve"]
        layers |= {layer["digest"] for layer in manifest["layers"]}
    assert len(layers) == 3  # the base once
    assert len([name for name in files if name.startswith("blobs/")]) == 3 + 2 + 2


def test_archive_is_reproducible(tmp_path: Path) -> None:
    assert _archive(tmp_path, "a.tar").read_bytes() == _archive(tmp_path, "b.tar").read_bytes()


def test_layer_has_folders_and_executable_files(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("binary")
    oci.write_layer(tmp_path / "layer.tar", {"usr/local/bin/program": tmp_path / "program"})
    with tarfile.open(tmp_path / "layer.tar") as tar:
        members = {member.name: (member.isdir(), member.mode, member.uid, member.mtime) for member in tar}
    assert list(members) == ["usr", "usr/local", "usr/local/bin", "usr/local/bin/program"]
    assert members["usr/local/bin/program"] == (False, 0o755, 0, 0)


# --- the whole, with stages that cost nothing


def test_downloads_of_a_build_go_through_the_users_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org")
    lines: list[str] = []
    image.commands.run(["env"], "", tmp_path / "log", env={"TMPDIR": "/x"}, on_line=lines.append)
    assert {"HTTPS_PROXY=http://proxy.example.org", "TMPDIR=/x"} <= set(lines)


def test_a_cache_folder_with_too_long_a_name_is_refused(tmp_path: Path) -> None:
    commands = image.commands
    room = commands.MOST_SOCKET_BYTES - len(f"/{commands.SOCKET}")
    fits = Path("/" + "é" * ((room - 1) // 2))
    commands.require_short(fits)
    with pytest.raises(
        HostError, match=r"is too long a name: sockets below it have 1\d\d bytes, and 107 are possible"
    ) as caught:
        commands.require_short(Path(f"{fits}éé"))
    assert caught.value.remedy == "choose a cache folder with a shorter name: export XDG_CACHE_HOME=/var/cache"


@pytest.mark.usefixtures("no_build")
def test_what_is_cached_needs_nothing(cache: Store) -> None:
    built = image.ensure_image("tcg", SILENT)
    assert built.digest in built.directory.name
    assert built.disk == built.directory / "disk.qcow2"
    assert image.ensure_image("kvm", SILENT) != built
    kernel, initrd = image.ensure_boot_files(SILENT)
    assert kernel.name == "vmlinuz"
    assert initrd.parent == kernel.parent
    assert {found.digest for found in image.list_images()} == {built.digest, image.ensure_image("kvm", SILENT).digest}


def test_prune_keeps_what_is_needed_and_says_what_went(cache: Store) -> None:
    kept, gone = image.ensure_image("tcg", SILENT), image.ensure_image("kvm", SILENT)

    def old(output: Path) -> dict[str, Any]:
        (output / "etcd").write_bytes(b"x" * 2**20)
        return {}

    cache.make("go-etcd", "0123", old, space_gib=0)
    removed = image.prune_images({kept.digest})
    assert removed == ["go-etcd-0123 (1 MiB)", f"{gone.directory.name} (0 MiB)"]
    assert image.list_images() == [kept]
    assert not list(cache.work.iterdir())
    assert image.ensure_image("tcg", SILENT) == kept


def test_a_role_changes_the_disk_and_nothing_below_it(
    cache: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = image._find_stages(TABLE, cache)
    before = disk.key("tcg", stages)
    for name in (
        "playbooks/image.yml",
        "playbooks/profiles/tcg.yml",
        *(f"roles/{role}/tasks/main.yml" for role in disk.ROLES),
    ):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_bytes((PROJECT / name).read_bytes())
    monkeypatch.setattr(disk, "PROJECT", tmp_path / "p")
    monkeypatch.setattr(disk, "PLAYBOOK", tmp_path / "p/playbooks/image.yml")
    monkeypatch.setattr(disk, "PROFILES", tmp_path / "p/playbooks/profiles")
    same = disk.key("tcg", stages)
    (tmp_path / "p/roles/kubernetes/tasks/main.yml").write_text("---\n")
    assert len({before, same, disk.key("tcg", stages), disk.key("kvm", stages)}) == 4
    assert image._find_stages(TABLE, cache) == stages


# --- the roles


def _yaml(path: str) -> Any:
    return yaml.safe_load((PROJECT / path).read_text())


@pytest.mark.parametrize("role", disk.ROLES)
def test_argument_specs_equal_defaults(role: str) -> None:
    options = _yaml(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert {name: option["default"] for name, option in options.items()} == _yaml(f"roles/{role}/defaults/main.yml")


@pytest.mark.parametrize("accel", ["kvm", "tcg"])
def test_profiles_set_only_what_roles_take(accel: str) -> None:
    known = {name for role in disk.ROLES for name in _yaml(f"roles/{role}/defaults/main.yml")}
    assert set(_yaml(f"playbooks/profiles/{accel}.yml")) <= known


def test_pause_image_is_one_that_is_baked_in() -> None:
    sandbox = _yaml("roles/container_runtime/defaults/main.yml")["container_runtime_sandbox_image"]
    assert sandbox in {entry.name for entry in TABLE.images}


def test_kernel_command_line_has_no_empty_values() -> None:
    """pulumi-libvirt drops arguments whose value is empty."""
    accels: tuple[Literal["kvm", "tcg"], ...] = ("kvm", "tcg")
    for accel in accels:
        words = image.kernel_cmdline(accel).split()
        assert not [word for word in words if word.endswith("=")]
        assert "root=/dev/vda" in words
        assert ("clearcpuid=cx16" in words) == (accel == "tcg")


def test_stages_are_made_two_at_once(tmp_path: Path) -> None:
    """Each of these two ends when the other one has begun."""
    both = threading.Barrier(2, timeout=30)

    def build(name: str) -> Stage:
        both.wait()
        return Stage(name, tmp_path, "")

    made = image._at_once({"go.one": lambda: build("one"), "go.two": lambda: build("two")})
    assert {name: stage.name for name, stage in made.items()} == {"go.one": "one", "go.two": "two"}


def test_after_a_failed_stage_none_is_begun(tmp_path: Path) -> None:
    begun: list[int] = []

    def build(number: int) -> Stage:
        begun.append(number)
        if number == 1:
            raise ImageError("building the second failed")
        threading.Event().wait(0.2)  # all of them would take 20 s
        return Stage(str(number), tmp_path, "")

    with pytest.raises(ImageError, match="building the second failed"):
        image._at_once({str(number): functools.partial(build, number) for number in range(200)})
    assert len(begun) < 200


@pytest.mark.parametrize(
    ("rootless", "left_out"), [(False, ["./boot/vmlinuz-*"]), (True, ["./boot/vmlinuz-*", "./dev/*"])]
)
def test_devices_are_left_out_where_none_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rootless: bool, left_out: list[str]
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(disk, "run", lambda argv, *_: ran.append(argv))
    monkeypatch.setattr(disk, "rootless", lambda: rootless)
    disk._unpack(tmp_path / "root.tar", tmp_path / "root", tmp_path / "log")
    assert [word.removeprefix("--exclude=") for word in ran[0] if word.startswith("--exclude=")] == left_out
