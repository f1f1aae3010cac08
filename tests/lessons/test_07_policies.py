"""Chapter 7, iptables: NetworkPolicy, ``iptables-save -c -t filter`` and ``ipset save`` of a CNI that enforces it."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from hoplab.expectations.cni import calico
from hoplab.observe.facts import Facts
from hoplab.observe.facts.ipset import IPSET
from hoplab.observe.facts.iptables import IPTABLES, Rule
from hoplab.observe.snapshot import Pod
from hoplab.verify import workload
from hoplab.verify.claims import Claim, listed
from hoplab.verify.session import LabSession

pytestmark = [
    pytest.mark.needs(cni="calico", proxy="iptables"),
    pytest.mark.remedy("kubectl describe networkpolicies -A"),
]

POLICIES = f"/apis/networking.k8s.io/v1/namespaces/{workload.NAMESPACE}/networkpolicies"


def policy(name: str, app: str, **spec: Any) -> dict[str, Any]:
    """A policy for the pods with that label."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, **spec},
    }


def pods_of(app: str) -> dict[str, Any]:
    """A peer in a policy: the pods with that label."""
    return {"podSelector": {"matchLabels": {"app": app}}}


def chain_of(pod: Pod, direction: str) -> str:
    """Felix's chain for what goes to or comes from a pod."""
    return calico.chain(direction, pod.host_end.name if pod.host_end else "")


def denials(seen: Facts, chain: str) -> list[Rule]:
    """The rules of a pod's chain that drop what no policy allowed."""
    return [rule for rule in seen[IPTABLES].rules("filter", chain) if calico.DROPS in rule.comments]


def dropped(seen: Facts, chain: str) -> int:
    return sum(rule.packets for rule in denials(seen, chain))


@pytest.mark.rests_on("pod_to_pod_is_never_translated")
def test_a_policy_denies_what_it_does_not_allow(session: LabSession, claim: Claim) -> None:
    """A NetworkPolicy that allows nothing stops all packets to its pods: their chain ends in a DROP, which counts them.
    When the policy is deleted, the rule goes and the packets pass."""
    server, client = session.single, session.client
    node, chain, url = server.node, chain_of(server, "to"), f"http://{server.address}:{workload.PORT}/"
    claim.require(
        session.request(client, url).answered, f"{server} does not answer {client}, and no policy is made yet"
    )
    with session.created(POLICIES, policy("deny", "single", policyTypes=["Ingress"])):
        before = session.facts_when(node, lambda seen: bool(denials(seen, chain)), IPTABLES)
        claim.require(
            denials(before, chain),
            f"{chain} on {node.name} drops nothing, though a policy denies what is for {server}",
            *before[IPTABLES].rules("filter", chain),
        )
        asked = session.request(client, url)
        after = session.facts_when(node, lambda _: True, IPTABLES)
    claim.require(not asked.answered, f"{server} answers {client}, which no policy allows")
    rule, counted = denials(before, chain)[0], dropped(after, chain) - dropped(before, chain)
    claim.require(counted > 0, f"`{rule}` on {node.name} has counted nothing")
    gone = session.facts_when(node, lambda seen: not denials(seen, chain), IPTABLES)
    claim.require(
        not denials(gone, chain), f"{chain} on {node.name} still drops, without any policy", *denials(gone, chain)
    )
    claim.require(
        session.request(client, url).answered, f"{server} does not answer {client} any more without the policy"
    )
    claim.saw(f"on {node.name} {chain} dropped {counted} packets of {client} for {server}: `{rule}`")


@pytest.mark.needs(outside=True)
@pytest.mark.rests_on("a_policy_denies_what_it_does_not_allow")
def test_a_policy_allows_by_label(session: LabSession, claim: Claim) -> None:
    """A policy that allows the pods with a label admits these and no others: a rule of the policy's chain matches the
    set of their addresses."""
    server, client, outside = session.single, session.client, session.snapshot.setting.gateway
    node, chain, url = server.node, chain_of(server, "to"), f"http://{server.address}:{workload.PORT}/"
    port = session.service("single-local").node_port
    allowed = policy("allow", "single", ingress=[{"from": [pods_of("echo")], "ports": [{"port": workload.PORT}]}])
    with session.created(POLICIES, allowed):
        seen = session.facts_when(node, lambda seen: bool(denials(seen, chain)), IPTABLES, IPSET)
        asked = session.request(client, url)
        stranger = session.request_from_outside(f"http://{node.address}:{port}/")
    called = [rule.target for rule in seen[IPTABLES].rules("filter", chain)]
    named = [
        match.values[0]
        for target in called
        for rule in seen[IPTABLES].rules("filter", target)
        if f"KubernetesNetworkPolicy {workload.NAMESPACE}/allow ingress" in rule.comments
        and (match := rule.match("--match-set"))
    ]
    claim.require(named, f"{chain} on {node.name} calls no chain of the policy that asks a set", *called)
    members = {
        IPv4Network(member.element) for ipset in seen[IPSET] if ipset.name == named[0] for member in ipset.members
    }
    wanted = {IPv4Network(pod.address) for pod in session.echo_pods}
    claim.require(members == wanted, f"{named[0]} on {node.name} has {listed(members)}, not {listed(wanted)}")
    claim.require(asked.answered, f"{server} does not answer {client}, whose label the policy allows")
    claim.require(stranger is None, f"{server} answers {outside}, whom the policy does not allow")
    claim.require(
        session.request_from_outside(f"http://{node.address}:{port}/"),
        f"{server} does not answer {outside} without the policy",
    )
    claim.saw(f"{named[0]} on {node.name} has {listed(members)}: {client} is answered, {outside} is not")


@pytest.mark.needs(outside=True)
@pytest.mark.rests_on("a_policy_denies_what_it_does_not_allow", "the_outside_sees_the_nodes_address")
def test_a_policy_stops_what_leaves(session: LabSession, claim: Claim) -> None:
    """An egress policy stops a pod's packets on its own node, where they come out of the veth pair."""
    server, client = session.single, session.client
    node, chain, path = client.node, chain_of(client, "from"), session.unique_path()
    claim.require(
        session.request(client, session.external.url(path)).answered, f"the outside does not answer {client} yet"
    )
    stay = policy("stay", "echo", policyTypes=["Egress"], egress=[{"to": [pods_of("single")]}])
    with session.created(POLICIES, stay):
        before = session.facts_when(node, lambda seen: bool(denials(seen, chain)), IPTABLES)
        allowed = session.request(client, f"http://{server.address}:{workload.PORT}/")
        denied = session.request(client, session.external.url(session.unique_path()))
        after = session.facts_when(node, lambda _: True, IPTABLES)
    claim.require(
        denials(before, chain),
        f"{chain} on {node.name} drops nothing, though a policy denies what {client} sends",
        *before[IPTABLES].rules("filter", chain),
    )
    claim.require(allowed.answered, f"{server} does not answer {client}, which the policy allows")
    claim.require(not denied.answered, f"{client} reaches the outside, which no policy allows")
    counted = dropped(after, chain) - dropped(before, chain)
    claim.require(counted > 0, f"the DROP of {chain} on {node.name} has counted nothing")
    session.facts_when(node, lambda seen: not denials(seen, chain), IPTABLES)
    claim.require(
        session.request(client, session.external.url(path)).answered,
        f"{client} can't leave any more without the policy",
    )
    claim.saw(f"on {node.name} {chain} dropped {counted} packets of {client} for the outside, {server} answers it")
