"""A lab for the embedded engine on libvirt's own test driver: no uploads, no disks, only domains of type "test"."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import libvirt

from hoplab.core.paths import LabPaths
from hoplab.engine import Change, Changes
from hoplab.engine.embedded import EmbeddedEngine

URI = "test:///default"
PROGRAM = """
import json
from pathlib import Path
import pulumi
from hoplab.image import NodeImage
from hoplab.infra.context import LabContext
from hoplab.infra.components import Lab, LabArgs
from hoplab.pki.keys import ensure_keys
from hoplab.core.paths import LabPaths
from hoplab.lab.spec_file import plan_lab
from hoplab.spec.model import LabSpec, NodeSize

here = Path(__file__).parent
asked = json.loads((here / "asked.json").read_text())
paths = LabPaths(pulumi.get_stack(), here)
spec = LabSpec(paths.lab, workers=asked["workers"], worker_size=NodeSize(1, asked["memory"], 2))
plan = plan_lab(spec, lab_id=paths.id, accel="tcg")
image = NodeImage(asked["image"], here, here / "disk", here / "kernel", here / "initrd", here, 2, {})
keys = ensure_keys(paths, [node.name for node in plan.nodes])
lab = Lab(paths.lab, LabArgs.of(LabContext(plan, image, asked["uri"], asked["netns"], keys, "root=/dev/vda rw"), paths))
pulumi.export("nodes", lab.nodes)
if asked["more"]:
    exec(asked["more"])
"""

FIRST = {
    Change("create", "Pool", "store"),
    Change("create", "Network", "network"),
    Change("create", "Volume", "image-disk"),
    Change("create", "Volume", "image-kernel"),
    Change("create", "Volume", "image-initrd"),
    *(
        change
        for node in ("worker1", "worker2")
        for change in (
            Change("create", "CloudInitDisk", f"{node}-seed"),
            Change("create", "Volume", f"{node}-disk"),
            Change("create", "Domain", node),
        )
    ),
}


class Quiet:
    """Progress nobody looks at."""

    def phase(self, title: str) -> AbstractContextManager[None]:
        return nullcontext()

    def task(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...


class World:
    """A lab's project folder, the libvirt below it, and what to ask of the engine."""

    def __init__(self, folder: Path, connection: libvirt.virConnect) -> None:
        self.connection = connection
        self.paths = LabPaths("dev", folder)
        self.asked: dict[str, Any] = {
            "workers": 2,
            "memory": 300,
            "image": "a" * 64,
            "uri": URI,
            "more": "",
            "netns": "lab-ns",
        }
        self.engine = EmbeddedEngine(self.paths)
        (folder / "__main__.py").write_text(PROGRAM)
        for name in ("disk", "kernel", "initrd"):
            (folder / name).write_text(name)
        self.paths.pool.mkdir(parents=True)

    def ask(self, **changed: Any) -> None:
        self.asked.update(changed)
        (self.paths.project / "asked.json").write_text(json.dumps(self.asked))

    def up(self, **changed: Any) -> Changes:
        self.ask(**changed)
        return self.engine.up(Quiet()).changes

    def preview(self, **changed: Any) -> Changes:
        self.ask(**changed)
        return self.engine.preview(Quiet())

    def domain(self, node: str) -> libvirt.virDomain:
        return self.connection.lookupByName(f"hoplab-{self.paths.id}-{node}")

    def there(self) -> dict[str, list[str]]:
        """Names of all objects of the lab that libvirt has."""
        own = f"hoplab-{self.paths.id}"
        pools = [pool for pool in self.connection.listAllStoragePools() if pool.name() == own]
        return {
            "domains": sorted(
                domain.name().removeprefix(f"{own}-")
                for domain in self.connection.listAllDomains()
                if domain.name().startswith(own)
            ),
            "networks": [network.name() for network in self.connection.listAllNetworks() if network.name() == own],
            "volumes": sorted(volume.name() for pool in pools for volume in pool.listAllVolumes()),
            "pools": [pool.name() for pool in pools],
        }


def brief(changes: Sequence[Change]) -> dict[str, str]:
    """What is not the same: name -> operation."""
    return {change.name: change.op for change in changes if change.op != "same"}
