"""A look for a trace leaves out what no trace depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from hoplab.observe.facts import Facts
from hoplab.observe.facts.nftables import NFTABLES
from hoplab.observe.snapshot import Snapshot
from hoplab.trace.needs import NEEDED, others
from tests.support.recordings import recording
from tests.support.traced_faults import pods, traced

OLDER = {NFTABLES.name}  # stands for nft_ruleset where a recording lacks that


def reduced(lab: Snapshot) -> Snapshot:
    def needed(facts: Facts) -> Facts:
        outputs = {name: output for name, output in facts.outputs.items() if name in NEEDED | OLDER}
        return replace(facts, outputs=outputs, _parsed={})

    def all_of(places: Mapping[str, Facts]) -> dict[str, Facts]:
        return {name: needed(facts) for name, facts in places.items()}

    return replace(
        lab,
        node_facts=all_of(lab.node_facts),
        netns_facts={node: all_of(found) for node, found in lab.netns_facts.items()},
        api=needed(lab.api),
    )


@pytest.mark.parametrize("name", ["flannel-vxlan", "flannel-vxlan-nftables", "flannel-wireguard", "calico-ipip"])
def test_a_trace_is_the_same_without_the_other_facts(name: str) -> None:
    lab = recording(name)
    few = reduced(lab)
    assert set(pods(few)) == {"single", "near", "far"}
    for sender, receiver, options in (
        ("single", "far", {}),
        ("single", "hoplab-verify/echo", {}),
        ("outside", "app1-service", {"via": "ingress"}),
        ("outside", "balanced", {"via": "loadbalancer"}),
        ("single", "198.51.100.9", {}),
    ):
        assert traced(few, sender, receiver, **options) == traced(lab, sender, receiver, **options)


def test_what_takes_long_is_left_out() -> None:
    assert {"disks", "units", "counters"} <= others()
    assert not others() & NEEDED
