"""The usual lab with kube-network-policies, and one thing of its table or of its queue broken at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hoplab.expectations.policy.kube_network_policies import PART, PRIORITY
from hoplab.observe.facts import Facts
from hoplab.observe.facts.nfqueue import NFQUEUE
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from tests.support import edits
from tests.support.edited import filters
from tests.support.edited.filters import BETWEEN_NODES, BY_BALANCER, ON_ONE_NODE, TO_OUTSIDE, TO_SERVICE
from tests.support.edits import FIRST, POD, Fault
from tests.support.policy_table import queues, table

DECIDES = "a_program_decides_about_queued_packets"
TABLE = f"{PART.nft_tables[0]} on {FIRST.name}"


def with_policies(lab: Snapshot, written: str, read: str) -> Snapshot:
    """A lab with its table and its queue on every node."""

    def more(node: str, facts: Facts) -> Facts:
        before = facts.outputs[NFT_RULESET.name]
        added = {NFT_RULESET.name: replace(before, out=before.out + written), NFQUEUE.name: Output(0, read)}
        return Facts(node, {**facts.outputs, **added})

    found = {node: more(node, facts) for node, facts in lab.node_facts.items()}
    return replace(lab, setting=replace(lab.setting, network_policy=PART.name), node_facts=found)


HEALTHY = with_policies(filters.HEALTHY, table(), queues())
SELECTED = with_policies(filters.HEALTHY, table([POD.address]), queues(5))  # a policy selects a pod of the first node


def with_table(text: str) -> Callable[[], Snapshot]:
    """The first node's table is another one."""
    return lambda: edits.on_node(NFT_RULESET.name, lambda seen: seen.replace(table(), text), HEALTHY)


def unread() -> Snapshot:
    """A policy selects a pod, and its node's queue has no reader."""
    return edits.on_node(NFQUEUE.name, lambda _: "", SELECTED)


FAULTS = (
    Fault("the table of policies is gone", with_table(""), (DECIDES,), f"there is no table {TABLE}"),
    Fault(
        "policies are compared after the source has changed",
        with_table(table(prio=105)),
        (DECIDES,),
        f"the chain of {TABLE} is called at postrouting with priority 105, not at postrouting with {PRIORITY}",
    ),
    Fault(
        "no rule queues what a pod sends",
        with_table(table().replace('"field": "saddr"', '"field": "ttl"')),
        (DECIDES,),
        f"no rule of {TABLE} queues by ip saddr",
    ),
    Fault(
        "packets pass without a program",
        with_table(table(flags=["bypass"])),
        (DECIDES,),
        f"{TABLE} does not queue to 98 alone: `ip daddr @podips-v4 queue flags bypass to 98`",
    ),
    Fault(
        "nobody reads the queue of policies",
        unread,
        (DECIDES, ON_ONE_NODE, BETWEEN_NODES, TO_OUTSIDE, TO_SERVICE, BY_BALANCER),
        f"no program on {FIRST.name} reads queue 98",
    ),
)
