"""Which labs of a user who is not root are in namespaces of the user's own."""

from __future__ import annotations

from contextlib import suppress

from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths, rootless
from hoplab.host import rootless as host
from hoplab.lab import state
from hoplab.lab.spec_file import load_spec


def enter(paths: LabPaths | None, *, makes: bool) -> None:
    """Enter the namespaces for a command on this lab (None: on node images); as root do nothing.

    A command that ``makes`` nothing needs them only where files of the lab are: on a recording it works everywhere.
    """
    if rootless() and (paths is None or is_private(paths)) and (makes or (paths and paths.root.exists())):
        host.enter()


def is_private(paths: LabPaths) -> bool:
    """Return whether the lab has a libvirt of its own, by its state or, where there is none, by its spec."""
    with suppress(LabError):
        return bool(state.load_summary(paths).netns)
    with suppress(LabError):
        return paths.libvirt.exists() or load_spec(paths).libvirt == "private"
    return True  # `destroy` removes a lab whose spec is broken
