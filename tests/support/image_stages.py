"""A cache of stages that cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from hoplab.image import containers, debian, disk, gobuild, initrd
from hoplab.image.store import Stage, Store
from hoplab.spec.catalog import Components


def fill(store: Store, table: Components) -> None:
    """Add every stage of a table to a cache, and both node images."""

    def empty(output: Path) -> dict[str, Any]:
        (output / "of").write_text(table.go["kubernetes"].version)  # what differs makes other images of it
        return {
            "size_gib": 20,
            "versions": {"kubernetes": table.go["kubernetes"].version},
            "stages": [stage.name for stage in stages.values()],
        }

    stages: dict[str, Stage] = {}
    for name, component in table.go.items():
        stages[f"go.{name}"] = store.make(f"go-{name}", gobuild.key(component), empty, space_gib=0)
    for name, system in table.debian.items():
        stages[f"debian.{name}"] = store.make(f"debian-{name}", debian.key(system), empty, space_gib=0)
    stages["boot"] = store.make("boot", initrd.key(stages), empty, space_gib=0)
    stages["containers"] = store.make("containers", containers.key(table.images, stages), empty, space_gib=0)
    accels: tuple[Literal["kvm", "tcg"], ...] = ("kvm", "tcg")
    for accel in accels:
        store.make("node", disk.key(accel, stages), empty, space_gib=0)
