"""Chapter 7, what drops a packet: every hook on its way, in ``iptables-save -c``, ``iptables-legacy-save -c`` and
``nft list ruleset``."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from itertools import permutations

import pytest

from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS
from hoplab.observe.facts.api_services import API_SERVICES, ApiService
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
DECIDES = "a_program_decides_about_queued_packets"
BETWEEN_PODS = ("nothing_on_the_way_drops_it_on_one_node", "nothing_on_the_way_drops_it_between_nodes")
API_SERVICE = ("default", "kubernetes")
DNS_PORT = 53


def _pods(lab: Snapshot) -> list[Pod]:
    """Return the pods of the verification workload, which no policy forbids anything; otherwise those of CoreDNS."""
    found = [pod for pod in lab.pods if pod.api.namespace == workload.NAMESPACE]
    return found or [pod for pod in lab.pods if pod.api.label("k8s-app") == "kube-dns" and lab.setting.foreign]


def _port(pods: Iterable[Pod]) -> int:
    return workload.PORT if any(pod.api.namespace == workload.NAMESPACE for pod in pods) else DNS_PORT


def _require_some(lab: Snapshot, found: Sized, what: str) -> None:
    """Skip the lesson on a cluster that hoplab did not make where nothing is to be looked at."""
    if lab.setting.foreign and not found:
        pytest.skip(f"needs {what} of CoreDNS or of the verification workload, which only --traffic creates")


def _services(lab: Snapshot, *names: str) -> list[ApiService]:
    """Return those of the workload's services that the lab has."""
    return [found for found in lab.api[API_SERVICES] if found.namespace == workload.NAMESPACE and found.name in names]


@pytest.mark.needs(facts=packet_paths.FACTS)
@pytest.mark.rests_on(DECIDES)
def test_nothing_on_the_way_drops_it_on_one_node(lab: Snapshot, claim: Claim) -> None:
    """From pod to pod of one node, no rule of any table at any hook drops a packet or its reply."""
    pods = _pods(lab)
    pairs = [(pod, other) for pod, other in permutations(pods, 2) if pod.node is other.node]
    _require_some(lab, pairs, "two pods on one node")
    found = packet_paths.checked(packet_paths.between_pods(*pair, _port(pods)) for pair in pairs)
    claim.require(not found.drops, found.why, *found.evidence)
    claim.saw(f"between {counted(len(pairs), 'pair')} of pods {found}")


@pytest.mark.needs(nodes=2, facts=packet_paths.FACTS)
@pytest.mark.rests_on("nothing_on_the_way_drops_it_on_one_node", DECIDES)
def test_nothing_on_the_way_drops_it_between_nodes(lab: Snapshot, claim: Claim) -> None:
    """From pod to pod of another node, no rule of either node drops a packet, its reply, or what wraps it."""
    pods = _pods(lab)
    pairs = [(pod, other) for pod, other in permutations(pods, 2) if pod.node is not other.node]
    _require_some(lab, pairs, "pods on two nodes")
    found = packet_paths.checked(packet_paths.between_pods(*pair, _port(pods)) for pair in pairs)
    claim.require(not found.drops, found.why, *found.evidence)
    claim.saw(f"between {counted(len(pairs), 'pair')} of pods {found}")


@pytest.mark.needs(facts=packet_paths.FACTS)
def test_nothing_drops_what_a_pod_sends_to_its_node(lab: Snapshot, claim: Claim) -> None:
    """No rule of a node drops what its pods send to the kubelet there, or the replies."""
    pods = _pods(lab)
    _require_some(lab, pods, "a pod")
    found = packet_paths.checked(packet_paths.to_own_node(pod) for pod in pods)
    claim.require(not found.drops, found.why, *found.evidence)
    claim.saw(f"of {counted(len(pods), 'pod')} {found}")


@pytest.mark.needs(facts=packet_paths.FACTS)
@pytest.mark.rests_on(*BETWEEN_PODS, DECIDES)
def test_nothing_drops_what_a_pod_sends_to_the_outside(lab: Snapshot, claim: Claim) -> None:
    """No rule of a node drops what its pods send out of the cluster, or the replies, which come for the node itself."""
    pods, outside = _pods(lab), lab.setting.gateway
    _require_some(lab, pods, "a pod")
    found = packet_paths.checked(packet_paths.to_outside(pod, outside) for pod in pods)
    claim.require(not found.drops, found.why, *found.evidence)
    claim.saw(f"from {counted(len(pods), 'pod')} to {outside} {found}")


@pytest.mark.needs(service="echo", facts=packet_paths.FACTS)
@pytest.mark.rests_on(*BETWEEN_PODS, DECIDES, "a_service_is_found_in_a_map", "one_rule_draws_one_of_the_endpoints")
def test_nothing_drops_what_a_node_sends_to_a_service(lab: Snapshot, claim: Claim) -> None:
    """From a node to a ClusterIP, no rule drops a packet, also after its translation, or the reply of any endpoint."""
    (service,) = _services(lab, "echo")
    found = packet_paths.checked(
        packet_paths.from_node(lab, node, service.cluster_ip, service.ports[0].port)
        for node in lab.nodes
        if service.cluster_ip
    )
    claim.require(not found.drops, found.why, *found.evidence)
    claim.saw(f"from {counted(len(lab.nodes), 'node')} to {service} {found}")


@pytest.mark.needs(service="single", facts=packet_paths.FACTS)
@pytest.mark.rests_on(*BETWEEN_PODS, DECIDES)
def test_nothing_drops_what_comes_in_by_a_node_port(lab: Snapshot, claim: Claim) -> None:
    """From outside to a NodePort of any node, no rule drops a packet, also after its translation, or its reply."""
    (service,) = _services(lab, "single")
    port = service.ports[0].node_port or workload.NODE_PORT
    found = packet_paths.checked(packet_paths.from_outside(lab, node, node.address, port) for node in lab.nodes)
    claim.require(not found.drops, found.why, *found.evidence)
    claim.saw(f"by {counted(len(lab.nodes), 'node')} to port {port} {found}")


@pytest.mark.needs(service="balanced", facts=packet_paths.FACTS, own_lab=True)
@pytest.mark.rests_on(*BETWEEN_PODS, DECIDES)
def test_nothing_drops_what_comes_in_by_a_load_balancer(lab: Snapshot, claim: Claim) -> None:
    """From outside to a load balancer's address, at any node, no rule drops a packet, also translated, or its reply."""
    ways = [
        (node, address, service.ports[0].port)
        for service in _services(lab, "balanced", "announced")
        for address in service.balancer_ips
        for node in lab.nodes
    ]
    found = packet_paths.checked(packet_paths.from_outside(lab, *way) for way in ways)
    claim.require(not found.drops, found.why, *found.evidence)
    claim.saw(f"to {counted(len({address for _, address, _ in ways}), 'address')} {found}")


@pytest.mark.needs(facts=packet_paths.FACTS)
def test_nothing_drops_what_the_api_server_sends_to_kubelets(lab: Snapshot, claim: Claim) -> None:
    """No rule drops what the API server sends to the kubelet of another host: `kubectl logs` and `exec` work."""
    servers = [found for found in lab.api[API_ENDPOINTS] if (found.namespace, found.service) == API_SERVICE]
    found = packet_paths.checked(
        packet_paths.to_kubelet(lab, node, server.address) for server in servers for node in lab.nodes
    )
    claim.require(not found.drops, found.why, *found.evidence)
    claim.saw(f"from {' and '.join(str(server.address) for server in servers)} {found}")


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
