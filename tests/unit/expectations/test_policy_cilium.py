"""What of Cilium's maps shows that a policy concerns a pod, and whom it allows."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from hoplab.expectations import policy
from hoplab.expectations.policy import cilium
from hoplab.observe.facts import Facts
from hoplab.observe.script import Output
from tests.support.imaginary.cilium import lab

VXLAN = lab()
POD = next(pod for pod in VXLAN.pods if pod.api.label("app") == "single")
ENDPOINT = 1000 + POD.host_end.index if POD.host_end else 0
EVERYBODY, NODE, CLIENTS = 0, 1, 6000  # identities


def allows(identity: int, *, egress: bool = False, flags: int = 0) -> dict[str, Any]:
    key = {"Identity": identity, "TrafficDirection": int(egress), "Nexthdr": 0, "DestPortNetwork": 0}
    return {"Flags": flags, "Packets": 0, "Key": key}


def facts(*entries: dict[str, Any], drops: tuple[tuple[str, str, int], ...] = (), endpoint: int = ENDPOINT) -> Facts:
    """The pod's node with these entries in the map of the endpoint, and packets dropped by reason and direction."""
    maps = [{"EndpointID": str(endpoint), "Path": "/x", "Content": list(entries)}]
    counted = [{"reason": reason, "direction": way, "packets": number} for reason, way, number in drops]
    new = {"cilium_policy": Output(0, json.dumps(maps)), "cilium_metrics": Output(0, json.dumps(counted))}
    return Facts(POD.node.name, {**POD.node.facts.outputs, **new})


def test_cilium_enforces_policies_in_a_lab_that_has_it() -> None:
    found = policy.of(VXLAN.setting)
    assert found and found.FACTS == cilium.FACTS
    assert policy.of(replace(VXLAN.setting, foreign=True)) is None


def test_a_pod_without_a_policy_is_open_to_everybody() -> None:
    seen = facts(allows(EVERYBODY), allows(EVERYBODY, egress=True))
    assert cilium.stopping(seen, POD, "to") == cilium.stopping(seen, POD, "from") == ()
    assert cilium.admission(seen, POD, "ns/allow") is None


def test_a_policy_takes_the_entry_for_everybody_away() -> None:
    seen = facts(allows(NODE), allows(EVERYBODY, egress=True))
    (why,) = cilium.stopping(seen, POD, "to")
    assert why == "no entry for everybody; allows from identity 1"
    assert cilium.stopping(seen, POD, "from") == ()
    assert cilium.stopping(facts(allows(EVERYBODY, flags=1)), POD, "to"), "an entry that denies opens nothing"
    assert cilium.place(POD, "to") == f"the policy map of {POD}, ingress,"


def test_whom_a_policy_allows_is_known_by_identity() -> None:
    seen = facts(allows(NODE), allows(CLIENTS), allows(7000, flags=1))
    found = cilium.admission(seen, POD, "ns/allow")
    pods = [pod.address for pod in VXLAN.own_address_pods if pod.namespace == "hoplab-verify"]
    assert found and found.members == frozenset(IPv4Network(address) for address in pods if address)
    assert found.what == f"the policy map of {POD}: identity 6000"
    assert cilium.admission(facts(allows(NODE)), POD, "ns/allow") is None, "the node alone is no pod"


def test_what_was_dropped_by_policy_is_counted_in_each_direction() -> None:
    drops = (("Policy denied", "ingress", 3), ("Policy denied", "egress", 5), ("Stale or unroutable IP", "ingress", 7))
    seen = facts(drops=drops)
    assert (cilium.stopped(seen, POD, "to"), cilium.stopped(seen, POD, "from")) == (3, 5)


def test_a_pod_without_a_map_is_stopped_by_nothing_that_is_known() -> None:
    assert cilium.entries(facts(allows(NODE), endpoint=1), POD, "to") is None
    assert cilium.stopping(facts(allows(NODE), endpoint=1), POD, "to") == ()
