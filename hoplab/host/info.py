"""Memory, processors, disk space and networks of the workstation, and whether they are enough."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path

from hoplab.core.errors import HostError
from hoplab.host import ranges
from hoplab.host.ranges import UsedRange

GIB = 1024**3


@dataclass(frozen=True)
class HostFacts:
    """Figures of the host at one moment."""

    memory_mib: int
    available_memory_mib: int
    cpus: int  # that this process may use
    networks: tuple[IPv4Network, ...]  # in use here: addresses and routes, without the default route and loopback
    is_root: bool
    qemu_version: str  # "7.2.22", "" when QEMU is not installed
    used: tuple[UsedRange, ...] = ()  # the same networks, with what uses them
    name: str = ""  # of another host that runs the machines, "ann@rack7"; "" for this one

    def clash(self, network: IPv4Network) -> tuple[IPv4Network, str, str] | None:
        """Return a network in use that overlaps, what uses it, and the line that lets both be; None without any."""
        for used in self.used:
            if used.network.overlaps(network):
                return used.network, used.by, ranges.remedy(used, network)
        found = next((other for other in self.networks if other.overlaps(network)), None)
        return (found, "", "") if found else None

    def without(self, device: str) -> HostFacts:
        """Return the figures without the networks of an interface: a lab's own bridge is no clash with its network."""
        kept = tuple(used for used in self.used if used.device != device)
        return replace(self, used=kept, networks=tuple(used.network for used in kept))

    def disk_free_gib(self, path: Path) -> float:
        """Return the free space for a user where ``path`` is or will be."""
        return shutil.disk_usage(_existing(path)).free / GIB

    def require_memory(self, mib: int) -> None:
        """Raise HostError unless this much memory is available now."""
        if mib > self.available_memory_mib:
            raise HostError(
                f"the machines need {mib} MiB of memory, and {self.available_memory_mib} of the host's "
                f"{self.memory_mib} MiB are available",
                remedy="fewer workers or less memory for each (lab:nodes), or stop what else is running",
            )

    def require_disk(self, path: Path, gib: float) -> None:
        """Raise HostError unless this much disk space is free where ``path`` is or will be."""
        free = self.disk_free_gib(path)
        if gib > free:
            raise HostError(
                f"{gib:.1f} GiB of disk space are needed at {path}, and {free:.1f} GiB are free there",
                remedy="free some space; `./lab image prune` removes images no lab uses",
            )


def host_facts(libvirt_networks: str = "") -> HostFacts:
    """Return the figures of the host: three runs of `ip`, one of QEMU, a few files (some 50 ms in all)."""
    memory = parse_meminfo(Path("/proc/meminfo").read_text())
    commands = (("addr",), ("route", "show", "table", "all"), ("rule",))
    addresses, routes, rules = (_output("ip", "-j", *words) for words in commands)
    used = ranges.used_ranges(addresses, routes, rules, libvirt_networks)
    return HostFacts(
        memory_mib=memory["MemTotal"],
        available_memory_mib=memory["MemAvailable"],
        cpus=len(os.sched_getaffinity(0)),
        networks=tuple(found.network for found in used),
        is_root=os.geteuid() == 0,
        qemu_version=parse_qemu_version(_output("qemu-system-x86_64", "--version")),
        used=used,
    )


def parse_meminfo(text: str) -> dict[str, int]:
    """Return /proc/meminfo in MiB: {"MemTotal": 24105, ...}."""
    return {name: int(kib) // 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def parse_qemu_version(text: str) -> str:
    """Return the version: "QEMU emulator version 7.2.22 (Debian ...)" -> "7.2.22"."""
    found = re.search(r"version (\d+(?:\.\d+)+)", text)
    return found.group(1) if found else ""


def _existing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    return path if path.exists() else _existing(path.parent)


def _output(*command: str) -> str:
    """Return the output of a command, "" when it is not installed or fails (doctor lists missing tools)."""
    tool = shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin:/sbin")
    if tool is None:
        return ""
    return subprocess.run([tool, *command[1:]], capture_output=True, text=True, check=False).stdout
