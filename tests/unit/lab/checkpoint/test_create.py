"""Writing a checkpoint of a running lab, and every way to fail at it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from hoplab.core.errors import EngineError, LabError
from hoplab.host import freeze, machines
from hoplab.lab import power, state
from hoplab.lab.checkpoint import copying, create, manifest, store
from hoplab.lab.checkpoint.manifest import CheckpointError
from hoplab.lab.checkpoint.store import Store
from tests.support.checkpoint_lab import CheckpointLab, Nodes, calling


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointLab:
    return CheckpointLab(tmp_path, monkeypatch)


def test_a_checkpoint_is_whole_and_the_lab_runs_on(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Nodes, "ends", lab.now + timedelta(days=100))
    made = create.create(lab.paths, "one", lab.progress)
    assert lab.machines() == {("running", "first")}
    assert lab.content() == ("disk 1", "etcd")
    folder = Store(lab.paths).find("one")
    assert manifest.read(folder) == made
    manifest.refuse_damaged(folder, made)
    assert {file.path for file in made.files} == {
        *(f"memory/{name}.save" for name in lab.domains),
        "inventory/inventory.yml",
        "inventory/ssh_config",
        "lab/control-plane/bin",
        "lab/control-plane/etc/kubernetes/pki/apiserver.crt",
        "lab/control-plane/var/lib/etcd/member",
        "lab/engine.json",
        "lab/keys/id_ed25519",
        "lab/libvirt/etc/qemu/worker1.xml",
        "lab/pool/large",
        "lab/pool/worker1.qcow2",
        "lab/pool/worker2.qcow2",
        "lab/state.json",
    }
    assert (folder / "lab/control-plane/bin").is_symlink()
    assert (folder / "lab/engine.json").stat().st_mode & 0o777 == 0o600
    assert (folder / f"memory/{lab.domains[0]}.save").read_text() == "first"
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
    large = folder / "lab/pool/large"
    assert large.read_bytes() == (lab.paths.pool / "large").read_bytes()
    assert large.stat().st_blocks * 512 < large.stat().st_size, "holes are not kept"
    assert (made.image, made.memory_mib, list(made.machines.values())) == ("09a70d5604b94d4e2d6f", 4, lab.domains)
    assert [expiry.what for expiry in made.expiries] == [
        "worker1: kubelet-client-current.pem",
        "worker2: kubelet-client-current.pem",
        "control-plane/etc/kubernetes/pki/apiserver.crt",
    ]
    assert "up to 4 MiB of memory and 2 MiB of files" in lab.screen.getvalue()


def test_the_same_content_has_the_same_name_and_another_has_another(lab: CheckpointLab) -> None:
    made = create.create(lab.paths, "one", lab.progress)
    assert len(made.content) == 64
    assert replace(made, content="").sealed() == made
    assert replace(made, name="two").sealed().content != made.content


def test_the_control_plane_is_stopped_while_its_data_is_copied(lab: CheckpointLab) -> None:
    seen: list[object] = []

    def look() -> None:
        seen.append(((lab.folder / "control-plane").read_text(), lab.machines()))

    with calling(copying, "copy_lab", look):
        create.create(lab.paths, "one", lab.progress)
    assert seen == [("stopped", {("paused", "first")})]


def test_a_node_that_cannot_be_reached_is_saved_as_it_is(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Nodes, "silent", ("worker2",))
    create.create(lab.paths, "one", lab.progress)
    note = "worker2 could not write its caches out: worker2 can't be reached over SSH: Connection refused"
    assert note in lab.screen.getvalue()


@pytest.mark.parametrize("step", ["suspend", "save", "copied", "run", "mend", "digested", "named"])
def test_killed_at_any_step(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """`lab start` lets the same machines go on, and there is no half of a checkpoint."""
    for module, name, mark in (
        (copying, "copy_lab", "copied"),
        (manifest, "digested", "digested"),
        (Store, "keep", "named"),
    ):
        lab.step_after(monkeypatch, module, name, mark)
    lab.killed_at(step, lambda: create.create(lab.paths, "one", lab.progress))
    names = Store(lab.paths).names()
    power.start(lab.paths, lab.progress)
    assert lab.machines() == {("running", "first")}, "a machine was booted, or not resumed"
    assert lab.content() == ("disk 1", "etcd")
    if step == "named":
        manifest.refuse_damaged(Store(lab.paths).find("one"), manifest.read(Store(lab.paths).find("one")))
        return
    assert names == []
    create.create(lab.paths, "two", lab.progress)
    assert [path.name for path in Store(lab.paths).folder.iterdir()] == ["two"]
    assert "removed what a killed command left of checkpoint one" in lab.screen.getvalue()


def test_a_failed_save_leaves_the_lab_running(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_uri: str, _files: object) -> None:
        raise EngineError("worker1 could not be saved: No space left on device", remedy="free some space")

    monkeypatch.setattr(freeze, "save", full)
    with pytest.raises(EngineError, match="No space left"):
        create.create(lab.paths, "one", lab.progress)
    assert lab.machines() == {("running", "first")}
    assert list(Store(lab.paths).folder.iterdir()) == []


def test_a_full_disk_while_files_are_copied(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(CheckpointError, match="can't be written: No space left on device") as caught:
        create.create(lab.paths, "one", lab.progress)
    assert caught.value.remedy.startswith("free some space (df -h ")
    assert lab.machines() == {("running", "first")}
    assert list(Store(lab.paths).folder.iterdir()) == []


def test_a_full_disk_is_seen_before(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MARGIN", 2**60)
    with pytest.raises(CheckpointError, match=r"one needs 6 MiB and .* to spare at .*, and .* are free") as caught:
        create.create(lab.paths, "one", lab.progress)
    assert "./lab checkpoint list" in caught.value.remedy
    assert lab.machines() == {("running", "first")}


def test_a_lab_that_does_not_run(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.put(lab.domains[1], "shut off", "lost")
    with pytest.raises(CheckpointError, match="made of a running lab, and worker2 is shut off") as caught:
        create.create(lab.paths, "one", lab.progress)
    assert caught.value.remedy == "start it: ./lab start --lab dev"
    monkeypatch.setattr(machines, "domain_state", lambda _uri, _name: "")
    with pytest.raises(CheckpointError, match="made of a running lab, and its libvirt does not answer"):
        create.create(lab.paths, "one", lab.progress)


def test_a_lab_in_the_systems_libvirt(lab: CheckpointLab) -> None:
    state.save(replace(state.load(lab.paths), netns=""), lab.paths)
    with pytest.raises(CheckpointError, match="is in the system's libvirt") as caught:
        create.create(lab.paths, "one", lab.progress)
    assert "lab:libvirt: private" in caught.value.remedy


@pytest.mark.parametrize("name", ["", "A", "../x", "a/b", ".hidden", "-x", "x" * 41, "a b", "a."])
def test_names_that_are_none(lab: CheckpointLab, name: str) -> None:
    with pytest.raises(CheckpointError, match="can't be the name of a checkpoint") as caught:
        create.create(lab.paths, name, lab.progress)
    assert "a-z, 0-9" in caught.value.remedy
    with pytest.raises(CheckpointError, match="can't be the name"):
        Store(lab.paths).find(name)


def test_a_name_that_is_taken(lab: CheckpointLab) -> None:
    create.create(lab.paths, "day-4", lab.progress)
    with pytest.raises(CheckpointError, match="lab 'dev' has a checkpoint 'day-4' already") as caught:
        create.create(lab.paths, "day-4", lab.progress)
    assert caught.value.remedy.endswith("./lab checkpoint delete --lab dev day-4")


def test_an_unknown_name(lab: CheckpointLab) -> None:
    with pytest.raises(CheckpointError, match="lab 'dev' has no checkpoint 'x'") as caught:
        Store(lab.paths).find("x")
    assert caught.value.remedy == "make one: ./lab checkpoint create NAME"
    create.create(lab.paths, "a", lab.progress)
    with pytest.raises(CheckpointError) as caught:
        Store(lab.paths).delete("x")
    assert caught.value.remedy == "it has: a"


def test_list_delete_and_the_images_that_are_needed(lab: CheckpointLab) -> None:
    assert (Store(lab.paths).all(), store.images()) == ([], set())
    first, second = (create.create(lab.paths, name, lab.progress) for name in ("zz", "aa"))
    folder = Store(lab.paths).folder
    (folder / "broken").mkdir()
    found = Store(lab.paths).all()
    assert [one.manifest for one in found] == [first, second, None]
    assert found[2].problem.startswith("checkpoint broken is damaged: manifest.json can't be read")
    assert store.images() == {"09a70d5604b94d4e2d6f"}
    assert Store(lab.paths).delete("zz") == first.size
    Store(lab.paths).delete("broken")
    Store(lab.paths).delete("aa")
    assert not folder.exists() and not store.root().exists()


def test_a_certificate_that_cannot_be_read_has_no_expiry() -> None:
    assert create.expiries("x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n") == []


def test_no_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = CheckpointLab(tmp_path, monkeypatch)
    lab.destroy()
    with pytest.raises(LabError, match="there is no lab 'dev' here"):
        create.create(lab.paths, "one", lab.progress)
