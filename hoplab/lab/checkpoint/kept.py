"""The checkpoint that ``lab up`` keeps of a new lab, and takes where it would make exactly that lab from nothing.

A lab has at most one. Its name is a digest of all that a new lab is made from, so a lab that would become another one
(another spec, image, role or hypervisor) has none.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hoplab.cluster.inventory import roles_digest
from hoplab.core.console import ConsoleProgress
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.core.serialization import to_json
from hoplab.engine import Engine
from hoplab.host import freeze
from hoplab.image.store import digest, tree_digest
from hoplab.lab.checkpoint import create, journal, manifest, restore
from hoplab.lab.checkpoint.manifest import CheckpointError
from hoplab.lab.checkpoint.restore import Restored
from hoplab.lab.checkpoint.store import Store, folders, is_kept, mib, remove, size_of
from hoplab.lab.state import LabState
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import LabPlan

MOST = 8 * 2**30  # bytes of what is kept of all labs of this user; the oldest go first
MAKERS = ("cluster", "engine", "infra", "pki", "spec")  # rooms whose code decides what a new lab is


class Recipe(NamedTuple):
    """What a new lab is made from."""

    plan: LabPlan
    image: str  # digest of the node image
    engine: Engine


def keeps(spec: LabSpec, engine: Engine) -> bool:
    """Return whether labs of a spec are kept: with their libvirt and the engine's state in the lab's folder."""
    return spec.checkpoint == "auto" and spec.libvirt == "private" and engine.state_in_lab


def name_of(recipe: Recipe, project: Path) -> str:
    """Return the name of the checkpoint of a lab that is made from this."""
    package = project / "hoplab"
    made_from = (
        manifest.FORMAT,
        to_json(recipe.plan),
        recipe.image,
        type(recipe.engine).__name__,
        roles_digest(project),
        tree_digest([package / room for room in MAKERS], package),
        vars(freeze.hypervisor(recipe.plan.accel)),
    )
    return f"up-{digest(*made_from)[:12]}"


def take(recipe: Recipe, paths: LabPaths, progress: ConsoleProgress) -> Restored | None:
    """Restore the lab that ``up`` would make; return None where it is not kept, or does not fit.

    The caller holds the lab's lock, and there is no lab. A later failure is finished by ``lab start``.
    """
    store, name = Store(paths), name_of(recipe, paths.project)
    if name not in store.names():
        return None
    try:
        return restore.put_back(paths, store, name, progress, yes=False)
    except CheckpointError as error:  # raised only before the restored lab becomes the lab
        journal.discard(paths)
        progress.note(f"the lab is made anew: {error.message}")
        return None


def keep(lab: LabState, recipe: Recipe, paths: LabPaths, progress: Progress) -> None:
    """Write the checkpoint of a lab that is new; the caller holds the lab's lock.

    Where that is not possible, a note says why: the lab itself is made.
    """
    store, name = Store(paths), name_of(recipe, paths.project)
    for old in filter(is_kept, store.names()):
        store.delete(old)
    try:
        made = create.write(lab, paths, store, name, progress)
    except LabError as error:
        progress.note(f"no checkpoint of it is kept: {error.message}")
        return
    for folder in prune(MOST, spared=store.folder / name):
        progress.note(
            f"removed the kept checkpoint {folder.name} of {folder.parent.name}: together {mib(MOST)} are kept"
        )
    progress.note(
        f"kept as checkpoint {name} ({mib(made.size)}): `up` starts from it when this lab is made again from nothing"
    )


def prune(most: int, *, spared: Path) -> list[Path]:
    """Remove the oldest kept checkpoints of all labs until the rest has ``most`` bytes; return the removed ones."""
    kept = [folder for folder in folders() if is_kept(folder.name)]
    total, removed = 0, []
    for folder in sorted(kept, key=lambda folder: (folder == spared, folder.stat().st_mtime), reverse=True):
        total += size_of(folder)
        if total > most and folder != spared:
            remove(folder)
            removed.append(folder)
    return removed
