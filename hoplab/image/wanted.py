"""Programs and container images that are not in every node image: built when a lab or a verb asks for them.

    ``./lab helm``                               -> go-helm
    ``lab:networkPolicy: kube-network-policies`` -> go-kube-network-policies -> the archive of its container image
    ``lab:cni.name: cilium``                     -> go-cilium, debian-cilium -> the same, and a node image with them
    ``lab:image.components: [node_tools]``       -> go-cri-tools, debian-node-tools -> a node image of these
    ``./lab conformance``                        -> image/conformance.py

They are stages of the same store. A lab's machines stay as they are when it asks for one more, unless the table names
its role in ``baked``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hoplab.core.progress import Progress
from hoplab.image import commands, containers, debian, gobuild
from hoplab.image.store import Stage, Store
from hoplab.spec.catalog import Components, ContainerImage, DebianSystem, GoComponent

PROGRAMS = ("go", "setpriv")  # of a build on the host
DEBIAN_PROGRAMS = ("mmdebstrap", "unshare", "tar")  # ... with a root file system


@dataclass(frozen=True)
class Wanted:
    """What is built together: programs, root file systems, and the archive of the container images made of them."""

    go: tuple[GoComponent, ...]
    debian: tuple[DebianSystem, ...] = ()
    images: tuple[ContainerImage, ...] = ()
    archive: str = ""  # name of the stage with the archive; "" without images

    @classmethod
    def of(cls, asker: str, table: Components) -> Wanted:
        """Return what a role or verb asks for."""
        images = table.wanted.get(asker, ())
        bases = sorted({image.base for image in images if image.base})
        programs = tuple(table.programs_of(asker).values())
        own = [name for name, system in table.debian.items() if asker and system.wanted_by == asker]
        systems = tuple(table.debian[name] for name in dict.fromkeys((*bases, *own)))
        return cls(programs, systems, images, f"containers-{asker}" if images else "")

    def find(self, store: Store) -> dict[str, Stage]:
        """Return the cached stages: "go.<component>", "debian.<system>" and, with all of them, the archive's."""
        found = {f"go.{module.name}": store.find(f"go-{module.name}", gobuild.key(module)) for module in self.go}
        for system in self.debian:
            found[f"debian.{system.name}"] = debian.find(system, store)
        stages = {name: stage for name, stage in found.items() if stage}
        if self.archive and stages.keys() == found.keys():
            archived = store.find(self.archive, containers.key(self.images, stages))
            stages |= {self.archive: archived} if archived else {}
        return stages

    def is_whole(self, stages: Mapping[str, Stage]) -> bool:
        """Return whether ``find`` has found all stages."""
        return len(stages) == len(self.go) + len(self.debian) + bool(self.archive)

    def ensure(self, store: Store, progress: Progress, mirror: str = "") -> dict[str, Stage]:
        """Return all stages, built or cached."""
        stages = self.find(store)
        if self.is_whole(stages):
            return stages
        commands.require((*PROGRAMS, *(DEBIAN_PROGRAMS if self.debian else ())))
        with store.locked(progress):
            return self.build(store, progress, mirror)

    def build(self, store: Store, progress: Progress, mirror: str) -> dict[str, Stage]:
        """Return all stages, built or cached; the caller holds the store's lock."""
        stages = {f"go.{module.name}": gobuild.build(module, store, progress) for module in self.go}
        for system in self.debian:
            stages[f"debian.{system.name}"] = debian.build(system, store, progress, mirror)
        if self.archive:
            stages[self.archive] = containers.build(self.images, stages, store, progress, self.archive)
        return stages


def programs(verb: str, table: Components, store: Store, progress: Progress) -> Path:
    """Return the folder with the programs of the one Go component of this verb, built or cached."""
    (stage,) = Wanted.of(verb, table).ensure(store, progress).values()
    return stage.directory


def archive(role: str, table: Components, store: Store, progress: Progress, mirror: str) -> Path:
    """Return the archive with the container images that only this role needs, built or cached."""
    wanted = Wanted.of(role, table)
    return wanted.ensure(store, progress, mirror)[wanted.archive].directory / containers.ARCHIVE


def cached(table: Components, store: Store) -> Iterator[Stage]:
    """Yield the stages that are there and would be used by the next one who asks."""
    for asker in {component.wanted_by for component in table.go.values() if component.wanted_by}:
        yield from Wanted.of(asker, table).find(store).values()
