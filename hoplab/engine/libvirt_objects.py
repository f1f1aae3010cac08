"""Creates, checks, changes and removes libvirt objects through libvirt-python: one small driver per resource type."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol
from uuid import uuid4

import libvirt

from hoplab.core.errors import EngineError
from hoplab.core.packages import install_remedy
from hoplab.core.progress import Progress
from hoplab.engine import libvirt_xml as xml
from hoplab.engine import schema
from hoplab.host.machines import power_on, remove_pool, shutdown_domain

Inputs = Mapping[str, Any]
MARGIN = 64 * 1024**2  # bytes left free on the disk by an upload
SHUTDOWN_DEADLINE_S = 60.0  # for a machine to restart with other hardware

NOT_FOUND = {
    libvirt.VIR_ERR_NO_DOMAIN,
    libvirt.VIR_ERR_NO_NETWORK,
    libvirt.VIR_ERR_NO_STORAGE_POOL,
    libvirt.VIR_ERR_NO_STORAGE_VOL,
}


@dataclass(frozen=True)
class Made:
    """A new object: its id, and the properties set by libvirt."""

    id: str
    outputs: dict[str, Any]


class Driver(Protocol):
    """The operations on one type of object. ``id`` is the provider's id."""

    def must_replace(self, old: Inputs, new: Inputs, changed: set[str]) -> bool:
        """Return whether a change of these properties needs a new object."""
        ...

    def find(self, inputs: Inputs) -> str:
        """Return the id of the object with this name, "" when there is none."""
        ...

    def drift(self, id: str, inputs: Inputs) -> str:
        """Return the drift of an object: "" (none), "gone", or a word for the difference that ``update`` corrects."""
        ...

    def create(self, inputs: Inputs, progress: Progress) -> Made: ...

    def update(self, id: str, inputs: Inputs, progress: Progress) -> dict[str, Any]:
        """Change the object to match its properties, with the same id; return its outputs."""
        ...

    def delete(self, id: str, inputs: Inputs) -> None:
        """Remove the object; do nothing when it does not exist."""
        ...


class _Fixed:
    """A type of object that is replaced, never changed."""

    def must_replace(self, old: Inputs, new: Inputs, changed: set[str]) -> bool:
        return True

    def update(self, id: str, inputs: Inputs, progress: Progress) -> dict[str, Any]:
        raise AssertionError("never changed in place")


class Pools:
    """Directory pools. A pool is deleted with all files in its directory."""

    def __init__(self, connection: libvirt.virConnect, uri: str) -> None:
        self.connection = connection

    def must_replace(self, old: Inputs, new: Inputs, changed: set[str]) -> bool:
        return True

    def find(self, inputs: Inputs) -> str:
        pool = _lookup(self.connection.storagePoolLookupByName, inputs["name"])
        return str(pool.UUIDString()) if pool else ""

    def drift(self, id: str, inputs: Inputs) -> str:
        pool = _lookup(self.connection.storagePoolLookupByUUIDString, id)
        if pool is None:
            return "gone"
        if not pool.isActive():
            return "stopped"
        try:
            pool.refresh()  # detect volumes removed without libvirt
        except libvirt.libvirtError:  # its folder is gone, and now it is off
            return "stopped"
        return ""

    def create(self, inputs: Inputs, progress: Progress) -> Made:
        pool = self.connection.storagePoolDefineXML(xml.pool(inputs))
        pool.build()
        pool.setAutostart(True)
        pool.create()
        pool.refresh()
        return Made(pool.UUIDString(), {})

    def update(self, id: str, inputs: Inputs, progress: Progress) -> dict[str, Any]:
        pool = self.connection.storagePoolLookupByUUIDString(id)
        pool.build()  # its folder, where that is gone
        if not pool.isActive():
            pool.create()
        return {}

    def delete(self, id: str, inputs: Inputs) -> None:
        pool = _lookup(self.connection.storagePoolLookupByUUIDString, id)
        if pool is not None:
            remove_pool(pool)


