"""The checkpoint that ``lab up`` keeps of a new lab, and takes where it would make exactly that lab from nothing.

A lab has at most one. Its name is a digest of all that a new lab is made from, so a lab that would become another one
(another spec, image, role or hypervisor) has none.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
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
    family: str = ""  # of labs that can be forks of each other; "" for a lab alone


def keeps(spec: LabSpec, engine: Engine) -> bool:
    """Return whether labs of a spec are kept: with their libvirt and the engine's state in the lab's folder."""
    return spec.checkpoint == "auto" and takes(spec, engine)


def takes(spec: LabSpec, engine: Engine) -> bool:
    """Return whether a lab of a spec starts from a checkpoint that is kept, of its own or of its family."""
    return spec.checkpoint != "off" and spec.libvirt == "private" and engine.state_in_lab


def name_of(recipe: Recipe, project: Path) -> str:
    """Return the name of the checkpoint of a lab that is made from this: the same for all labs of a family."""
    package = project / "hoplab"
    made_from = (
        manifest.FORMAT,
        to_json(_as_of_family(recipe)),
        recipe.image,
        type(recipe.engine).__name__,
        roles_digest(project),
        tree_digest([package / room for room in MAKERS], package),
        vars(freeze.hypervisor(recipe.plan.accel)),
    )
    return f"up-{digest(*made_from)[:12]}"


def _as_of_family(recipe: Recipe) -> LabPlan:
    """Return the plan without what a fork has otherwise than its origin."""
    if not recipe.family:
        return recipe.plan
    network = replace(recipe.plan.network, name="", bridge="")
    return replace(recipe.plan, lab=recipe.family, id="", network=network)


def origin_of(recipe: Recipe, paths: LabPaths) -> Store | None:
    """Return the checkpoints of this lab, or of another lab of its family, that has what the recipe makes."""
    own, name = Store(paths), name_of(recipe, paths.project)
    if name in own.names():
        return own
    if not recipe.family or recipe.engine.makes_clusters:  # the Pulumi CLI's state is not ours to rewrite
        return None
    for folder in sorted(folders()):
        with suppress(CheckpointError):
            if folder.name == name and manifest.read(folder).id == folder.parent.name:
                origin = LabPaths(manifest.read(folder).lab, paths.project)
                if origin.id == folder.parent.name:  # not of another checkout
                    return Store(origin)
    return None


def take(recipe: Recipe, paths: LabPaths, progress: ConsoleProgress) -> Restored | None:
    """Restore the lab that ``up`` would make, or fork it; return None where none is kept, or does not fit.

    The caller holds the lab's lock, and there is no lab. A later failure is finished by ``lab start``.
    """
    store, name = origin_of(recipe, paths), name_of(recipe, paths.project)
    if store is None:
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
