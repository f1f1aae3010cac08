"""Chapter 7, what drops a packet: every hook on its way, in ``iptables-save -c``, ``iptables-legacy-save -c`` and
``nft list ruleset``."""

from __future__ import annotations

from itertools import permutations

import pytest

from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.facts.iptables_legacy import IPTABLES_LEGACY
from hoplab.observe.snapshot import Pod, Snapshot
from hoplab.verify import packet_paths, workload
from hoplab.verify.claims import Claim, counted

pytestmark = [
    pytest.mark.remedy(
        "ssh {node} sudo {tool} -t {table} -L {chain} -nv --line-numbers",
        says="in (?P<tool>iptables(-legacy)?) (?P<table>[a-z]+), chain (?P<chain>[^ ]+), of",
    ),
    pytest.mark.remedy(
        "ssh {node} sudo nft -a list chain {family} {table} {chain}",
        says="in nftables (?P<family>[a-z0-9]+) (?P<table>[^ ]+), chain (?P<chain>[^ ]+), of",
    ),
    pytest.mark.remedy("ssh {node} sudo iptables-save"),
]


def _pods(lab: Snapshot) -> list[Pod]:
    """Return the pods of the verification workload: no policy forbids them anything."""
    return [pod for pod in lab.pods if pod.api.namespace == workload.NAMESPACE]


@pytest.mark.needs(facts=packet_paths.FACTS)
def test_nothing_on_the_way_drops_it_on_one_node(lab: Snapshot, claim: Claim) -> None:
    """From pod to pod of one node, no rule of any table at any hook drops a packet or its reply."""
    pairs = [(pod, other) for pod, other in permutations(_pods(lab), 2) if pod.node is other.node]
    found = packet_paths.checked(leg for pair in pairs for leg in packet_paths.between_pods(*pair, workload.PORT))
    claim.require(not found.drops, found.why, *found.evidence)
    claim.saw(f"between {counted(len(pairs), 'pair')} of pods {found}")


@pytest.mark.needs(nodes=2, facts=packet_paths.FACTS)
@pytest.mark.rests_on("nothing_on_the_way_drops_it_on_one_node")
def test_nothing_on_the_way_drops_it_between_nodes(lab: Snapshot, claim: Claim) -> None:
    """From pod to pod of another node, no rule of either node drops a packet, its reply, or what wraps it."""
    pairs = [(pod, other) for pod, other in permutations(_pods(lab), 2) if pod.node is not other.node]
    found = packet_paths.checked(leg for pair in pairs for leg in packet_paths.between_pods(*pair, workload.PORT))
    claim.require(not found.drops, found.why, *found.evidence)
    claim.saw(f"between {counted(len(pairs), 'pair')} of pods {found}")


@pytest.mark.needs(facts=packet_paths.FACTS)
def test_nothing_drops_what_a_pod_sends_to_its_node(lab: Snapshot, claim: Claim) -> None:
    """No rule of a node drops what its pods send to the kubelet there, or the replies."""
    pods = _pods(lab)
    found = packet_paths.checked(leg for pod in pods for leg in packet_paths.to_own_node(pod))
    claim.require(not found.drops, found.why, *found.evidence)
    claim.saw(f"of {counted(len(pods), 'pod')} {found}")


@pytest.mark.needs(facts=packet_paths.FACTS)
def test_one_iptables_lists_all_rules(lab: Snapshot, claim: Claim) -> None:
    """All rules of iptables on a node are of one iptables, legacy or made of nftables, and it can read all of them."""
    rules, unread = 0, list[str]()
    for node in lab.nodes:
        saved, legacy = node[IPTABLES], node[IPTABLES_LEGACY]
        for table in saved.incompatible:
            claim.require(False, f"iptables on {node.name} cannot list its table {table}, which only `nft` can")
        for table, rule in saved.unread:
            claim.require(not rule.of_another_version, f"a rule of {table} on {node.name} {rule.unread}", rule)
            unread.append(f"`{rule}` in {table} of {node.name} {rule.unread}")
        beside = [rule for chains in legacy.tables.values() for chain in chains.values() for rule in chain.rules]
        claim.require(
            saved.legacy or not beside,
            f"{node.name} also has iptables-legacy tables with {counted(len(beside), 'rule')}, which iptables-save "
            "does not list and the kernel applies",
            *beside,
        )
        rules += sum(len(chain.rules) for chains in saved.tables.values() for chain in chains.values())
    claim.saw(
        f"{counted(rules, 'rule')} on {counted(len(lab.nodes), 'node')} are listed, and no other iptables has any"
        + (f"; the lessons cannot read {counted(len(unread), 'rule')} of them" if unread else ""),
        *unread,
    )
