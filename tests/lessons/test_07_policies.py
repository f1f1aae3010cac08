"""Chapter 7, NetworkPolicy: Felix's chains in ``iptables-save -c -t filter`` with the sets of ``ipset save``, or the
queue of kube-network-policies in ``nft list ruleset`` and /proc/net/netfilter/nfnetlink_queue."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from hoplab.expectations import policy as policies
from hoplab.expectations.policy import Enforcer, kube_network_policies
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import workload
from hoplab.verify.claims import Claim, listed
from hoplab.verify.session import LabSession

pytestmark = [pytest.mark.remedy("kubectl describe networkpolicies -A")]

POLICIES = f"/apis/networking.k8s.io/v1/namespaces/{workload.NAMESPACE}/networkpolicies"
QUEUES = "ssh {node} sudo nft list table inet kube-network-policies"
RESTART = "kubectl -n kube-system rollout restart daemonset kube-network-policies"


def enforcer_of(lab: Snapshot) -> Enforcer:
    """What enforces policies in the lab, which the lesson needs."""
    found = policies.of(lab.setting)
    assert found
    return found


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


@pytest.mark.needs(policy="kube-network-policies", facts=("nfqueue", "nft_ruleset"))
@pytest.mark.remedy(QUEUES, mends=RESTART)
def test_a_program_decides_about_queued_packets(lab: Snapshot, claim: Claim) -> None:
    """kube-network-policies has one chain on each node, at postrouting before source addresses change. It queues new
    connections of pods with a policy to a program that reads the queue; without the program the kernel drops them."""
    expected = kube_network_policies
    for node in lab.nodes:
        chain = expected.chain(node)
        where = f"{expected.FAMILY} {expected.TABLE} on {node.name}"
        claim.require(chain, f"there is no table {where} with a chain {expected.CHAIN}")
        assert chain
        claim.require(
            (chain.kind, chain.hook, chain.priority) == ("filter", "postrouting", expected.PRIORITY),
            f"the chain of {where} is called at {chain.hook} with priority {chain.priority}, not at postrouting with "
            f"{expected.PRIORITY}, before the source address changes at 100",
        )
        for direction in expected.KEYS:
            rules = expected.queueing(node, direction)
            claim.require(rules, f"no rule of {where} queues by {expected.KEYS[direction]}", *chain.rules)
            for rule in rules:
                queue = expected.queue_of(rule)
                claim.require(
                    queue and queue.number == str(expected.QUEUE) and not queue.flags,
                    f"{where} does not queue to {expected.QUEUE} alone: `{rule}`",
                    rule,
                )
        claim.require(
            expected.reader(node, str(expected.QUEUE)),
            f"no program on {node.name} reads queue {expected.QUEUE}: a pod with a policy gets no new connection",
            *chain.rules,
        )
    claim.saw(
        f"the program reads queue {expected.QUEUE} on {listed(node.name for node in lab.nodes)}, to which "
        f"{expected.FAMILY} {expected.TABLE} hands packets at postrouting {expected.PRIORITY}"
    )


@pytest.mark.needs(policies=True)
@pytest.mark.rests_on("pod_to_pod_is_never_translated", "a_program_decides_about_queued_packets")
def test_a_policy_denies_what_it_does_not_allow(session: LabSession, claim: Claim) -> None:
    """A NetworkPolicy that allows nothing stops all packets to its pods, by a rule on their node that counts them: a
    DROP, or a queue to a program. When the policy is deleted, the rule goes and the packets pass."""
    enforcer = enforcer_of(session.snapshot)
    server, client = session.single, session.client
    node, place, url = server.node, enforcer.place(server, "to"), f"http://{server.address}:{workload.PORT}/"
    claim.require(
        session.request(client, url).answered, f"{server} does not answer {client}, and no policy is made yet"
    )
    with session.created(POLICIES, policy("deny", "single", policyTypes=["Ingress"])):
        before = session.facts_when(node, lambda seen: bool(enforcer.stopping(seen, server, "to")), *enforcer.FACTS)
        rules = enforcer.stopping(before, server, "to")
        claim.require(rules, f"{place} on {node.name} stops nothing, though a policy denies what is for {server}")
        asked = session.request(client, url)
        after = session.facts_when(node, lambda _: True, *enforcer.FACTS)
    claim.require(not asked.answered, f"{server} answers {client}, which no policy allows")
    counted = enforcer.stopped(after, server, "to") - enforcer.stopped(before, server, "to")
    claim.require(counted > 0, f"`{rules[0]}` on {node.name} has counted nothing")
    gone = session.facts_when(node, lambda seen: not enforcer.stopping(seen, server, "to"), *enforcer.FACTS)
    left = enforcer.stopping(gone, server, "to")
    claim.require(not left, f"{place} on {node.name} still stops what is for {server}, without any policy", *left)
    claim.require(
        session.request(client, url).answered, f"{server} does not answer {client} any more without the policy"
    )
    claim.saw(f"on {node.name} {place} stopped {counted} packets of {client} for {server}: `{rules[0]}`")


@pytest.mark.needs(policies=True, outside=True)
@pytest.mark.rests_on("a_policy_denies_what_it_does_not_allow")
def test_a_policy_allows_by_label(session: LabSession, claim: Claim) -> None:
    """A policy that allows the pods with a label admits these and no others: a rule of the policy's chain matches the
    set of their addresses, or the program that reads the queue knows them."""
    enforcer = enforcer_of(session.snapshot)
    server, client, outside = session.single, session.client, session.snapshot.setting.gateway
    node, place, url = server.node, enforcer.place(server, "to"), f"http://{server.address}:{workload.PORT}/"
    port = session.service("single-local").node_port
    allowed = policy("allow", "single", ingress=[{"from": [pods_of("echo")], "ports": [{"port": workload.PORT}]}])
    with session.created(POLICIES, allowed):
        seen = session.facts_when(node, lambda seen: bool(enforcer.stopping(seen, server, "to")), *enforcer.FACTS)
        asked = session.request(client, url)
        stranger = session.request_from_outside(f"http://{node.address}:{port}/")
    found = enforcer.admission(seen, server, f"{workload.NAMESPACE}/allow")
    claim.require(found, f"{place} on {node.name} asks nothing that knows whom the policy allows to {server}")
    assert found
    wanted = {IPv4Network(pod.address) for pod in session.echo_pods}
    claim.require(
        found.members in (None, wanted),
        f"{found.what} on {node.name} has {listed(found.members or ())}, not {listed(wanted)}",
    )
    claim.require(asked.answered, f"{server} does not answer {client}, whose label the policy allows")
    claim.require(stranger is None, f"{server} answers {outside}, whom the policy does not allow")
    session.facts_when(node, lambda seen: not enforcer.stopping(seen, server, "to"), *enforcer.FACTS)
    claim.require(
        session.request_from_outside(f"http://{node.address}:{port}/"),
        f"{server} does not answer {outside} without the policy",
    )
    by = f"{found.what} on {node.name}" + (f" has {listed(found.members)}" if found.members else " decides")
    claim.saw(f"{by}: {client} is answered, {outside} is not")


@pytest.mark.needs(policies=True, outside=True)
@pytest.mark.rests_on("a_policy_denies_what_it_does_not_allow", "the_outside_sees_the_nodes_address")
def test_a_policy_stops_what_leaves(session: LabSession, claim: Claim) -> None:
    """An egress policy stops a pod's packets on its own node: where they come out of the veth pair, or in the queue at
    postrouting."""
    enforcer = enforcer_of(session.snapshot)
    server, client = session.single, session.client
    node, place, path = client.node, enforcer.place(client, "from"), session.unique_path()
    claim.require(
        session.request(client, session.external.url(path)).answered, f"the outside does not answer {client} yet"
    )
    stay = policy("stay", "echo", policyTypes=["Egress"], egress=[{"to": [pods_of("single")]}])
    with session.created(POLICIES, stay):
        before = session.facts_when(node, lambda seen: bool(enforcer.stopping(seen, client, "from")), *enforcer.FACTS)
        allowed = session.request(client, f"http://{server.address}:{workload.PORT}/")
        middle = session.facts_when(node, lambda _: True, *enforcer.FACTS)
        denied = session.request(client, session.external.url(session.unique_path()))
        after = session.facts_when(node, lambda _: True, *enforcer.FACTS)
    claim.require(
        enforcer.stopping(before, client, "from"),
        f"{place} on {node.name} stops nothing, though a policy denies what {client} sends",
    )
    claim.require(allowed.answered, f"{server} does not answer {client}, which the policy allows")
    claim.require(not denied.answered, f"{client} reaches the outside, which no policy allows")
    counted = enforcer.stopped(after, client, "from") - enforcer.stopped(middle, client, "from")
    claim.require(counted > 0, f"{place} on {node.name} has counted nothing of what {client} sends to the outside")
    session.facts_when(node, lambda seen: not enforcer.stopping(seen, client, "from"), *enforcer.FACTS)
    claim.require(
        session.request(client, session.external.url(path)).answered,
        f"{client} can't leave any more without the policy",
    )
    claim.saw(f"on {node.name} {place} stopped {counted} packets of {client} for the outside, {server} answers it")
