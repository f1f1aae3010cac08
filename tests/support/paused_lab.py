"""A lab of paused machines on the system's libvirt, made by the embedded engine: no kernel runs, all else is real.

    python -m tests.support.paused_lab FOLDER URI

Runs on a host of ``libvirt_worlds`` as a user of the group libvirt, and prints what it saw as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import libvirt

from hoplab.engine import libvirt_objects
from hoplab.host import machines
from tests.support.embedded_lab import Quiet, World


def power_on_paused(domain: Any) -> None:
    machines.console_of(domain).clear()
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)


def kernel() -> bytes:
    """A file that QEMU takes for a Linux kernel (its boot protocol's header); nothing of it ever runs."""
    image = bytearray(65536)
    for offset, value in {
        0x1F1: b"\x01",  # sectors of the real-mode part
        0x1FE: b"\x55\xaa",
        0x202: b"HdrS\x0c\x02",  # protocol 2.12
        0x211: b"\x01",  # loaded high
        0x22C: b"\xff\xff\xff\x7f",  # where an initrd may be
    }.items():
        image[offset : offset + len(value)] = value
    return bytes(image)


def brief(changes: Any) -> list[str]:
    return sorted(f"{change.op} {change.type} {change.name}" for change in changes if change.op != "same")


def main() -> None:
    folder, uri = Path(sys.argv[1]), sys.argv[2]
    setattr(libvirt_objects, "power_on", power_on_paused)  # noqa: B010 -- a name that the module imports
    libvirt_objects.SHUTDOWN_DEADLINE_S = 0.0
    connection = libvirt.open(uri)
    world = World(folder, connection)
    (folder / "disk").unlink()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(folder / "disk"), "1M"], check=True)
    (folder / "kernel").write_bytes(kernel())
    seen: dict[str, Any] = {"first": brief(world.up(uri=uri, netns="", workers=1))}
    seen["second"] = brief(world.up())
    domain = connection.listAllDomains()[0]
    seen["name"], seen["xml"] = domain.name(), domain.XMLDesc()
    pool = connection.listAllStoragePools()[0]
    seen["pool"] = pool.XMLDesc()
    seen["volumes"] = sorted(volume.name() for volume in pool.listAllVolumes())
    console = machines.console_of(domain)
    seen["silent"] = console.read()
    volume = pool.storageVolLookupByName("worker1.console")
    stream, text = connection.newStream(), b"Linux version 6\nKernel panic - not syncing: x\n"
    volume.upload(stream, 0, 0)
    stream.send(text)
    stream.finish()
    seen["said"], seen["crash"] = console.read(), console.crash()
    domain.destroy()
    seen["drift"] = brief(world.up())
    fresh = machines.console_of(connection.listAllDomains()[0])
    seen["fresh"] = fresh.read()
    if "--sweep" in sys.argv:
        seen["swept"] = machines.sweep(uri, world.paths.id)
    else:
        world.engine.destroy(Quiet())
    seen["left"] = [
        thing.name()
        for find in (connection.listAllDomains, connection.listAllNetworks, connection.listAllStoragePools)
        for thing in find()
    ]
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
