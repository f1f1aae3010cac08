"""Chapter 7, iptables: services, ``iptables-save -t nat``, and ``nft list table ip kube-proxy`` in that mode."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hoplab.core.ip import IPAddress
from hoplab.expectations import cni, proxy
from hoplab.expectations.cni import calico
from hoplab.expectations.proxy import iptables as iptables_mode
from hoplab.netfilter.packet import Packet
from hoplab.netfilter.ruleset import HasFacts, filtered, postrouting, prerouting
from hoplab.observe.capture import Capture
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import workload
from hoplab.verify.claims import Claim, counted, listed
from hoplab.verify.remedies import RESTART_KUBE_PROXY
from hoplab.verify.session import LabSession

pytestmark = pytest.mark.remedy("ssh {node} sudo {service_rules}")

ICMP_UNREACHABLE = 3  # ICMP's type


@pytest.mark.needs(kube_proxy=True)
@pytest.mark.rests_on(
    "services_have_a_range_of_their_own", "only_rules_know_a_cluster_ip", "one_rule_draws_one_of_the_endpoints"
)
@pytest.mark.remedy("ssh {node} sudo {service_rules}", mends=RESTART_KUBE_PROXY)
def test_a_service_leads_to_its_endpoints(lab: Snapshot, claim: Claim) -> None:
    """A connection to a ClusterIP passes the service's chain and ends at one of its pods, and nowhere else."""
    client, mode = lab.setting.pod_cidr[-2], proxy.of(lab)  # some pod; none of those behind the services
    services = [service for service in proxy.expectations(lab) if service.endpoints]
    for node in lab.nodes:
        for service in (service.on(node.name) for service in services):
            ends = prerouting(node, proxy.connection(client, service))
            found = {end.to: _of_the_proxy(end.chains) for end in ends if end.verdict == "DNAT"}
            wanted = {endpoint.to: mode.way(service, endpoint) for endpoint in service.endpoints}
            other = dict.fromkeys(chain for chains in found.values() for chain in chains)
            by = f" by {listed(other)}" if found and found.keys() == wanted.keys() else ""
            claim.require(
                found == wanted,
                f"on {node.name} {service} leads to {listed(found)}{by}, not to {listed(wanted)} by {service.chain}",
                *(rule for end in ends for rule in end.path),
            )
            claim.require(
                not wanted or all(end.verdict == "DNAT" for end in ends),
                f"on {node.name} {service} may also lead nowhere",
            )
    way = mode.way(services[-1], services[-1].endpoints[0])
    claim.saw(
        f"{counted(len(services), 'service port')} on {counted(len(lab.nodes), 'node')}, for one: "
        f"{services[-1]} by {', '.join(way)} to {listed(endpoint.to for endpoint in services[-1].endpoints)}"
    )


