"""An imaginary lab whose nodes talk by WireGuard, with a switch for each fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hoplab.observe.pcap import CapturedPacket
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from tests.support.edited.wireguard import RECORDED
from tests.support.imaginary import traffic

PATIENCE = traffic.PATIENCE
WRAPPED = "between_nodes_a_packet_travels_wrapped"


@dataclass
class World(traffic.World):
    """Each switch is one fault."""

    lab: Snapshot = RECORDED
    encrypts: bool = True

    def read(self, _outputs: Mapping[str, Output]) -> dict[str, tuple[CapturedPacket, ...]]:
        pod, to = self.sent
        target = next(other for other in self.lab.pods if other.address == to)
        inner = CapturedPacket(0.0, "eth0", protocol="tcp", src=pod.address, dst=to, sport=4000, dport=8080)
        outer = replace(inner, protocol="udp", src=pod.node.address, dst=target.node.address, dport=51820)
        return {"outer": (outer if self.encrypts else inner,) if self.sees else ()}


FAULTS = (
    ("encrypts", False, (WRAPPED,), "can be read on eth0"),
    ("sees", False, (WRAPPED,), "by eth0"),
)
