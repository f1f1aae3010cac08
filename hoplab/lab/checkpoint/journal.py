"""The step from the old lab to the restored one.

<project>/.lab/.<lab>.restore/
    lab/, inventory/    the new lab, complete before journal.json exists
    journal.json        from here on the new lab is the lab: a killed restore is finished by the next command
    old/                the old lab, until the new one is usable

Without journal.json the folder is what a restore left that was killed before it changed anything.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from hoplab.cluster.control_plane import HostedControlPlane
from hoplab.core import fs
from hoplab.core.paths import LabPaths
from hoplab.host.libvirtd import PrivateLibvirt
from hoplab.lab.api_forward import ApiForward


def folder(paths: LabPaths) -> Path:
    """Return the folder in which a restore prepares the new lab."""
    return paths.project / ".lab" / f".{paths.lab}.restore"


def _journal(paths: LabPaths) -> Path:
    return folder(paths) / "journal.json"


def pending(paths: LabPaths) -> bool:
    """Return whether a restore was killed after its point of no return."""
    return _journal(paths).exists()


def begin(paths: LabPaths) -> Path:
    """Return the empty folder for the new lab."""
    shutil.rmtree(folder(paths), ignore_errors=True)
    folder(paths).mkdir(parents=True, mode=0o700)
    return folder(paths)


def commit(paths: LabPaths, checkpoint: str) -> None:
    """Declare the prepared lab complete: from here on it is the lab."""
    fs.write(_journal(paths), json.dumps({"checkpoint": checkpoint}) + "\n", mode=0o600)


def place(paths: LabPaths) -> bool:
    """End the old lab's processes and put the prepared lab in its place; return whether one was prepared.

    It can be repeated after a kill at any point. The lab's machines are saved afterwards, and the next start resumes
    them.
    """
    if not pending(paths):
        shutil.rmtree(folder(paths), ignore_errors=True)
        return False
    new, old = folder(paths) / "lab", folder(paths) / "old"
    if new.exists():
        ApiForward(paths).stop()
        HostedControlPlane(paths, paths.netns).stop(at_once=True)
        PrivateLibvirt(paths).stop()  # with every process in the namespace: the machines, dnsmasq
        if paths.root.exists():
            if old.exists():
                shutil.rmtree(old)  # cannot be after a kill: a command has made a lab anew in between
            paths.root.rename(old)
        new.rename(paths.root)
    for source, target in {"inventory.yml": paths.inventory, "ssh_config": paths.ssh_config}.items():
        if (folder(paths) / "inventory" / source).exists():
            target.parent.mkdir(exist_ok=True)
            fs.write(target, (folder(paths) / "inventory" / source).read_text())
    return True


def done(paths: LabPaths) -> None:
    """Remove the old lab and the journal, once the new lab is usable."""
    _journal(paths).unlink(missing_ok=True)
    shutil.rmtree(folder(paths), ignore_errors=True)


def discard(paths: LabPaths) -> list[str]:
    """Remove everything that a killed restore left, for a lab that is destroyed; return what was removed."""
    if not folder(paths).exists():
        return []
    done(paths)
    return [f"folder {folder(paths)}"]