class Volumes(_Fixed):
    """Volumes: uploaded from a file, or copy-on-write on top of another."""

    def __init__(self, connection: libvirt.virConnect, uri: str) -> None:
        self.connection = connection

    def find(self, inputs: Inputs) -> str:
        pool = _lookup(self.connection.storagePoolLookupByName, inputs["pool"])
        volume = _lookup(pool.storageVolLookupByName, inputs["name"]) if pool else None
        return str(volume.key()) if volume else ""

    def drift(self, id: str, inputs: Inputs) -> str:
        return "" if _lookup(self.connection.storageVolLookupByKey, id) else "gone"

    def create(self, inputs: Inputs, progress: Progress) -> Made:
        pool = self.connection.storagePoolLookupByName(inputs["pool"])
        if "source" in inputs:
            volume = self._upload(pool, inputs["name"], Path(inputs["source"]), inputs["format"], progress)
        else:
            volume = self._overlay(pool, inputs)
        return Made(volume.key(), {"size": volume.info()[1]})

    def _overlay(self, pool: libvirt.virStoragePool, inputs: Inputs) -> libvirt.virStorageVol:
        base = self.connection.storageVolLookupByKey(inputs["baseVolumeId"])
        description = base.XMLDesc()
        size, smallest = inputs["size"], xml.volume_capacity(description)
        if size < smallest:
            raise EngineError(
                f"volume {inputs['name']} would have {size} bytes, less than the {smallest} of the image below it",
                remedy="set a larger disk size",
            )
        backing = xml.Backing(base.path(), xml.volume_format(description))
        return pool.createXML(xml.volume(inputs["name"], capacity=size, format=inputs["format"], backing=backing))

    def delete(self, id: str, inputs: Inputs) -> None:
        volume = _lookup(self.connection.storageVolLookupByKey, id)
        if volume is not None:
            volume.delete()

    def _upload(
        self, pool: libvirt.virStoragePool, name: str, source: Path, format: str, progress: Progress
    ) -> libvirt.virStorageVol:
        """Create a volume with the content of a file; remove it again when the upload fails."""
        size = source.stat().st_size
        pool.refresh()  # libvirt caches the free space
        free = pool.info()[3]
        if free < size + MARGIN:
            raise _disk_full(name, size, free)
        volume = pool.createXML(xml.volume(name, capacity=size, format=format))
        stream = self.connection.newStream()
        sent = 0

        def read(_stream: libvirt.virStream, amount: int, descriptor: int) -> bytes:
            nonlocal sent
            chunk = os.read(descriptor, amount)
            before, sent = sent, sent + len(chunk)
            if size > MARGIN and before * 20 // size != sent * 20 // size:
                progress.task(f"uploading {name}: {100 * sent // size} %")
            return chunk

        try:
            with source.open("rb") as file:
                volume.upload(stream, 0, size)
                stream.sendAll(read, file.fileno())
                stream.finish()
            pool.refresh()
        except BaseException as error:
            with suppress(libvirt.libvirtError):
                stream.abort()
            with suppress(libvirt.libvirtError):
                volume.delete()
            if isinstance(error, libvirt.libvirtError) and "No space left" in str(error):
                raise _disk_full(name, size, pool.info()[3]) from error
            raise
        return pool.storageVolLookupByName(name)


class Seeds(Volumes):
    """Seeds of cloud-init: an ISO image with three files. Like the provider's, the id is "<volume id>;<random>"."""

    def find(self, inputs: Inputs) -> str:
        key = super().find(inputs)
        return f"{key};" if key else ""

    def drift(self, id: str, inputs: Inputs) -> str:
        return super().drift(id.partition(";")[0], inputs)

    def create(self, inputs: Inputs, progress: Progress) -> Made:
        pool = self.connection.storagePoolLookupByName(inputs["pool"])
        with tempfile.TemporaryDirectory(prefix="hoplab-seed-") as folder:
            image = make_iso(Path(folder), inputs)
            volume = self._upload(pool, inputs["name"], image, "raw", progress)
        return Made(f"{volume.key()};{uuid4()}", {})

    def delete(self, id: str, inputs: Inputs) -> None:
        super().delete(id.partition(";")[0], inputs)


class Networks:
    """NAT networks; DNS entries change in a running network."""

    def __init__(self, connection: libvirt.virConnect, uri: str) -> None:
        self.connection = connection

    def must_replace(self, old: Inputs, new: Inputs, changed: set[str]) -> bool:
        def without_hosts(inputs: Inputs) -> dict[str, Any]:
            return {key: value for key, value in inputs.get("dns", {}).items() if key != "hosts"}

        return bool(changed - {"dns", "autostart"}) or without_hosts(old) != without_hosts(new)

    def find(self, inputs: Inputs) -> str:
        network = _lookup(self.connection.networkLookupByName, inputs["name"])
        return str(network.UUIDString()) if network else ""

    def drift(self, id: str, inputs: Inputs) -> str:
        network = _lookup(self.connection.networkLookupByUUIDString, id)
        if network is None:
            return "gone"
        return "" if network.isActive() else "stopped"

    def create(self, inputs: Inputs, progress: Progress) -> Made:
        network = self.connection.networkDefineXML(xml.network(inputs))
        try:
            network.create()
        except libvirt.libvirtError:
            network.undefine()
            raise
        network.setAutostart(bool(inputs.get("autostart")))
        return Made(network.UUIDString(), {})

    def update(self, id: str, inputs: Inputs, progress: Progress) -> dict[str, Any]:
        network = self.connection.networkLookupByUUIDString(id)
        if not network.isActive():
            network.create()
        network.setAutostart(bool(inputs.get("autostart")))
        there, wanted = xml.network_hosts(network.XMLDesc()), xml.dns_hosts(inputs)
        for address in [address for address in there if there[address] != wanted.get(address)]:
            self._update_dns(network, libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, xml.dns_host(address))
        for address in [address for address in wanted if there.get(address) != wanted[address]]:
            self._update_dns(
                network, libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, xml.dns_host(address, wanted[address])
            )
        return {}

    @staticmethod
    def _update_dns(network: libvirt.virNetwork, command: int, entry: str) -> None:
        flags = libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE | libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
        network.update(command, libvirt.VIR_NETWORK_SECTION_DNS_HOST, -1, entry, flags)

    def delete(self, id: str, inputs: Inputs) -> None:
        network = _lookup(self.connection.networkLookupByUUIDString, id)
        if network is None:
            return
        if network.isActive():
            network.destroy()
        network.undefine()


