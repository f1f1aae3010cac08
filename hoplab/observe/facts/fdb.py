"""Forwarding databases of bridges and VXLAN interfaces, from MAC to port or host: ``bridge -j fdb``."""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import listed


@dataclass(frozen=True)
class FdbEntry:
    """``be:0f:.. dev flannel.1 dst 192.168.77.21 self permanent``"""

    mac: str
    dev: str
    dst: str  # VXLAN: address of the host that decapsulates the frame
    master: str  # bridge port: the bridge
    state: str  # "permanent", "" when learned

    def __str__(self) -> str:
        return f"{self.mac} dev {self.dev} dst {self.dst}" if self.dst else f"{self.mac} dev {self.dev}"


def parse(text: str) -> tuple[FdbEntry, ...]:
    return tuple(
        FdbEntry(item.text("mac"), item.text("ifname"), item.text("dst"), item.text("master"), item.text("state"))
        for item in listed(text, "fdb")
    )


FDB = Fact("fdb", "bridge -j fdb show", parse)
