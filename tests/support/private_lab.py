"""A lab of one machine without a system, in a real private libvirt."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hoplab import image as images
from hoplab.cluster import readiness
from hoplab.core.paths import LabPaths
from hoplab.engine import schema
from hoplab.engine.libvirt_objects import DRIVERS
from hoplab.host import libvirtd, machines
from hoplab.host.libvirtd import PrivateLibvirt
from hoplab.image import NodeImage
from hoplab.lab import clocks, state
from hoplab.lab.checkpoint import create, usable
from hoplab.lab.state import NodeState
from tests.support.checkpoint_lab import DIGEST, Nodes
from tests.support.embedded_lab import Quiet
from tests.support.labs import MADE

missing = [tool for tool in (*libvirtd.TOOLS, "qemu-img") if shutil.which(tool, path=libvirtd.SEARCH) is None]
PRIVATE = pytest.mark.skipif(
    os.geteuid() != 0 or bool(missing), reason=f"needs root and {', '.join(missing) or 'nothing else'}"
)

Replaced = tuple[Any, str]  # a module, and a function of it that returns nothing of interest
PLAYED: tuple[Replaced, ...] = (
    (clocks, "mend"),
    (clocks, "renew"),
    (readiness, "wait_usable_nodes"),
    (usable, "prove"),
)


@contextmanager
def played(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: Replaced) -> Iterator[World]:
    """A world that is made, where what needs a system in the machine is played; its libvirtd ends with the body."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    world = World(folder)
    monkeypatch.setattr(create, "Hosts", Nodes)
    monkeypatch.setattr(images, "list_images", lambda: [world.image])
    nothing: list[object] = []
    for module, name in (*PLAYED, *more):
        monkeypatch.setattr(module, name, lambda *_, **__: nothing)
    world.make()
    yield world
    PrivateLibvirt(world.paths).stop()


class World:
    """The lab "cpreal" of one machine, and what an engine would have recorded of it."""

    def __init__(self, folder: Path) -> None:
        self.paths = LabPaths("cpreal", folder / "project")
        self.image = self._image(folder / "image")
        self.domain = machines.domain_name(self.paths.id, "worker1")
        self.recorded: list[tuple[str, str, dict[str, Any]]] = []  # type, id, inputs

    @staticmethod
    def _image(folder: Path) -> NodeImage:
        folder.mkdir()
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", folder / "disk", "8M"], check=True)
        for part in ("kernel", "initrd"):
            (folder / part).write_bytes(bytes(4096))
        return NodeImage(DIGEST, folder, folder / "disk", folder / "kernel", folder / "initrd", folder / "bin", 1, {})

    def make(self) -> None:
        """Make everything with the embedded engine's drivers."""
        name = f"hoplab-{self.paths.id}"
        uri = PrivateLibvirt(self.paths).start()
        console = self.paths.console / "worker1.log"
        console.parent.mkdir(parents=True)
        console.touch()
        pool = {"name": name, "type": "dir", "target": {"path": str(self.paths.pool)}}
        network = {
            "name": name,
            "mode": "nat",
            "bridge": "hlcp0",
            "addresses": ["192.168.77.0/24"],
            "domain": "cpreal.hoplab",
            "autostart": True,
            "dns": {"enabled": True, "localOnly": True, "hosts": [{"hostname": "worker1", "ip": "192.168.77.20"}]},
        }
        with machines.connected(uri) as connection:

            def made(type: str, inputs: dict[str, Any]) -> str:
                id = str(DRIVERS[type](connection, uri).create(inputs, Quiet()).id)
                self.recorded.append((type, id, inputs))
                return id

            made(schema.POOL, pool)
            network_id = made(schema.NETWORK, network)
            base = {"name": "disk-09a70d5604b9", "pool": name, "source": str(self.image.disk), "format": "qcow2"}
            overlay = {
                "name": "worker1.qcow2",
                "pool": name,
                "baseVolumeId": made(schema.VOLUME, base),
                "size": 16 * 2**20,
                "format": "qcow2",
            }
            made(
                schema.DOMAIN,
                {
                    "name": self.domain,
                    "type": "qemu",
                    "machine": "q35",
                    "vcpu": 1,
                    "memory": 32,
                    "disks": [{"volumeId": made(schema.VOLUME, overlay)}],
                    "networkInterfaces": [{"networkId": network_id, "mac": "52:54:00:00:00:01"}],
                    "consoles": [{"sourcePath": str(console), "targetType": "serial", "targetPort": "0"}],
                    "graphics": {"type": "vnc", "listenType": "none", "autoport": True},
                    "video": {"type": "none"},
                },
            )
        node = NodeState("worker1", "worker", "192.168.77.20", "52:54:00:00:00:01")
        lab = replace(MADE, lab="cpreal", id=self.paths.id, libvirt_uri=uri, netns=self.paths.netns, image=DIGEST)
        state.save(replace(lab, network=name, placement="vm", nodes=(node,)), self.paths)
        self.paths.inventory.parent.mkdir(exist_ok=True)
        for file in (self.paths.inventory, self.paths.ssh_config):
            file.write_text("")

    def drift(self) -> dict[str, str]:
        """What an `up` would find different: type -> why."""
        uri = PrivateLibvirt(self.paths).uri
        with machines.connected(uri) as connection:
            looks = {(type, id): DRIVERS[type](connection, uri).drift(id, inputs) for type, id, inputs in self.recorded}
        return {type: why for (type, _id), why in looks.items() if why}
