"""Reference states: an exercise starts on a lab that is put back to a checkpoint first."""

from __future__ import annotations

from hoplab.core.console import ConsoleProgress
from hoplab.core.paths import LabPaths
from hoplab.lab.checkpoint import restore
from hoplab.lab.checkpoint.restore import Restored
from hoplab.lab.checkpoint.store import Store
from hoplab.practice import PracticeError


def return_to(paths: LabPaths, checkpoint: str, command: str, progress: ConsoleProgress, *, yes: bool) -> Restored:
    """Put the lab back to a checkpoint; ``command`` is what was typed, without its ``--yes``.

    Raise CheckpointError where there is no such checkpoint, or it can't be restored here, and PracticeError without
    ``yes`` where there is a lab; nothing is changed then.
    """
    Store(paths).find(checkpoint)
    if paths.state.exists() and not yes:
        raise PracticeError(
            f"the present state of lab {paths.lab!r}, with every exercise in it, would be lost",
            remedy=f"if that is what you want: {command} --yes",
        )
    return restore.restore(paths, checkpoint, progress, yes=yes)
