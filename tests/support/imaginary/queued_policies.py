"""An imaginary lab in which kube-network-policies enforces network policies, with a switch for each fault."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hoplab.observe.facts.nfqueue import NFQUEUE
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from tests.support.imaginary import policies
from tests.support.imaginary.policies import ALLOWS, DENIES, LESSONS, PATIENCE, STOPS
from tests.support.policy_table import queues, table
from tests.support.recordings import recording

__all__ = ["FAULTS", "LESSONS", "PATIENCE", "RECORDED", "World"]

_HEALTHY = recording("flannel-vxlan")
RECORDED = replace(_HEALTHY, setting=replace(_HEALTHY.setting, network_policy="kube-network-policies"))


@dataclass
class World(policies.World):
    """The same lab with flannel: `writes` is of the program, which puts the address of a pod into its set."""

    recorded: Snapshot = RECORDED
    reads: bool = True  # the program, its queue

    def output(self, command: str) -> Output:
        if command == NFT_RULESET.command:
            return Output(0, table(self.selected))
        if command == NFQUEUE.command:
            return Output(0, queues(self.dropped if self.counts else 0) if self.reads else "")
        return super().output(command)

    @property
    def selected(self) -> tuple[object, ...]:
        """The addresses of the node's pods that a policy selects."""
        shown = self.policies or ([] if self.forgets else self.was)
        if not shown or not self.writes:
            return ()
        here = [pod for pod in RECORDED.pods if pod.node.name == self.single.node.name]
        app = "echo" if shown == ["stay"] else "single"
        return tuple(pod.address for pod in here if pod.api.label("app") == app)


OF_FELIX = {"names_a_set", "member"}  # what only rules can have
FAULTS: tuple[tuple[str, object, tuple[str, ...], str], ...] = (
    *(fault for fault in policies.FAULTS if fault[0] not in OF_FELIX),
    ("reads", False, (ALLOWS, DENIES, STOPS), "asks nothing that knows whom the policy allows to"),
)
