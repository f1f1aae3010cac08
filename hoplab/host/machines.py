"""Virtual machines by name: their states, starting and stopping them, removing what a lab left in libvirt."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import libvirt

from hoplab.core.errors import EngineError, HostError
from hoplab.core.wait import HOST, Expired, NotYet, Timing
from hoplab.host.console import Console, VolumeConsole

STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: "no state",
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "blocked",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "shutting down",
    libvirt.VIR_DOMAIN_SHUTOFF: "shut off",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "suspended",
}
MAKE_MISSING = "./lab up makes what is missing"
ASK_AGAIN_S = 1.0


def domain_name(lab_id: str, node: str) -> str:
    """Return libvirt's name of a machine: unique on a host that runs several labs."""
    return f"hoplab-{lab_id}-{node}"


@contextmanager
def connected(uri: str) -> Iterator[libvirt.virConnect]:
    """Open a connection to libvirt that does not print every error."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    connection = libvirt.open(uri)
    try:
        yield connection
    finally:
        connection.close()


def domain_states(uri: str) -> dict[str, str]:
    """Return every domain and its state: {"hoplab-dev-1a2b3c-worker1": "running", ...: "shut off"}."""
    with connected(uri) as connection:
        return {domain.name(): STATES[domain.state()[0]] for domain in connection.listAllDomains()}


def domain_state(uri: str, name: str) -> str:
    """Return the state of a machine, "absent" where there is none of this name; "" where libvirt does not answer."""
    try:
        return domain_states(uri).get(name, "absent")
    except libvirt.libvirtError:
        return ""


def has_domain(uri: str, id: str) -> bool:
    """Return whether the machine with this UUID is there (another one may have its name)."""
    with connected(uri) as connection:
        return id in {domain.UUIDString() for domain in connection.listAllDomains()}


@dataclass(frozen=True)
class Capabilities:
    """What a libvirt says of itself."""

    version: int  # 9.0.0 is 9000000
    kvm: bool  # whether it offers machines with KVM
    confined_by: tuple[str, ...]  # ("apparmor", "dac")

    @property
    def number(self) -> str:
        return f"{self.version // 1_000_000}.{self.version // 1000 % 1000}.{self.version % 1000}"


def capabilities(uri: str) -> Capabilities:
    """Return what a libvirt says of itself; raise HostError where it does not answer."""
    try:
        with connected(uri) as connection:
            version, text = connection.getLibVersion(), connection.getCapabilities()
    except libvirt.libvirtError as error:
        raise HostError(f"libvirt does not answer at {uri}: {error}", remedy="`./lab doctor` checks it") from error
    found = ET.fromstring(text)
    models = tuple(model.text or "" for model in found.findall("host/secmodel/model"))
    return Capabilities(version, found.find("guest/arch/domain[@type='kvm']") is not None, models)


def network_bridges(uri: str) -> dict[str, str]:
    """Return the networks of a libvirt, also those that do not run, by their bridges; none where it does not answer."""
    with suppress(libvirt.libvirtError), connected(uri) as connection:
        found = {}
        for network in connection.listAllNetworks():
            with suppress(libvirt.libvirtError):  # it has no bridge of its own
                found[str(network.bridgeName())] = str(network.name())
        return found
    return {}


def start_domain(uri: str, name: str) -> bool:
    """Start a machine with an empty console log; return False when it runs already."""
    with connected(uri) as connection:
        domain = lookup(connection, name)
        if domain.isActive():
            return False
        power_on(domain)
        return True


def shutdown_domain(uri: str, name: str, *, deadline_s: float = 60.0, timing: Timing = HOST) -> str:
    """Shut a machine down, or power it off after the deadline; return why it had to be powered off ("": it had not)."""
    with connected(uri) as connection:
        domain = lookup(connection, name)

        def is_off() -> bool | NotYet:
            if not domain.isActive():
                return True
            with suppress(libvirt.libvirtError):  # it may have ended since
                domain.shutdown()  # again and again: a guest that still boots ignores the first
            return NotYet("it runs")

        try:
            timing.until(is_off, deadline_s, poll_s=ASK_AGAIN_S)
        except Expired as expired:
            power_off(domain)
            return f"not down after {expired.seconds:.0f} s"
        return ""


def start_network(uri: str, name: str) -> None:
    """Start a network; one that is there is left alone."""
    with connected(uri) as connection:
        try:
            network = connection.networkLookupByName(name)
            if not network.isActive():
                network.create()
        except libvirt.libvirtError as error:
            raise EngineError(f"network {name} could not be started: {error}", remedy=MAKE_MISSING) from error


def sweep(uri: str, lab_id: str) -> list[str]:
    """Remove what carries a lab's name, whatever made it: machines, network, pool. Return what was removed."""
    removed = []
    own = re.compile(re.escape(domain_name(lab_id, "")) + r"(cp|worker)\d+")  # not those of a lab "<this one>-2"
    with connected(uri) as connection:
        for domain in connection.listAllDomains():
            if own.fullmatch(domain.name()):
                power_off(domain)
                domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
                removed.append(f"machine {domain.name()}")
        for kind, found in {"network": connection.listAllNetworks(), "pool": connection.listAllStoragePools()}.items():
            for thing in found:
                if thing.name() == f"hoplab-{lab_id}":
                    if kind == "pool":
                        remove_pool(thing)
                    else:
                        if thing.isActive():
                            thing.destroy()
                        thing.undefine()
                    removed.append(f"{kind} {thing.name()}")
    return removed


def remove_pool(pool: libvirt.virStoragePool) -> None:
    """Remove a pool with its volumes and its folder, unless that has files that are no volumes.

    A pool whose folder is gone can't be started: it has nothing to delete.
    """
    with suppress(libvirt.libvirtError):
        if not pool.isActive():
            pool.create()
        pool.refresh()
        for volume in pool.listAllVolumes():
            volume.delete()
        pool.destroy()
        pool.delete()
    if pool.isActive():
        pool.destroy()
    pool.undefine()


def lookup(connection: libvirt.virConnect, name: str) -> libvirt.virDomain:
    """Return the machine of this name."""
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError as error:
        raise EngineError(f"libvirt has no machine {name}: {error}", remedy=MAKE_MISSING) from error


def console_of(domain: libvirt.virDomain) -> Console:
    """Return the console log of a machine, where its serial console is a file, of this host or of a pool."""
    source = ET.fromstring(domain.XMLDesc()).find("devices/serial/source[@path]")
    if source is not None:
        with suppress(libvirt.libvirtError):  # no pool has it: a file of the lab's folder
            return VolumeConsole(domain.connect().storageVolLookupByPath(source.attrib["path"]))
    return Console(Path(source.attrib["path"]) if source is not None else None)


def power_on(domain: libvirt.virDomain) -> None:
    """Start a machine that is off."""
    console_of(domain).clear()
    try:
        domain.create()
    except libvirt.libvirtError as error:
        raise EngineError(f"{domain.name()} could not be started: {error}", remedy="see ./lab doctor") from error


def power_off(domain: libvirt.virDomain) -> None:
    """Power a machine off; do nothing when it is off."""
    with suppress(libvirt.libvirtError):
        domain.destroy()
