"""Programs and container images that are in no node image: built when a lab or a verb asks for them.

    ``./lab helm``                              -> go-helm
    ``lab:networkPolicy: kube-network-policies`` -> go-kube-network-policies -> the archive of its container image

They are stages of the same store. A lab's machines stay as they are when it asks for one more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hoplab.core.progress import Progress
from hoplab.image import commands, containers, debian, gobuild
from hoplab.image.store import Stage, Store
from hoplab.spec.catalog import Components

PROGRAMS = ("go", "setpriv")  # of a build on the host


def programs(wanted_by: str, table: Components, store: Store, progress: Progress) -> Path:
    """Return the folder with the programs of the one Go component of this role or verb, built or cached."""
    ((name, component),) = table.programs_of(wanted_by).items()
    if found := store.find(f"go-{name}", gobuild.key(component)):
        return found.directory
    commands.require(PROGRAMS)
    with store.locked(progress):
        return gobuild.build(component, store, progress).directory


def archive(role: str, table: Components, store: Store, progress: Progress, mirror: str) -> Path:
    """Return the archive with the container images that only this role needs, built or cached."""
    stages = _found(role, table, store)
    if (archived := _archive(role, table, store, stages)) is None:
        commands.require(PROGRAMS)
        with store.locked(progress):
            for name, component in table.programs_of(role).items():
                stages[f"go.{name}"] = gobuild.build(component, store, progress)
            for base in _bases(role, table):
                stages[f"debian.{base}"] = debian.build(table.debian[base], store, progress, mirror)
            archived = containers.build(table.wanted[role], stages, store, progress, _stage(role))
    return archived.directory / containers.ARCHIVE


def cached(table: Components, store: Store) -> Iterator[Stage]:
    """Yield the stages that are there and would be used by the next one who asks."""
    for wanted_by in {component.wanted_by for component in table.go.values() if component.wanted_by}:
        stages = _found(wanted_by, table, store)
        yield from stages.values()
        if wanted_by in table.wanted and (archived := _archive(wanted_by, table, store, stages)):
            yield archived


def _found(role: str, table: Components, store: Store) -> dict[str, Stage]:
    found = {
        f"go.{name}": store.find(f"go-{name}", gobuild.key(module)) for name, module in table.programs_of(role).items()
    }
    for base in _bases(role, table):
        found[f"debian.{base}"] = store.find(f"debian-{base}", debian.key(table.debian[base]))
    return {name: stage for name, stage in found.items() if stage}


def _archive(role: str, table: Components, store: Store, stages: dict[str, Stage]) -> Stage | None:
    if len(stages) < len(table.programs_of(role)) + len(_bases(role, table)):
        return None
    return store.find(_stage(role), containers.key(table.wanted[role], stages))


def _bases(role: str, table: Components) -> set[str]:
    return {image.base for image in table.wanted.get(role, ()) if image.base}


def _stage(role: str) -> str:
    return f"containers-{role}"
