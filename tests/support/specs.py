"""The host and the versions that specs are checked against."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

from hoplab.expectations.parts import known_parts

PARTS = known_parts()
VERSIONS = ("1.37.2",)


@dataclass(frozen=True)
class FakeHost:
    memory_mib: int = 16384
    networks: tuple[IPv4Network, ...] = ()
