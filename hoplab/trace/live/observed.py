"""What was seen of one packet and its reply, in the words of the trace; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hoplab.core.ip import IPAddress
from hoplab.trace.live.drops import Drop, Lookup
from hoplab.trace.live.sightings import Sighting
from hoplab.trace.model import Place

WIRE = Place("wire")
NEAR_NS = 50_000_000  # a drop that is reported so long after the packet was last seen may be its own


@dataclass(frozen=True)
class RuleHit:
    """A rule that a packet matched on a node, in its user's words."""

    place: Place
    where: str  # "iptables nat, KUBE-SEP-OEQII452HUCDINZ5"
    text: str
    verdict: str
    leg: str  # "there", "back"

    @property
    def drops(self) -> bool:
        return self.verdict == "drop"

    @property
    def queues(self) -> bool:
        """Return whether it leaves the packet to a program."""
        return self.verdict == "queue"


@dataclass(frozen=True)
class Observed:
    """All that was seen of one packet and its reply."""

    sightings: tuple[Sighting, ...]
    outcome: str  # as the sender knows it: "connected", "Connection refused", "no answer in 2.5 s"
    answered: bool  # the sender got a reply
    rules: tuple[RuleHit, ...] = ()
    drops: Mapping[Place, tuple[Drop, ...]] = field(default_factory=dict)  # of nodes, on the clock of sightings
    lookups: Mapping[Place, tuple[Lookup, ...]] = field(default_factory=dict)
    counted: Mapping[Place, tuple[str, ...]] = field(default_factory=dict)  # failures that nodes counted meanwhile
    pods: Mapping[Place, Place] = field(default_factory=dict)  # the nodes of pods
    bridges: Mapping[Place, Mapping[str, str]] = field(default_factory=dict)  # of each port of a node
    translated: IPAddress | None = None  # a service's address: what still has it has not arrived anywhere
    one_way: bool = False  # no reply is expected
    lacking: tuple[str, ...] = ()
    seconds: float = 0.0

    def of(self, *, second: bool) -> tuple[Sighting, ...]:
        return tuple(seen for seen in self.sightings if seen.second == second or seen.leg == "carrier")
