"""Felix, Calico's agent: two chains of iptables for every pod, and an ipset for each selector of a policy."""

from __future__ import annotations

from ipaddress import IPv4Network

from hoplab.expectations.cni import calico
from hoplab.expectations.policy.enforcer import Admission, Direction
from hoplab.netfilter.ruleset import HasFacts
from hoplab.observe.facts.ipset import IPSET
from hoplab.observe.facts.iptables import IPTABLES, Rule
from hoplab.observe.snapshot import Pod

FACTS = (IPTABLES, IPSET)


def place(pod: Pod, direction: Direction) -> str:
    """Return Felix's chain for what goes to or comes from a pod."""
    return calico.chain(direction, pod.host_end.name if pod.host_end else "")


def stopping(host: HasFacts, pod: Pod, direction: Direction) -> tuple[Rule, ...]:
    """Return the rules of a pod's chain that drop what no policy allowed."""
    rules = host[IPTABLES].rules("filter", place(pod, direction))
    return tuple(rule for rule in rules if calico.DROPS in rule.comments)


def stopped(host: HasFacts, pod: Pod, direction: Direction) -> int:
    """Return the number of packets that they have dropped."""
    return sum(rule.packets for rule in stopping(host, pod, direction))


def admission(host: HasFacts, pod: Pod, policy: str) -> Admission | None:
    """Return the set of addresses that a rule of the policy's chain matches, which the pod's chain calls."""
    called = [rule.target for rule in host[IPTABLES].rules("filter", place(pod, "to"))]
    named = [
        match.values[0]
        for target in called
        for rule in host[IPTABLES].rules("filter", target)
        if f"KubernetesNetworkPolicy {policy} ingress" in rule.comments and (match := rule.match("--match-set"))
    ]
    if not named:
        return None
    sets = (ipset for ipset in host[IPSET] if ipset.name == named[0])
    return Admission(named[0], frozenset(IPv4Network(member.element) for ipset in sets for member in ipset.members))