def _of_the_proxy(chains: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(chain for chain in chains if not chain.startswith(calico.FELIX))


@pytest.mark.needs(kube_proxy=True)
@pytest.mark.rests_on("a_service_leads_to_its_endpoints")
@pytest.mark.remedy("ssh {node} sudo {service_rules}", mends=RESTART_KUBE_PROXY)
def test_every_endpoint_gets_the_same_share(lab: Snapshot, claim: Claim) -> None:
    """Every endpoint of a service has the same probability: the rules take 1/n, 1/(n-1), ... of the remaining
    connections."""
    client, mode, shared = lab.setting.pod_cidr[-2], proxy.of(lab), []
    for node in lab.nodes:
        for service in (service.on(node.name) for service in proxy.expectations(lab)):
            found = {to: end.probability for to, end in proxy.ways(node, client, service).items()}
            wanted = {endpoint.to: 1 / len(service.endpoints) for endpoint in service.endpoints}
            claim.require(
                found.keys() == wanted.keys() and all(abs(found[to] - wanted[to]) < DICE for to in wanted),
                f"on {node.name} the shares of {service} are {_shares(found)}, not {_shares(wanted)}",
                *mode.rules(node, service.chain),
            )
            if len(wanted) > 1:
                shared.append((f"{service}: {_shares(found)}", mode.rules(node, service.chain)))
    example, rules = shared[0] if shared else ("no service has more than one endpoint: each takes all", ())
    claim.saw(example, *rules)


DICE = 1e-6  # iptables keeps probabilities as 31-bit integers


def _shares(found: dict[str, float]) -> str:
    return listed(f"{probability:.2f} for {to}" for to, probability in sorted(found.items()))


@pytest.mark.needs(kube_proxy=True)
@pytest.mark.rests_on("a_service_leads_to_its_endpoints")
@pytest.mark.remedy("ssh {node} sudo {service_rules}", mends=RESTART_KUBE_PROXY)
def test_marked_packets_are_masked(lab: Snapshot, claim: Claim) -> None:
    """Packets to a ClusterIP from outside of the pod range are marked, and marked packets are masqueraded in
    POSTROUTING."""
    stranger, mode = lab.setting.gateway, proxy.of(lab)
    services = [service for service in proxy.expectations(lab) if service.endpoints]
    for node in lab.nodes:
        for service in (service for service in services if service.on(node.name).endpoints):
            for end in prerouting(node, proxy.connection(stranger, service)):
                claim.require(
                    end.packet.mark & proxy.MASQUERADE_MARK,
                    f"on {node.name} a packet of {stranger} to {service} is not marked",
                    *end.path,
                )
        for end in postrouting(node, Packet(stranger, lab.setting.pod_cidr[5], mark=proxy.MASQUERADE_MARK)):
            claim.require(
                end.verdict == "MASQUERADE" and end.last and end.last.chain == mode.MASKING,
                f"on {node.name} {listed(end.chains)} end a marked packet with {end.verdict}, not {mode.MASKING}",
                *end.path,
            )
            claim.require(not end.packet.mark, f"on {node.name} the mark {end.packet.mark:#x} stays on the packet")
    claim.saw(
        f"{stranger} to any of {counted(len(services), 'service port')} is marked {proxy.MASQUERADE_MARK:#x}, "
        f"and {mode.MASKING} masks it"
    )


@pytest.mark.needs(kube_proxy=True)
@pytest.mark.rests_on("marked_packets_are_masked", "a_service_is_found_in_a_map")
@pytest.mark.remedy("ssh {node} sudo {service_rules}", mends=RESTART_KUBE_PROXY)
def test_node_ports_come_last(lab: Snapshot, claim: Claim) -> None:
    """NodePorts are matched last, for packets to the node's own addresses, and lead to the service's pods."""
    mode = proxy.of(lab)
    services = [
        service for service in proxy.expectations(lab) if service.node_port and service.external_policy == "Cluster"
    ]
    for node in lab.nodes:
        rules = mode.rules(node, mode.LOOKUP)
        claim.require(
            rules and mode.asks_node_ports(rules[-1]),
            f"the last rule of {mode.LOOKUP} on {node.name} is not for the node's own addresses",
            *rules[-1:],
        )
        for service in services:
            packet = Packet(lab.setting.gateway, node.address, service.protocol, service.node_port, dst_is_local=True)
            for end in prerouting(node, packet):
                claim.require(
                    end.verdict == "DNAT" and mode.node_port_way(service) <= set(end.chains),
                    f"on {node.name} port {service.node_port} ends in {end.verdict} by {listed(end.chains)}",
                    *end.path,
                )
                claim.require(end.packet.mark, f"on {node.name} what comes to port {service.node_port} is not marked")
    claim.saw(
        listed(f"port {service.node_port} goes by {service.external_chain} to {service.chain}" for service in services)
    )


@pytest.mark.needs(nodes=2, workload_pods=True, kube_proxy=True)
@pytest.mark.rests_on("node_ports_come_last")
@pytest.mark.remedy("ssh {node} sudo {service_rules}", mends=RESTART_KUBE_PROXY)
def test_a_local_service_stays_on_its_node(lab: Snapshot, claim: Claim) -> None:
    """With externalTrafficPolicy: Local a node sends to its own pods only and marks nothing; a node without a pod drops
    the packet."""
    stranger = lab.setting.gateway
    services = [
        service for service in proxy.expectations(lab) if service.node_port and service.external_policy == "Local"
    ]
    claim.require(services, "no service has the external policy Local; verification makes one that has")
    for node in lab.nodes:
        for service in services:
            packet = Packet(stranger, node.address, service.protocol, service.node_port, dst_is_local=True)
            own = {endpoint.to for endpoint in service.endpoints if endpoint.node == node.name}
            ends = prerouting(node, packet)
            found = {end.to for end in ends if end.verdict == "DNAT"}
            claim.require(
                found == own,
                f"on {node.name} port {service.node_port} leads to {listed(found)}, not to its own {listed(own)}",
                *(rule for end in ends for rule in end.path),
            )
            for end in ends if own else ():
                claim.require(
                    not end.packet.mark, f"on {node.name} what comes to port {service.node_port} is marked", *end.path
                )
            for end in () if own else filtered(node, "input", packet):
                claim.require(
                    end.verdict == "DROP",
                    f"{node.name}, without a pod of {service}, ends port {service.node_port} in {end.verdict}",
                    *end.path,
                )
    homes = {endpoint.node for service in services for endpoint in service.endpoints}
    claim.saw(f"{listed(services)} is answered by {listed(sorted(homes))} only, and dropped elsewhere")


@pytest.mark.needs(service="sticky", kube_proxy=True)
@pytest.mark.rests_on("a_service_leads_to_its_endpoints")
@pytest.mark.remedy("ssh {node} sudo {service_rules}", mends=RESTART_KUBE_PROXY)
def test_a_sticky_service_remembers_its_clients(lab: Snapshot, claim: Claim) -> None:
    """With sessionAffinity: ClientIP the clients of each endpoint are recorded for a while; rules match them before the
    random choice."""
    client, mode = lab.setting.pod_cidr[-2], proxy.of(lab)
    services = [service for service in proxy.expectations(lab) if service.affinity]
    claim.require(services, "no service has session affinity; verification makes one that has")
    for node in lab.nodes:
        for service in services:
            wanted = {endpoint.to: service.affinity for endpoint in service.endpoints}
            found = mode.remembers(node, service)
            claim.require(
                found == wanted,
                f"on {node.name} {service} keeps clients by {listed(f'{to} {for_} s' for to, for_ in found.items())}",
                *mode.rules(node, service.chain),
            )
            known = replace(proxy.connection(client, service), known=True)
            kept = {end.to for end in prerouting(node, known) if end.verdict == "DNAT" and end.probability == 1}
            claim.require(
                wanted.keys() == kept,
                f"on {node.name} a client that {service} knows is sent by lot, not to the one of before",
                *mode.rules(node, service.chain),
            )
    claim.saw(listed(f"{service} keeps a client for {service.affinity} s" for service in services))


@pytest.mark.needs(service="sticky")
@pytest.mark.rests_on("a_sticky_service_remembers_its_clients", "a_cluster_ip_is_a_pod_chosen_per_connection")
def test_a_client_stays_with_its_endpoint(session: LabSession, claim: Claim) -> None:
    """A client of a service with session affinity reaches the same pod every time."""
    service, client, connections = session.service("sticky"), session.client, 24
    answers = session.request(client, f"http://{service.cluster_ip}:{service.port}/[1-{connections}]").answers
    claim.require(
        len(answers) == connections, f"{len(answers)} of {connections} connections to {service} were answered"
    )
    reached = {str(answer.local) for answer in answers}
    claim.require(len(reached) == 1, f"{connections} connections of {client} to {service} reached {listed(reached)}")
    claim.saw(
        f"{connections} connections of {client} to {service}, which has {counted(len(service.endpoints), 'endpoint')}, "
        f"reached {listed(reached)}"
    )


@pytest.mark.needs(proxy="iptables")
def test_portals_are_gone(lab: Snapshot, claim: Claim) -> None:
    """The chains KUBE-PORTALS-* of older texts no longer exist: they belonged to kube-proxy's userspace mode."""
    chains = 0
    for node in lab.nodes:
        for table in node[IPTABLES].tables:
            names = node[IPTABLES].chains(table)
            found = [name for name in names if name.startswith(iptables_mode.GONE)]
            claim.require(not found, f"{table} on {node.name} has {listed(found)}")
            chains += len(names)
    claim.saw(f"none among {counted(chains, 'chain')}")


@pytest.mark.needs(workload_pods=True, kube_proxy=True)
@pytest.mark.rests_on("kube_proxy_hooks_in_its_chains", "kube_proxys_table_is_called_by_the_kernel")
@pytest.mark.remedy("ssh {node} sudo {service_rules}", mends=RESTART_KUBE_PROXY)
def test_a_service_without_endpoints_rejects(lab: Snapshot, claim: Claim) -> None:
    """A service without endpoints has no chain; a rule of the filter table rejects its clients at once. A node drops
    connections to one with endpoints elsewhere only, where it may send to its own only."""
    client, mode = lab.setting.pod_cidr[-2], proxy.of(lab)
    empty = [service for service in proxy.expectations(lab) if not service.endpoints]
    claim.require(empty, "every service has endpoints; verification makes one that has none")
    for node in lab.nodes:
        for service in (service for service in proxy.expectations(lab) if not service.on(node.name).endpoints):
            verdict = "DROP" if service.endpoints else "REJECT"
            for hook in ("forward", "output"):
                for end in filtered(node, hook, proxy.connection(client, service)):
                    claim.require(
                        end.verdict == verdict,
                        f"{hook} on {node.name} ends in {end.verdict} for {service}, not in {verdict}",
                        *end.path,
                    )
            claim.require(not mode.rules(node, service.chain), f"{service} has rules in {service.chain}")
    claim.saw(f"{listed(empty)} is rejected at forward and output of {counted(len(lab.nodes), 'node')}")


@pytest.mark.rests_on(
    "a_service_without_endpoints_rejects", "the_host_end_is_a_port_of_the_bridge", "calicos_gateway_is_nobodys_address"
)
def test_a_refused_service_says_so_at_once(session: LabSession, claim: Claim) -> None:
    """The client's own node rejects a connection to a service without endpoints (ICMP port unreachable), so no client
    waits."""
    service, pod = session.service("nobody"), session.client
    claim.require(pod.host_end, f"{pod} has no veth pair")
    assert pod.host_end
    at_socket = not session.snapshot.setting.has_kube_proxy  # a program refuses there, before there is a packet
    wanted = f"host {service.cluster_ip}" if at_socket else f"icmp and dst host {pod.address}"
    answers = {"answers": Capture(pod.host_end.name, wanted)}
    asked = session.request(pod, f"http://{service.cluster_ip}:{service.port}/", answers)
    refused = 7  # curl: failed to connect; 28 would be a timeout
    claim.require(
        asked.output.code == refused,
        f"{pod} asked {service} and was not refused: {asked.output.err.strip() or asked.output.out}",
    )
    if at_socket:
        left = asked.packets["answers"]
        claim.require(not left, f"{pod} was not refused at its socket: packets left it for {service}", *left)
        claim.saw(f"{pod}: {asked.output.err.strip()}, at its socket; {pod.host_end.name} saw no packet of it")
        return
    own: set[IPAddress | None] = {entry.address for entry in pod.node[ADDRESSES]}
    if cni.by_programs(session.snapshot):  # the program at the pod's interface turns the packet round
        own.add(service.cluster_ip)
    said = [packet for packet in asked.packets["answers"] if packet.icmp_type == ICMP_UNREACHABLE and packet.src in own]
    claim.require(
        said, f"{pod.node.name} itself did not tell {pod} that {service} is unreachable", *asked.packets["answers"]
    )
    claim.saw(f"{pod}: {asked.output.err.strip()}; on {pod.host_end.name}: {said[0]}")


@pytest.mark.needs(kube_proxy=True)
@pytest.mark.rests_on(
    "services_have_a_range_of_their_own", "a_service_without_endpoints_rejects", "a_service_is_found_in_a_map"
)
@pytest.mark.remedy("ssh {node} sudo {service_rules}", mends=RESTART_KUBE_PROXY)
def test_only_rules_know_a_cluster_ip(lab: Snapshot, claim: Claim) -> None:
    """Every ClusterIP is in the rules of every node, whether or not a pod behind it runs there."""
    mode, wanted = proxy.of(lab), {service.cluster_ip for service in proxy.expectations(lab)}
    for node in lab.nodes:
        found = mode.cluster_ips(node)
        claim.require(wanted <= found, f"the rules of {node.name} lack {listed(wanted - found)}", *found)
    claim.saw(f"{counted(len(wanted), 'ClusterIP')} in the rules of {counted(len(lab.nodes), 'node')}")


@pytest.mark.watches_scaling
@pytest.mark.needs(kube_proxy=True)
@pytest.mark.rests_on("nodes_are_ready_with_a_range_each", "a_service_leads_to_its_endpoints")
def test_scaling_changes_the_endpoints_at_once(session: LabSession, claim: Claim) -> None:
    """When a deployment is scaled, the rules of every node follow its pods."""
    scaling = session.scaling()
    service, mode = session.service(scaling.deployment), proxy.of(session.snapshot)
    client, before, more = session.snapshot.setting.pod_cidr[-2], scaling.before, scaling.more

    def targets(rules: HasFacts) -> frozenset[str]:
        return proxy.targets(rules, client, service)

    def own_chains(endpoints: set[str]) -> set[str]:
        return {
            mode.endpoint_chain(service.service, service.protocol, endpoint, sticky=False) for endpoint in endpoints
        }

    for node, rules in scaling.grown.items():
        claim.require(
            targets(rules) == more,
            f"{service.chain} on {node} leads to {listed(sorted(targets(rules)))} for {counted(len(more), 'endpoint')}",
            *mode.rules(rules, service.chain),
        )
    for node, rules in scaling.shrunk.items():
        claim.require(
            targets(rules) == before,
            f"{service.chain} on {node} still leads to {listed(sorted(targets(rules) - before))} after scaling down",
            *mode.rules(rules, service.chain),
        )
        left = own_chains(more - before) & mode.chains(rules)
        claim.require(not left, f"{listed(sorted(left))} is still a chain of {node}, but its pod is gone")
    claim.saw(
        f"{service.chain} led to {listed(sorted(before))}, with one more pod also to {listed(sorted(more - before))}, "
        f"and not any more without it, on {counted(len(session.snapshot.nodes), 'node')}"
    )


@pytest.mark.needs(cni="flannel", policies=False)
@pytest.mark.rests_on("pods_of_one_node_need_no_gateway", "nothing_on_the_way_drops_it_between_nodes")
def test_a_policy_that_nobody_enforces_stops_nothing(session: LabSession, claim: Claim) -> None:
    """With a CNI that enforces no policies, such as flannel, a NetworkPolicy that denies everything has no effect."""
    client, url = session.client, f"http://{session.single.address}:{workload.PORT}/"
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny-all"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }
    before = session.rules()
    with session.created(f"/apis/networking.k8s.io/v1/namespaces/{workload.NAMESPACE}/networkpolicies", policy):
        asked = session.request(client, url)
        after = session.rules()
    claim.require(asked.answered, f"{session.single} does not answer {client}: {asked.why}")
    for node, rules in after.items():
        new = set(rules[IPTABLES].chains("nat")) - set(before[node][IPTABLES].chains("nat"))
        claim.require(not new, f"the policy made {listed(sorted(new))} on {node}")
    claim.saw(f"with deny-all in force for every pod of {workload.NAMESPACE}, {session.single} still answers {client}")
