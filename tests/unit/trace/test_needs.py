"""A look for a trace leaves out what no trace depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from hoplab.core.errors import FactError
from hoplab.observe.facts import Facts
from hoplab.observe.facts.nftables import NFTABLES, NFTABLES6
from hoplab.observe.snapshot import Snapshot
from hoplab.trace.needs import NEEDED, NEEDED6, others
from tests.support.recordings import recording
from tests.support.traced_faults import pods, traced

OLDER = {NFTABLES.name, NFTABLES6.name}  # stands for nft_ruleset where a recording lacks that


def reduced(lab: Snapshot, names: frozenset[str] = NEEDED) -> Snapshot:
    def needed(facts: Facts) -> Facts:
        outputs = {name: output for name, output in facts.outputs.items() if name in names | OLDER}
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


@pytest.mark.parametrize("name", ["flannel-vxlan-dual", "calico-bgp-dual"])
def test_a_trace_of_ipv6_needs_more(name: str) -> None:
    lab = recording(name)
    more, few = reduced(lab, NEEDED6), reduced(lab)
    for sender, receiver, options in (
        ("single", "far", {}),
        ("single", "hoplab-verify/echo", {}),
        ("outside", "app1-service", {"via": "ingress"}),
        ("single", "2001:db8::9", {}),
    ):
        trace = traced(lab, sender, receiver, ipv6=True, **options)
        assert traced(more, sender, receiver, ipv6=True, **options) == trace
    assert traced(few, "single", "far") == traced(lab, "single", "far")
    with pytest.raises(FactError, match="was not looked at"):
        traced(few, "single", "far", ipv6=True)


def test_what_takes_long_is_left_out() -> None:
    assert {"disks", "units", "counters"} <= others()
    assert not others() & NEEDED
    assert others() - others(ipv6=True) == NEEDED6 - NEEDED >= {"routes6", "ip6tables"}
