"""The shape of a module that knows how policies are enforced."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, Literal, Protocol

from hoplab.netfilter.ruleset import HasFacts
from hoplab.observe.facts import Fact
from hoplab.observe.snapshot import Pod

Direction = Literal["to", "from"]


@dataclass(frozen=True)
class Admission:
    """What knows on a node whom a policy allows."""

    what: str  # "cali40s:x", "the program that reads queue 98"
    members: frozenset[IPv4Network] | None = None  # those it allows, where rules list them


class Enforcer(Protocol):
    """The shape of a module: where to look on a pod's node."""

    FACTS: tuple[Fact[Any], ...]  # that the functions read

    def place(self, pod: Pod, direction: Direction) -> str:
        """Return the chain or table in which packets to or from a pod are stopped."""

    def stopping(self, host: HasFacts, pod: Pod, direction: Direction) -> tuple[object, ...]:
        """Return the rules, or what a map lacks, that stop what no policy allows to or from a pod; as text evidence.

        None where no policy concerns the pod.
        """

    def stopped(self, host: HasFacts, pod: Pod, direction: Direction) -> int:
        """Return the number of packets that these rules, or the program that decides, have got."""

    def admission(self, host: HasFacts, pod: Pod, policy: str) -> Admission | None:
        """Return what knows whom the ingress policy "namespace/name" of a pod allows; None where nothing does."""