class Domains:
    """Domains, defined and running."""

    REPLACE: ClassVar = {"name", "type", "disks"}

    def __init__(self, connection: libvirt.virConnect, uri: str) -> None:
        self.connection = connection
        self.uri = uri

    def must_replace(self, old: Inputs, new: Inputs, changed: set[str]) -> bool:
        return bool(changed & self.REPLACE)

    def find(self, inputs: Inputs) -> str:
        domain = _lookup(self.connection.lookupByName, inputs["name"])
        return str(domain.UUIDString()) if domain else ""

    def drift(self, id: str, inputs: Inputs) -> str:
        domain = _lookup(self.connection.lookupByUUIDString, id)
        if domain is None:
            return "gone"
        return "" if domain.isActive() else "shut off"

    def create(self, inputs: Inputs, progress: Progress) -> Made:
        domain = self.connection.defineXML(self._document(inputs))
        try:
            domain.setAutostart(bool(inputs.get("autostart")))
            power_on(domain)
        except (libvirt.libvirtError, EngineError):
            _undefine(domain)
            raise
        return Made(domain.UUIDString(), {})

    def update(self, id: str, inputs: Inputs, progress: Progress) -> dict[str, Any]:
        domain = self.connection.lookupByUUIDString(id)
        document = self._document(inputs, uuid=id)
        if domain.isActive():
            progress.task(f"restarting {inputs['name']}")
            shutdown_domain(self.uri, inputs["name"], deadline_s=SHUTDOWN_DEADLINE_S)
        domain = self.connection.defineXML(document)
        domain.setAutostart(bool(inputs.get("autostart")))
        power_on(domain)
        return {}

    def delete(self, id: str, inputs: Inputs) -> None:
        domain = _lookup(self.connection.lookupByUUIDString, id)
        if domain is not None:
            _undefine(domain)

    def _document(self, inputs: Inputs, uuid: str = "") -> str:
        disks = []
        for disk in inputs.get("disks", []):
            volume = self.connection.storageVolLookupByKey(disk["volumeId"])
            pool = volume.storagePoolLookupByVolume().name()
            path = volume.path() if self._confined() else ""
            disks.append(xml.DiskVolume(pool, volume.name(), xml.volume_format(volume.XMLDesc()), path))
        networks = [
            self.connection.networkLookupByUUIDString(interface["networkId"]).name()
            for interface in inputs.get("networkInterfaces", [])
        ]
        return xml.domain(inputs, arch=self.connection.getInfo()[0], disks=disks, networks=networks, uuid=uuid)

    def _confined(self) -> bool:
        """Return whether AppArmor confines QEMU, by a profile of the files that a machine's XML names."""
        return "<model>apparmor</model>" in self.connection.getCapabilities()


DRIVERS: Mapping[str, Any] = {
    schema.POOL: Pools,
    schema.VOLUME: Volumes,
    schema.SEED: Seeds,
    schema.NETWORK: Networks,
    schema.DOMAIN: Domains,
}


def make_iso(folder: Path, inputs: Inputs) -> Path:
    """Make an ISO image with the label of cloud-init's NoCloud data source."""
    files = {"user-data": "userData", "meta-data": "metaData", "network-config": "networkConfig"}
    for file, property in files.items():
        (folder / file).write_text(inputs.get(property, ""))
    image = folder / "seed.iso"
    command = ["mkisofs", "-quiet", "-output", str(image), "-volid", "cidata", "-joliet", "-rock"]
    try:
        done = subprocess.run(
            [*command, *(str(folder / file) for file in files)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise EngineError("there is no `mkisofs` on PATH", remedy=install_remedy(["mkisofs"])) from None
    if done.returncode != 0:
        raise EngineError(f"mkisofs could not make a seed: {done.stderr.strip()}", remedy="look at its message")
    return image


def _disk_full(name: str, needed: int, free: int) -> EngineError:
    mebibytes = f"{needed / 2**20:.0f} MiB needed and {MARGIN // 2**20} MiB to spare, {free / 2**20:.0f} MiB free"
    return EngineError(
        f"not enough disk space for volume {name}: {mebibytes}", remedy="free some space, then run it again"
    )


def _undefine(domain: libvirt.virDomain) -> None:
    if domain.isActive():
        with suppress(libvirt.libvirtError):  # it may end by itself in the meantime
            domain.destroy()
    saved = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    domain.undefineFlags(saved)


def _lookup(find: Any, key: str) -> Any:
    """Return the result of ``find``; None where libvirt has no such object."""
    try:
        return find(key)
    except libvirt.libvirtError as error:
        if error.get_error_code() in NOT_FOUND:
            return None
        raise
