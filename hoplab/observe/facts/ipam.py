"""Addresses that the IPAM plugin host-local has allocated to pods: one file each, named after the address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address

from hoplab.core.errors import FactError
from hoplab.core.ip import V4
from hoplab.observe.facts import Fact

_FOLDER = "/var/lib/cni/networks"


@dataclass(frozen=True)
class Reservation:
    """One allocated address."""

    network: str  # "cbr0", the name in the CNI configuration
    address: IPv4Address
    container: str  # the id of the pod's sandbox
    dev: str  # "eth0", inside the pod

    def __str__(self) -> str:
        return f"{_FOLDER}/{self.network}/{self.address}: {self.container} {self.dev}".rstrip()


_LINE = re.compile(rf"{_FOLDER}/([^/:]+)/([^/:]+):(.*?)\r?")


def parse(text: str) -> tuple[Reservation, ...]:
    """Parse each line of each file: ``/var/lib/cni/networks/cbr0/10.244.0.5:4b8c...``, then the same with ``eth0``."""
    files: dict[tuple[str, str], list[str]] = {}
    for line in text.split("\n"):
        if found := _LINE.fullmatch(line):
            files.setdefault((found[1], found[2]), []).append(found[3])
        elif line:
            raise FactError(f"{line!r} is not a line of a file of host-local", remedy=f"look into {_FOLDER}")
    return tuple(
        Reservation(network, V4.address(name, "ipam"), *(*lines, "", "")[:2])
        for (network, name), lines in files.items()
    )


# The folder also holds `lock` and `last_reserved_ip.0`; a name with a dot is an IPv4 address.
IPAM = Fact("ipam", f"grep -sH '' {_FOLDER}/*/[0-9]*.* || true", parse)
