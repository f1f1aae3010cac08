"""Cilium: the program at a pod's interface looks up who the other end is, and drops what no entry of a map allows.

There is no rule that denies. The map of a pod without a policy allows everybody; a policy takes that entry away, and
adds one for each identity that it allows. An identity stands for all pods with the same labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network

from hoplab.expectations.policy.enforcer import Admission, Direction
from hoplab.netfilter.ruleset import HasFacts
from hoplab.observe.facts.cilium_endpoints import CILIUM_ENDPOINTS
from hoplab.observe.facts.cilium_ipcache import CILIUM_IPCACHE
from hoplab.observe.facts.cilium_metrics import CILIUM_METRICS, DENIED
from hoplab.observe.facts.cilium_policy import CILIUM_POLICY, EVERYBODY, Entry
from hoplab.observe.snapshot import Pod

FACTS = (CILIUM_ENDPOINTS, CILIUM_IPCACHE, CILIUM_POLICY, CILIUM_METRICS)

_WAY: Mapping[Direction, str] = {"to": "ingress", "from": "egress"}
FIRST_IDENTITY = 256  # of pods; those below are of nodes, of the world, ...


def place(pod: Pod, direction: Direction) -> str:
    """Return the pod's policy map in words: its name has a number that only its node knows."""
    return f"the policy map of {pod}, {_WAY[direction]},"


def entries(host: HasFacts, pod: Pod, direction: Direction) -> tuple[Entry, ...] | None:
    """Return the entries of a pod's policy map in one direction; None where the node has no such pod or map."""
    endpoint = next((known for known in host[CILIUM_ENDPOINTS] if known.address == pod.address), None)
    found = host[CILIUM_POLICY].get(endpoint.id) if endpoint else None
    return None if found is None else tuple(entry for entry in found if entry.egress == (direction == "from"))


def stopping(host: HasFacts, pod: Pod, direction: Direction) -> tuple[str, ...]:
    """Return what the map lacks: an entry that allows everybody. None where it has one."""
    found = entries(host, pod, direction)
    if found is None or any(entry.identity == EVERYBODY and not entry.deny for entry in found):
        return ()
    others = ", ".join(map(str, found)) or "nothing"
    return (f"no entry for everybody; {others}",)


def stopped(host: HasFacts, _pod: Pod, direction: Direction) -> int:
    """Return the number of packets that the node's programs dropped by policy in that direction, of all its pods."""
    counted = (DENIED, _WAY[direction])
    return sum(counter.packets for counter in host[CILIUM_METRICS] if (counter.reason, counter.direction) == counted)


def admission(host: HasFacts, pod: Pod, _policy: str) -> Admission | None:
    """Return the addresses of the identities that the pod's map allows, without those of nodes and of the world."""
    allowed = {entry.identity for entry in entries(host, pod, "to") or () if not entry.deny} - {EVERYBODY}
    pods = sorted(identity for identity in allowed if identity >= FIRST_IDENTITY)
    if not pods:
        return None
    members = frozenset(
        owner.range for owner in host[CILIUM_IPCACHE] if owner.identity in pods and isinstance(owner.range, IPv4Network)
    )
    return Admission(f"the policy map of {pod}: identity {', '.join(map(str, pods))}", members)
