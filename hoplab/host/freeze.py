"""Machines frozen, their memory written to files, and woken again.

The memory of a suspended machine is written by libvirt as an external snapshot without disks: the machine stays as it
is, and QEMU keeps the code that it has translated. The file is what a managed save would write. Where libvirt finds it
in its own folder it resumes the machine from it at the next start; so a command that is killed on the way leaves
machines that any later start continues where they were.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Literal
from xml.etree import ElementTree

import libvirt

from hoplab.core.errors import EngineError
from hoplab.core.progress import Progress
from hoplab.core.wait import HOST, Expired, NotYet, Timing
from hoplab.host.info import host_facts
from hoplab.host.machines import connected, console_of, lookup, power_on

SAVED = Path("lib/qemu/save")  # below a private libvirt's folder
JOB_S = 120.0  # a save that a killed command left to libvirtd; by hand one took 6 s for two machines
EMULATED = "emulated"
BROKEN = {libvirt.VIR_DOMAIN_PAUSED_IOERROR, libvirt.VIR_DOMAIN_PAUSED_CRASHED}  # reasons why resuming is no help

Woken = Literal["ran", "resumed", "booted"]


@dataclass(frozen=True)
class Hypervisor:
    """What has to be the same for a machine's memory to be resumed."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    libvirt: str  # "9.0.0"
    qemu: str  # "7.2.22"
    accel: str  # "kvm" | "tcg"
    cpu: str  # the host's model and a digest of its features; "emulated" where QEMU makes the CPU


def hypervisor(accel: str) -> Hypervisor:
    """Return the hypervisor of this host, for machines of this acceleration."""
    number = libvirt.getVersion()
    version = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    cpu = cpu_model(Path("/proc/cpuinfo").read_text()) if accel == "kvm" else EMULATED
    return Hypervisor(version, host_facts().qemu_version, accel, cpu)


def cpu_model(cpuinfo: str) -> str:
    """Return the model of the first processor and a digest of its features.

    >>> cpu_model("model name : Some CPU @ 2 GHz\\nflags : a b\\n")
    'Some CPU @ 2 GHz, features c8687a08'
    """
    found = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", cpuinfo.partition("\n\n")[0], re.MULTILINE))
    features = " ".join(sorted(found.get("flags", "").split()))
    return f"{found.get('model name', 'unknown')}, features {sha256(features.encode()).hexdigest()[:8]}"


def saved_memory(libvirt_folder: Path, name: str) -> Path:
    """Return the file in which a private libvirt keeps the memory of a saved machine."""
    return libvirt_folder / SAVED / f"{name}.save"


def suspend(uri: str, names: Iterable[str]) -> None:
    """Suspend all machines, as nearly at one moment as libvirt can."""
    with connected(uri) as connection:
        domains = [lookup(connection, name) for name in names]
        for domain in domains:
            with _libvirt_errors(domain, "suspended"):
                domain.suspend()


def save(uri: str, files: Mapping[str, Path]) -> None:
    """Write the memory of suspended machines to files at the same time, by name of the machine; they stay suspended."""

    def one(domain: libvirt.virDomain, file: Path) -> None:
        with _libvirt_errors(domain, "saved"):
            domain.snapshotCreateXML(
                memory_alone(domain.XMLDesc(), file), libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            )

    with connected(uri) as connection, ThreadPoolExecutor(max(1, len(files))) as pool:
        list(pool.map(one, [lookup(connection, name) for name in files], files.values()))


def memory_alone(domain: str, file: Path) -> str:
    """Return libvirt's XML of a snapshot that has the memory of a machine, and none of its disks.

    >>> memory_alone("<domain><devices><disk><target dev='vda'/></disk></devices></domain>", Path("/one.save"))[63:]
    '<disks><disk name="vda" snapshot="no" /></disks></domainsnapshot>'
    """
    snapshot = ElementTree.Element("domainsnapshot")
    ElementTree.SubElement(snapshot, "memory", snapshot="external", file=str(file))
    disks = ElementTree.SubElement(snapshot, "disks")
    for target in ElementTree.fromstring(domain).iterfind("devices/disk/target"):
        ElementTree.SubElement(disks, "disk", name=target.get("dev", ""), snapshot="no")
    return ElementTree.tostring(snapshot, encoding="unicode")


def load_saved(uri: str, names: Sequence[str], progress: Progress, timing: Timing = HOST) -> set[str]:
    """Load the memory of saved machines at the same time and leave them paused; return their names.

    A machine that does not resume loses its saved memory, with a note: ``run`` boots it from its disk.
    """

    def one(domain: libvirt.virDomain) -> str:
        _wait_for_job(domain, timing)
        if domain.isActive() or not domain.hasManagedSaveImage(0):
            return ""
        console_of(domain).clear()
        try:
            domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError as error:
            progress.note(f"{domain.name()} does not resume, so it boots from its disk: {error}")
            domain.managedSaveRemove(0)
            return ""
        return str(domain.name())

    with connected(uri) as connection, ThreadPoolExecutor(max(1, len(names))) as pool:
        return set(filter(None, pool.map(one, [lookup(connection, name) for name in names])))


def run(uri: str, names: Sequence[str]) -> dict[str, Woken]:
    """Let all machines run: boot those that are off, then resume the paused ones together; return what each did."""
    with connected(uri) as connection:
        domains = {name: lookup(connection, name) for name in names}
        woken: dict[str, Woken] = {name: "resumed" if _is_paused(domain) else "ran" for name, domain in domains.items()}
        for name, domain in domains.items():
            if not domain.isActive():
                power_on(domain)
                woken[name] = "booted"
        for name in (name for name, how in woken.items() if how == "resumed"):
            with _libvirt_errors(domains[name], "resumed"):
                domains[name].resume()
        return woken


def interrupted(uri: str, names: Sequence[str]) -> bool:
    """Return whether some machine is saved or suspended: what a killed command leaves."""
    with connected(uri) as connection:
        there = {domain.name(): domain for domain in connection.listAllDomains()}
        return any(_is_paused(there[name]) or there[name].hasManagedSaveImage(0) for name in names if name in there)


def _is_paused(domain: libvirt.virDomain) -> bool:
    state, reason = domain.state()
    return state == libvirt.VIR_DOMAIN_PAUSED and reason not in BROKEN


def _wait_for_job(domain: libvirt.virDomain, timing: Timing) -> None:
    """Wait until libvirtd has ended what a killed command began with a machine."""

    def idle() -> NotYet | None:
        with suppress(libvirt.libvirtError):  # it may have ended since
            if domain.isActive() and domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
                return NotYet("libvirtd still saves its memory")
        return None

    try:
        timing.until(idle, JOB_S, poll_s=0.2)
    except Expired as expired:
        raise EngineError(
            f"{domain.name()}: {expired.reason}, after {expired.seconds:.0f} s",
            remedy="try again, or end it: ./lab stop, then ./lab start",
        ) from None


@contextmanager
def _libvirt_errors(domain: libvirt.virDomain, what: str) -> Iterator[None]:
    """Raise EngineError in place of libvirt's error."""
    try:
        yield
    except libvirt.libvirtError as error:
        full = "No space left" in str(error)
        raise EngineError(
            f"{domain.name()} could not be {what}: {error}",
            remedy="free some space, then try again" if full else "./lab start lets all machines run again",
        ) from error


def memory_mib(uri: str, names: Iterable[str]) -> int:
    """Return the memory of all machines in MiB."""
    with connected(uri) as connection:
        return sum(int(lookup(connection, name).maxMemory()) for name in names) // 1024
