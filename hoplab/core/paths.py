"""Where files are. Caches stay when a lab is destroyed; everything else of a lab is below three folders.

<project>/.lab/<lab>/        a lab's own files: state, keys (0600), kubeconfig, console logs, disks, ansible's logs
<project>/inventory/<lab>.*  generated: inventory and ssh_config
/run/hoplab/<lab id>/        sockets and pid files (lost in a reboot of the host, made again by `lab start`)
~/.cache/hoplab/run/<lab id>/  ... of a user who is not root
~/.cache/hoplab/             node images and everything they are built from
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

INSIDE = "HOPLAB_ROOTLESS"  # in the environment of what runs in the namespaces of a user who is not root
PROJECT = Path(__file__).resolve().parents[2]
LESSONS = PROJECT / "tests" / "lessons"
if not LESSONS.is_dir():  # installed from a wheel
    LESSONS = Path(sysconfig.get_path("data")) / "share" / "hoplab" / "lessons"


def cache_dir() -> Path:
    """Return the cache folder: $XDG_CACHE_HOME/hoplab, by default ~/.cache/hoplab."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hoplab"


def rootless() -> bool:
    """Return whether labs are in namespaces of the user's own: not root, or in them, as root of these (hoplab.host)."""
    return os.geteuid() != 0 or INSIDE in os.environ


def user_run() -> Path:
    """Return the folder for sockets and pid files of a user who is not root.

    It does not follow $XDG_CACHE_HOME, as every command of the user has to find the same namespaces.
    """
    return Path.home() / ".cache" / "hoplab" / "run"


def lab_id(lab: str, project: Path = PROJECT) -> str:
    """Return a name of the lab that is unique on this host: the same lab in two clones has two ids.

    >>> lab_id("dev", Path("/a")) != lab_id("dev", Path("/b"))
    True
    """
    return f"{lab}-{hashlib.sha256(os.fsencode(project)).hexdigest()[:6]}"


@dataclass(frozen=True)
class LabPaths:
    """The files of one lab."""

    lab: str
    project: Path = PROJECT

    @property
    def id(self) -> str:
        return lab_id(self.lab, self.project)

    @property
    def spec(self) -> Path:
        return self.project / f"Pulumi.{self.lab}.yaml"

    @property
    def root(self) -> Path:
        return self.project / ".lab" / self.lab

    @property
    def run(self) -> Path:
        """Sockets and pid files: short, because a socket's path has at most 107 bytes."""
        return (user_run() if rootless() else Path("/run/hoplab")) / self.id

    @property
    def engine_state(self) -> Path:
        """The embedded engine's state; the previous version is beside it with the suffix .previous."""
        return self.root / "engine.json"

    @property
    def state(self) -> Path:
        """LabState: what was built."""
        return self.root / "state.json"

    @property
    def lock(self) -> Path:
        return self.project / ".lab" / f"{self.lab}.lock"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def ca(self) -> Path:
        """The certificate that clients of the lab's https sites have to trust."""
        return self.root / "ca.crt"

    @property
    def pool(self) -> Path:
        """Disks of the machines (a libvirt dir pool)."""
        return self.root / "pool"

    @property
    def console(self) -> Path:
        """Console logs, one per machine: <console>/<node>.log"""
        return self.root / "console"

    @property
    def control_plane(self) -> Path:
        """A hosted control plane's files: pki, kubeconfigs, manifests, etcd data, logs."""
        return self.root / "control-plane"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def discovery(self) -> Path:
        """What kubectl and helm keep of the API's kinds. In the user's own cache it would be that of all such labs."""
        return self.root / "discovery"

    @property
    def runner(self) -> Path:
        """ansible-runner's private data: artifacts and logs."""
        return self.root / "ansible"

    @property
    def libvirt(self) -> Path:
        """The private libvirtd's configuration, state and logs."""
        return self.root / "libvirt"

    @property
    def inventory(self) -> Path:
        return self.project / "inventory" / f"{self.lab}.yml"

    @property
    def ssh_config(self) -> Path:
        return self.project / "inventory" / f"{self.lab}.ssh_config"

    @property
    def ssh_include(self) -> Path:
        """The same machines for ~/.ssh/config, by names that no other host has: see hoplab.lab.host_access."""
        return self.project / "inventory" / f"{self.lab}.ssh_include"

    @property
    def netns(self) -> str:
        """Network namespace of a private libvirt."""
        return f"hoplab-{self.id}"
