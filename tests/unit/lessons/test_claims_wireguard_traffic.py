"""What is seen of an encrypted packet, in the small world of test_claims_traffic with WireGuard between its nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from hoplab.observe import capture
from hoplab.observe.pcap import CapturedPacket
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from tests.support.lesson_functions import failures
from tests.unit.lessons import test_claims_traffic
from tests.unit.lessons.test_claims_wireguard import RECORDED

PATIENCE = test_claims_traffic.PATIENCE
WRAPPED = "between_nodes_a_packet_travels_wrapped"


@dataclass
class World(test_claims_traffic.World):
    """Each switch is one fault."""

    lab: Snapshot = RECORDED
    encrypts: bool = True

    def read(self, _outputs: Mapping[str, Output]) -> dict[str, tuple[CapturedPacket, ...]]:
        pod, to = self.sent
        target = next(each for each in self.lab.pods if each.address == to)
        inner = CapturedPacket(0.0, "eth0", protocol="tcp", src=pod.address, dst=to, sport=4000, dport=8080)
        outer = replace(inner, protocol="udp", src=pod.node.address, dst=target.node.address, dport=51820)
        return {"outer": (outer if self.encrypts else inner,) if self.sees else ()}


FAULTS = (
    ("encrypts", False, (WRAPPED,), "can be read on eth0"),
    ("sees", False, (WRAPPED,), "by eth0"),
)


def test_it_holds_in_a_healthy_world(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(capture, "read", world.read)
    assert failures([WRAPPED], world.lab, world.session()) == {}


@pytest.mark.parametrize(("switch", "value", "caught_by", "says"), FAULTS)
def test_one_fault_fails_it(
    switch: str, value: object, caught_by: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    setattr(world, switch, value)
    monkeypatch.setattr(capture, "read", world.read)
    found = failures([WRAPPED], world.lab, world.session())
    assert set(found) == set(caught_by), found
    assert says in found[WRAPPED]
