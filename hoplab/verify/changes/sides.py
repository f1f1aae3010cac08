"""Find the two sides of a comparison: recordings, or the lab as it is now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.lab.checkpoint.manifest import CheckpointError
from hoplab.lab.checkpoint.store import Store
from hoplab.observe import recording_format
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import session

NOW = "now"


class SideError(LabError):
    """What the user named cannot be compared."""

    exit_code = 2


@dataclass(frozen=True)
class Side:
    """One side of a comparison."""

    name: str  # as the user named it
    snapshot: Snapshot


def find(name: str, paths: LabPaths, say: Callable[[str], None] = lambda _text: None) -> Side:
    """Return what a name stands for: ``now``, a file with a recording, or a checkpoint of the lab.

    Raise LabError where it is none of them, where the file is not a recording, or where the lab does not answer. A
    checkpoint has memory and disks, and no facts: SideError says what to do.
    """
    if name == NOW:
        with session.opened(paths, say) as lab:
            return Side(name, lab.snapshot)
    if Path(name).exists():
        return Side(name, recording_format.load(Path(name)))
    if name in checkpoints(paths):
        raise SideError(
            f"checkpoint {name} of lab {paths.lab!r} has memory and disks, and no facts to compare",
            remedy=f"record the lab when you make one: ./lab record {name}.json; or restore it, and compare with `now`",
        )
    raise SideError(
        f"there is no file {name!r}, and lab {paths.lab!r} has no checkpoint of this name",
        remedy=f"name a recording (of ./lab record), or `{NOW}` for the running lab",
    )


def checkpoints(paths: LabPaths) -> list[str]:
    """Return the names of the lab's checkpoints."""
    try:
        return Store(paths).names()
    except (CheckpointError, OSError):
        return []
