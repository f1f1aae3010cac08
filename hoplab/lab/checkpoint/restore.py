"""Put a lab back to a checkpoint; a lab that was destroyed, too.

1. check: the checkpoint is intact and fits this host, its image is there, the disk has room. Nothing is changed.
2. files: the new lab is prepared beside the old one.
3. journal: from here on the new lab is the lab (see journal.py). The old machines end, the folders change places.
4. machines: libvirt finds its definitions and the saved memory in the new folder, and all machines resume together.
5. usable: proven, see usable.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hoplab import image as images
from hoplab.cluster.inventory import roles_digest
from hoplab.core.console import ConsoleProgress
from hoplab.core.lock import locked
from hoplab.core.paths import LabPaths
from hoplab.host import accel, freeze
from hoplab.host.freeze import saved_memory
from hoplab.host.info import host_facts
from hoplab.image import NodeImage
from hoplab.lab import clocks, host_access, power, state
from hoplab.lab.checkpoint import copying, fork, journal, manifest, usable
from hoplab.lab.checkpoint.manifest import CheckpointError, Manifest
from hoplab.lab.checkpoint.store import INVENTORY, LAB, MEMORY, Store, refuse_full_disk
from hoplab.lab.protection import refuse_protected
from hoplab.lab.state import LabState

Now = Callable[[], datetime]


@dataclass(frozen=True)
class Restored:
    """A lab that is in the state of a checkpoint."""

    state: LabState
    manifest: Manifest
    notices: tuple[str, ...]  # what differs from the checkpoint: its spec, its roles


def restore(
    paths: LabPaths, name: str, progress: ConsoleProgress, *, yes: bool = False, now: Now = manifest.utc_now
) -> Restored:
    """Put the lab back to a checkpoint and prove that it is usable.

    Raise a LabError before anything is lost where the checkpoint is damaged or does not fit, and without ``yes`` where
    there is a lab. A later failure is finished by ``lab start``.
    """
    store = Store(paths)
    with locked(paths.lock, f"lab checkpoint restore --lab {paths.lab}"):
        return put_back(paths, store, name, progress, yes=yes, now=now)


def put_back(
    paths: LabPaths, store: Store, name: str, progress: ConsoleProgress, *, yes: bool, now: Now = manifest.utc_now
) -> Restored:
    """Restore as ``restore`` does; the caller holds the lab's lock.

    A checkpoint in the ``store`` of another lab of the family becomes a fork: this lab, with keys of its own.
    """
    store.clean()
    folder = store.find(name)
    found = manifest.read(folder)
    _refuse_existing(paths, name, yes=yes)
    if found.id != paths.id and store.lab != paths.lab:
        fork.refuse_other_engine(found)
    with progress.phase("check"):
        built = check(found, folder, paths, now(), store.lab)
    with progress.phase("files"):
        if journal.place(paths):  # a restore before this one was killed: its lab is the old one now
            journal.done(paths)
        prepare(found, folder, paths, built)
    journal.commit(paths, name)
    with progress.phase("machines"):
        journal.place(paths)
        lab = state.load(paths)
        started = power.switch_on(lab, paths, progress, resumed_are_up=True)
    with progress.phase("clocks"):
        for skew in clocks.renew(lab, paths):
            progress.task(str(skew))
    with progress.phase("usable"):
        usable.prove(lab, paths, progress, started)
    lab = host_access.open_host(lab, paths, progress.note)
    journal.done(paths)
    return Restored(lab, found, tuple(notices(found, lab, paths)))


def _refuse_existing(paths: LabPaths, name: str, *, yes: bool) -> None:
    """Raise CheckpointError without ``yes`` where a lab would be lost, ProtectedError where it may not be."""
    if not (paths.state.exists() or paths.engine_state.exists()):
        return
    refuse_protected(paths)
    if not yes:
        raise CheckpointError(
            f"lab {paths.lab!r} exists, and its present state would be lost",
            remedy=f"if that is what you want: ./lab checkpoint restore --lab {paths.lab} {name} --yes",
        )


def check(found: Manifest, folder: Path, paths: LabPaths, now: datetime, of: str) -> NodeImage:
    """Return the node image of a checkpoint that can be restored here and now; raise a LabError for any other.

    ``of`` is the lab whose checkpoint it has to be.
    """
    if found.id != LabPaths(of, paths.project).id:
        raise CheckpointError(
            f"checkpoint {found.name} is of the lab {found.id}, not of {LabPaths(of, paths.project).id}",
            remedy=f"restore it where it was made, as lab {found.lab}",
        )
    there = {built.digest: built for built in images.list_images()}
    manifest.refuse_missing_image(found, there)
    manifest.refuse_other_host(found, freeze.hypervisor(_accel_here(found, there[found.image])))
    manifest.refuse_expired(found, now)
    lab_size = sum(file.size for file in found.files if file.path.startswith(f"{LAB}/"))
    memory_size = found.size - lab_size
    same_disk = paths.project.stat().st_dev == folder.stat().st_dev and found.id == paths.id  # a fork's is written anew
    refuse_full_disk({paths.root: lab_size + (0 if same_disk else memory_size)}, f"restoring {found.name}")
    if not paths.state.exists():
        host_facts().require_memory(found.memory_mib)
    manifest.refuse_damaged(folder, found)
    return there[found.image]


def _accel_here(found: Manifest, built: NodeImage) -> str:
    """Return the acceleration for the checkpoint's machines here: emulation works everywhere, KVM is tried."""
    return accel.resolve("auto", built.kernel, built.initrd).accel if found.hypervisor.accel == "kvm" else "tcg"


def prepare(found: Manifest, folder: Path, paths: LabPaths, built: NodeImage) -> None:
    """Prepare the new lab beside the old one: files of the checkpoint, volumes of the image, saved memory."""
    place = journal.begin(paths)
    new = place / "lab"
    copying.copy_tree(folder / INVENTORY, place / INVENTORY)
    copying.copy_tree(folder / LAB, new)
    copying.place_image(built, new / paths.pool.relative_to(paths.root))
    (new / "console").mkdir(exist_ok=True)
    for node in found.machines:
        (new / "console" / f"{node}.log").touch()  # QEMU opens the console's file, but does not create it
    if found.id != paths.id:
        fork.adapt(place, found, paths)
    libvirt = new / paths.libvirt.relative_to(paths.root)
    for node, name in found.machines.items():
        if found.id != paths.id:
            fork.place_memory(folder / MEMORY / f"{name}.save", libvirt, found, node, paths)
            continue
        memory = saved_memory(libvirt, name)
        memory.parent.mkdir(parents=True, exist_ok=True)
        copying.share(folder / MEMORY / f"{name}.save", memory)


def notices(found: Manifest, lab: LabState, paths: LabPaths) -> list[str]:
    """Return what differs between the checkpoint and the project's present files: what the next ``up`` would change."""
    told = [state.spec_notice(lab, paths)] if paths.spec.exists() else [f"{paths.spec.name} is gone: `up` needs it"]
    if found.roles != roles_digest(paths.project):
        told.append("roles or playbooks have changed since the checkpoint: the next `./lab up` applies them")
    return [notice for notice in told if notice]
