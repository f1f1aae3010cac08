"""The host and the versions that specs are checked against."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from hypothesis import strategies as st

from hoplab.expectations.parts import known_parts

PARTS = known_parts()
VERSIONS = ("1.36.3", "1.37.2")


@dataclass(frozen=True)
class FakeHost:
    memory_mib: int = 16384
    networks: tuple[IPv4Network, ...] = ()
    name: str = ""
    by: str = ""  # what uses its networks
    both: str = ""  # the line that lets a lab be beside it

    def clash(self, network: IPv4Network) -> tuple[IPv4Network, str, str] | None:
        return next(((used, self.by, self.both) for used in self.networks if used.overlaps(network)), None)


def scalars(words: list[Any], longest: int) -> st.SearchStrategy[Any]:
    """Return made-up values of YAML that contain no others; texts have at most ``longest`` characters."""
    return (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.dates()
        | st.binary(max_size=4)
        | st.text(max_size=longest)
        | st.sampled_from(words)
    )
