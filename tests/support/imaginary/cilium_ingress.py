"""An imaginary lab with an ingress controller, whose packets Cilium's programs pass on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from tests.support.imaginary import ingress
from tests.support.imaginary.cilium_traffic import NUMBER, entry
from tests.support.imaginary.ingress import DIRECT, FRONTS, PODS

PATIENCE = ingress.PATIENCE


def recorded() -> Snapshot:
    lab = replace(ingress.RECORDED, setting=replace(ingress.RECORDED.setting, cni="cilium"))
    vars(lab)["pods"] = ingress.RECORDED.pods
    return lab


RECORDED = recorded()


@dataclass
class World(ingress.World):
    """Each switch is one fault."""

    of: Snapshot = RECORDED
    remembers: bool = False  # the kernel's conntrack
    in_map: bool = True
    numbered: bool = False  # what the controller sends belongs to a service

    def batch(self, node: str, commands: Mapping[str, str]) -> dict[str, Output]:
        if set(commands) != {"maps"}:
            return super().batch(node, commands)
        front, number = FRONTS[node].address, NUMBER if self.numbered else 0
        ends = [f"{front}:41000 -> {pod}:8080" for pods in PODS.values() for pod in pods if self.in_map]
        return {"maps": Output(0, "".join(entry("OUT", both, number) for both in ends))}


FAULTS = (
    ("in_map", False, (DIRECT,), "has no connection of ingress-readable/ingress-"),
    ("numbered", True, (DIRECT,), "sends is translated"),
)
