"""Returning to a checkpoint: over a lab, from nothing, killed in the middle, and refused before anything is lost."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from hoplab import image as images
from hoplab.core.errors import HostError, ProtectedError, StateError
from hoplab.core.paths import LabPaths
from hoplab.host import accel, freeze
from hoplab.host.info import host_facts
from hoplab.lab import power
from hoplab.lab.checkpoint import create, journal, manifest, restore, store
from hoplab.lab.checkpoint.manifest import CheckpointError
from hoplab.lab.checkpoint.store import Store
from tests.support.checkpoint_lab import CheckpointLab

OLD = ("disk changed", "etcd changed")
NEW = ("disk 1", "etcd")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointLab:
    """A lab with a checkpoint "one", which was changed since."""
    lab = CheckpointLab(tmp_path, monkeypatch)
    create.create(lab.paths, "one", lab.progress)
    lab.change("changed")
    return lab


def untouched(lab: CheckpointLab) -> bool:
    """Whether the lab runs on as if nothing had been asked."""
    return lab.machines() == {("running", "changed")} and lab.content() == OLD


def test_restore_over_a_running_lab(lab: CheckpointLab) -> None:
    restored = restore.restore(lab.paths, "one", lab.progress, yes=True)
    assert lab.machines() == {("running", "first")}
    assert lab.content() == NEW
    assert (lab.paths.pool / "disk-09a70d5604b9").read_text() == "disk of the image"
    assert (lab.paths.console / "worker1.log").read_text() == ""
    assert (lab.paths.control_plane / "bin").is_symlink()
    assert lab.paths.engine_state.stat().st_mode & 0o777 == 0o600
    assert not journal.folder(lab.paths).exists()
    assert restored.notices == ("Pulumi.dev.yaml is gone: `up` needs it",)
    assert "the clock of worker1 was 61 s behind: set" in lab.screen.getvalue()


def test_restore_as_often_as_one_likes(lab: CheckpointLab) -> None:
    for _ in range(3):
        restore.restore(lab.paths, "one", lab.progress, yes=True)
        assert (lab.machines(), lab.content()) == ({("running", "first")}, NEW)
        lab.change("changed")


def test_restore_from_nothing(lab: CheckpointLab) -> None:
    lab.destroy()
    restore.restore(lab.paths, "one", lab.progress)
    assert (lab.machines(), lab.content()) == ({("running", "first")}, NEW)
    assert (lab.paths.inventory.read_text(), lab.paths.ssh_config.read_text()) == ("inventory", "ssh_config")


def test_a_lab_is_not_lost_without_yes(lab: CheckpointLab) -> None:
    with pytest.raises(CheckpointError, match="lab 'dev' exists, and its present state would be lost") as caught:
        restore.restore(lab.paths, "one", lab.progress)
    assert caught.value.remedy.endswith("./lab checkpoint restore --lab dev one --yes")
    assert untouched(lab)


def test_a_protected_lab_is_not_lost_with_yes(lab: CheckpointLab) -> None:
    lab.paths.spec.write_text("config:\n  lab:protect: true\n")
    with pytest.raises(ProtectedError, match="lab dev is protected"):
        restore.restore(lab.paths, "one", lab.progress, yes=True)
    assert untouched(lab)


def damage(lab: CheckpointLab, how: str) -> None:
    folder = Store(lab.paths).folder / "one"
    memory = folder / "memory" / f"{lab.domains[0]}.save"
    match how:
        case "a flipped byte":
            memory.write_bytes(bytes([memory.read_bytes()[0] ^ 1]) + memory.read_bytes()[1:])
        case "a shorter file":
            memory.write_text("firs")
        case "a missing file":
            memory.unlink()
        case "another file":
            (folder / "lab/more").touch()
        case "another link":
            (folder / "lab/control-plane/bin").unlink()
            (folder / "lab/control-plane/bin").symlink_to(str(lab.image.bin)[::-1])
        case "an edited manifest":
            text = (folder / manifest.FILE).read_text()
            (folder / manifest.FILE).write_text(text.replace('"lab": "dev"', '"lab": "dex"'))
        case "half a manifest":
            text = (folder / manifest.FILE).read_text()
            (folder / manifest.FILE).write_text(text[: len(text) // 2])
        case "another format":
            text = (folder / manifest.FILE).read_text()
            (folder / manifest.FILE).write_text(text.replace('"format": 2', '"format": 1'))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("a flipped byte", r"memory/.*worker1\.save is not as written"),
        ("a shorter file", r"memory/.*worker1\.save is of another size than written"),
        ("a missing file", r"memory/.*worker1\.save is missing"),
        ("another file", "lab/more is not of it"),
        ("another link", "lab/control-plane/bin is not as written"),
        ("an edited manifest", r"manifest\.json was changed after it was written"),
        ("half a manifest", r"manifest\.json can't be read: "),
        ("another format", "it has format 1, this version reads format 2"),
    ],
)
def test_a_damaged_checkpoint_is_refused(lab: CheckpointLab, how: str, why: str) -> None:
    damage(lab, how)
    with pytest.raises(CheckpointError, match=f"checkpoint one is damaged: {why}") as caught:
        restore.restore(lab.paths, "one", lab.progress, yes=True)
    assert caught.value.remedy == "nothing was changed; delete it: ./lab checkpoint delete one"
    assert untouched(lab)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"libvirt": "11.2.0"}, "with libvirt 9.0.0, and here is 11.2.0"),
        ({"qemu": "10.0.1"}, "with QEMU 7.2.22, and here is 10.0.1"),
        ({"qemu": ""}, "with QEMU 7.2.22, and here is none"),
        ({"accel": "kvm"}, "with acceleration tcg, and here is kvm"),
        ({"cpu": "X"}, "with the CPU emulated, and here is X"),
        ({"qemu": "8.0.0", "libvirt": "10.0.0"}, "with libvirt 9.0.0, and here is 10.0.0; with QEMU 7.2.22, and"),
    ],
)
def test_another_hypervisor_is_refused(lab: CheckpointLab, changed: dict[str, str], why: str) -> None:
    lab.hypervisor = replace(lab.hypervisor, **changed)
    with pytest.raises(CheckpointError, match=f"checkpoint one was made {why}") as caught:
        restore.restore(lab.paths, "one", lab.progress, yes=True)
    assert caught.value.remedy.endswith("make the lab anew: ./lab up --lab dev")
    assert untouched(lab)


def test_kvm_that_does_not_work_here(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.hypervisor = replace(lab.hypervisor, accel="kvm", cpu="X")
    create.create(lab.paths, "two", lab.progress)
    asked: list[str] = []

    def here(kind: str) -> freeze.Hypervisor:
        asked.append(kind)
        return replace(lab.hypervisor, accel=kind)

    monkeypatch.setattr(freeze, "hypervisor", here)
    monkeypatch.setattr(accel, "resolve", lambda *_: accel.AccelChoice("tcg", "there is no /dev/kvm"))
    with pytest.raises(CheckpointError, match="checkpoint two was made with acceleration kvm, and here is tcg"):
        restore.restore(lab.paths, "two", lab.progress, yes=True)
    monkeypatch.setattr(accel, "resolve", lambda *_: accel.AccelChoice("kvm", "it works"))
    restore.restore(lab.paths, "two", lab.progress, yes=True)
    assert asked == ["tcg", "kvm"]


def test_another_minor_version_is_accepted(lab: CheckpointLab) -> None:
    lab.hypervisor = replace(lab.hypervisor, qemu="7.9.0", libvirt="9.10.0")
    restore.restore(lab.paths, "one", lab.progress, yes=True)
    assert lab.content() == NEW


def test_an_image_that_is_gone(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "list_images", list)
    with pytest.raises(CheckpointError, match="checkpoint one needs the node image 09a70d5604b9, which is") as caught:
        restore.restore(lab.paths, "one", lab.progress, yes=True)
    assert "./lab image build --lab dev" in caught.value.remedy
    assert untouched(lab)


@pytest.mark.parametrize("hours", [1, 25, 40 * 24])
def test_restore_later(lab: CheckpointLab, hours: int) -> None:
    restore.restore(lab.paths, "one", lab.progress, yes=True, now=lambda: lab.now + timedelta(hours=hours))
    assert lab.content() == NEW


def test_expired_certificates(lab: CheckpointLab) -> None:
    later = lab.now + timedelta(days=730)
    with pytest.raises(CheckpointError, match=r"certificates in checkpoint one have expired: .*\.crt on 20") as caught:
        restore.restore(lab.paths, "one", lab.progress, yes=True, now=lambda: later)
    assert "./lab destroy --lab dev, then ./lab up --lab dev" in caught.value.remedy
    assert untouched(lab)


def test_a_full_disk(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MARGIN", 2**60)
    with pytest.raises(CheckpointError, match="restoring one needs 2 MiB and"):
        restore.restore(lab.paths, "one", lab.progress, yes=True)
    assert untouched(lab)


def test_a_disk_that_fills_while_the_lab_is_prepared(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(CheckpointError, match="can't be written: No space left on device"):
        restore.restore(lab.paths, "one", lab.progress, yes=True)
    assert untouched(lab)


def test_too_little_memory_for_a_lab_that_is_not_there(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.destroy()
    facts = replace(host_facts(), available_memory_mib=1)
    monkeypatch.setattr(restore, "host_facts", lambda: facts)
    with pytest.raises(HostError, match="the machines need 4 MiB of memory, and 1 of"):
        restore.restore(lab.paths, "one", lab.progress)
    assert not lab.paths.root.exists()


def test_a_checkpoint_of_another_lab(lab: CheckpointLab) -> None:
    other = LabPaths("other", lab.paths.project)
    (store.root() / lab.paths.id).rename(store.root() / other.id)
    with pytest.raises(CheckpointError, match=f"checkpoint one is of the lab {lab.paths.id}, not of {other.id}"):
        restore.restore(other, "one", lab.progress)


BEFORE = ("checked", "prepared")  # the lab that was there goes on
AFTER = ("committed", "stopped", "kept", "libvirt", "load", "network", "run", "clocks", "prove")


@pytest.mark.parametrize("step", [*BEFORE, *AFTER])
@pytest.mark.parametrize("there", ["over a lab", "from nothing"])
def test_killed_at_any_step(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch, step: str, there: str) -> None:
    """The old lab or the new, never half: `lab start` finishes what was begun."""
    if there == "from nothing":
        lab.destroy()
    if step == "kept" and there == "from nothing":
        pytest.skip("there is no old lab to keep")
    steps = ((restore, "check", "checked"), (restore, "prepare", "prepared"), (journal, "commit", "committed"))
    for module, name, mark in steps:
        lab.step_after(monkeypatch, module, name, mark)
    rename = Path.rename

    def renamed(path: Path, target: Path) -> Path:
        found = rename(path, target)
        if target.name == "old":
            lab.step("kept")
        return found

    monkeypatch.setattr(Path, "rename", renamed)
    lab.killed_at(step, lambda: restore.restore(lab.paths, "one", lab.progress, yes=True))
    if step in BEFORE and there == "from nothing":
        with pytest.raises(StateError, match="there is no lab"):
            power.start(lab.paths, lab.progress)
        restore.restore(lab.paths, "one", lab.progress)
    else:
        assert step in BEFORE or power.interrupted(lab.paths)
        power.start(lab.paths, lab.progress)
    if step in BEFORE and there == "over a lab":
        assert untouched(lab)
    else:
        assert lab.content() == NEW
        assert lab.machines() == {("running", "first")}, "a machine was booted, or not resumed"
    assert not journal.folder(lab.paths).exists()
    assert not power.interrupted(lab.paths)


def test_a_restore_after_a_killed_one(lab: CheckpointLab) -> None:
    lab.killed_at("load", lambda: restore.restore(lab.paths, "one", lab.progress, yes=True))
    restore.restore(lab.paths, "one", lab.progress, yes=True)
    assert (lab.machines(), lab.content()) == ({("running", "first")}, NEW)


def test_a_lab_that_is_destroyed_after_a_killed_restore(lab: CheckpointLab) -> None:
    lab.killed_at("load", lambda: restore.restore(lab.paths, "one", lab.progress, yes=True))
    assert journal.discard(lab.paths) == [f"folder {journal.folder(lab.paths)}"]
    assert journal.discard(lab.paths) == []


def test_roles_that_changed_since(lab: CheckpointLab) -> None:
    (lab.paths.project / "roles").mkdir()
    (lab.paths.project / "roles/new.yml").write_text("- x")
    restored = restore.restore(lab.paths, "one", lab.progress, yes=True)
    assert "roles or playbooks have changed since the checkpoint" in restored.notices[-1]
