"""Chapter 6, NAT: ways in from outside: who answers ARP for a balancer's address (``tcpdump arp``), health checks."""

from __future__ import annotations

import pytest

from hoplab.expectations.loadbalancer import metallb
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS, Endpoint
from hoplab.observe.facts.api_services import API_SERVICES, ApiService
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import leftovers, workload
from hoplab.verify.claims import Claim, counted, listed
from hoplab.verify.session import LabSession

pytestmark = pytest.mark.remedy("kubectl get services -A -o wide")


@pytest.mark.beside_scaling
@pytest.mark.needs(nodes=2, own_lab=True, kube_proxy=True)  # Cilium serves it once the service has an address
@pytest.mark.rests_on("nodes_are_ready_with_a_range_each")
def test_the_health_check_port_tells_where_pods_are(session: LabSession, claim: Claim) -> None:
    """For a Local service each node serves a health check port: 200 when it runs a pod of the service, otherwise
    503."""
    home, seen = session.single.node, []
    for node in session.snapshot.nodes:
        url = f"http://{node.address}:{workload.HEALTH_PORT}/healthz"
        status = session.status_from_outside(url)
        wanted = 200 if node is home else 503
        runs = "runs" if node is home else "does not run"
        claim.require(
            status == wanted, f"{node.name}, which {runs} {session.single}, answers {status or 'nothing'} on {url}"
        )
        seen.append(f"{status} from {node.name}, which {runs} it")
    claim.saw(f"asked for {session.single} on port {workload.HEALTH_PORT}: {listed(seen)}")


@pytest.mark.needs(load_balancer="metallb", own_lab=True)
def test_the_load_balancer_gives_addresses_of_its_pool(lab: Snapshot, claim: Claim) -> None:
    """A service of type LoadBalancer gets its own address from the pool, which no interface has."""
    owners = {
        entry.address: f"{entry.dev} of {place}" for place, facts in lab.places.items() for entry in facts[ADDRESSES]
    }
    owners |= {address: name for name, address in lab.setting.nodes.items()} | {lab.setting.gateway: "the host end"}
    services = [
        service
        for service in lab.api[API_SERVICES]
        if service.kind == "LoadBalancer"
        and not service.balancer_class
        and (service.cluster_ip or not service.cluster_ip6)
    ]
    claim.require(services, "there is no service that asks the load balancer for an address")
    for service in services:
        claim.require(len(service.balancer_ips) == 1, f"{service} has {counted(len(service.balancer_ips), 'address')}")
        (address,) = service.balancer_ips
        claim.require(
            lab.setting.pool and address in lab.setting.pool, f"{address} of {service} is not of {lab.setting.pool}"
        )
        claim.require(address not in owners, f"{address} of {service} is the address of {owners.get(address)}")
        owners[address] = str(service)
    given = listed(f"{service} has {service.balancer_ips[0]}" for service in services)
    claim.saw(f"{given}, of {lab.setting.pool}; no interface has them")


@pytest.mark.needs(load_balancer="metallb")
@pytest.mark.remedy("kubectl get nodes -L node.kubernetes.io/exclude-from-external-load-balancers")
def test_a_node_may_announce_each_address(lab: Snapshot, claim: Claim) -> None:
    """A node with the label node.kubernetes.io/exclude-from-external-load-balancers announces no address; for each
    service another one is left, with a pod of it where the policy is Local."""
    excluded = {node.name for node in lab.nodes if metallb.EXCLUDED in dict(node.api.labels)}
    seen = []
    for service in lab.api[API_SERVICES]:
        if (service.kind, service.balancer_class) == ("LoadBalancer", ""):
            may = {node.name for node in lab.nodes}
            if service.external_policy == "Local":
                may &= {end.node for end in lab.api[API_ENDPOINTS] if end.ready and _is_of(end, service)}
            claim.require(
                may - excluded or not may,
                f"no node announces the address of {service}: {listed(sorted(may))} has the label {metallb.EXCLUDED}",
            )
            seen.append(f"{listed(sorted(may - excluded))} may announce that of {service}")
    claim.saw(listed(seen))


def _is_of(endpoint: Endpoint, service: ApiService) -> bool:
    return (endpoint.namespace, endpoint.service) == (service.namespace, service.name)


@pytest.mark.beside_scaling
@pytest.mark.needs(load_balancer="metallb", nodes=2, own_lab=True)
@pytest.mark.rests_on("the_load_balancer_gives_addresses_of_its_pool", "a_node_may_announce_each_address")
def test_one_node_answers_arp_for_a_balancers_address(session: LabSession, claim: Claim) -> None:
    """The ARP request for a load balancer's address reaches all nodes; one answers with its own MAC, chosen by a
    hash."""
    address = session.announced("announced")
    heard = session.who_has(address)
    for node, packets in heard.items():
        claim.require(
            any(packet.arp_op == 1 for packet in packets), f"nobody asks {node.name} who has {address}", *packets
        )
    replies = {node.name: session.arp_reply_from(node, packets, address) for node, packets in heard.items()}
    answers = {name: reply for name, reply in replies.items() if reply}
    claim.require(
        len(answers) == 1, f"{listed(answers) if answers else 'no node'} answers ARP for {address}", *answers.values()
    )
    ((name, answer),) = answers.items()
    may = [node.name for node in session.snapshot.nodes if metallb.EXCLUDED not in dict(node.api.labels)]
    expected = metallb.announcer(address, may)
    claim.require(name == expected, f"{name} answers ARP for {address}, not {expected}", answer)
    known = session.external.neighbour(address)
    claim.require(
        known == answer.eth_src, f"the host end takes {known or 'no MAC'} for {address}, not {answer.eth_src}"
    )
    claim.saw(f"all nodes were asked, {name} said `{answer}`, and the host end believes it")


@pytest.mark.beside_scaling
@pytest.mark.needs(load_balancer="metallb", own_lab=True, kube_proxy=True)
@pytest.mark.rests_on("one_node_answers_arp_for_a_balancers_address", "a_load_balancers_address_reaches_the_pods")
@pytest.mark.rests_on("nothing_drops_what_comes_in_by_a_load_balancer")
def test_an_announced_address_reaches_the_pods(session: LabSession, claim: Claim) -> None:
    """A client outside reaches a pod by the load balancer's address, through the node that answered ARP for it."""
    address, service = session.announced("announced"), session.service("announced")
    answer = session.request_from_outside(f"http://{address}:{service.port}/")
    claim.require(answer, f"{address} does not answer from outside")
    assert answer
    behind = {endpoint.address for endpoint in service.endpoints}
    claim.require(answer.local in behind, f"{answer.local} answered for {address}, which is not behind it", *behind)
    mac = session.external.neighbour(address)
    way = next((node for node in session.snapshot.nodes if (link := node.link("eth0")) and link.mac == mac), None)
    claim.require(way, f"{mac or 'no MAC'}, which the host end sends to, is no node's")
    assert way
    own = {entry.address for entry in way[ADDRESSES]}
    claim.require(answer.remote in own, f"the pod saw {answer.remote}, which is no address of {way.name}", *own)
    flows = [flow for flow in session.flows(way, session.snapshot.setting.gateway) if flow.original.dst == str(address)]
    claim.require(
        flows and flows[-1].destination_translated and flows[-1].source_translated,
        f"conntrack on {way.name} has no entry for {address} with DNAT and SNAT",
        *flows,
    )
    claim.saw(f"by way of {way.name} {answer.pod} on {answer.node} saw {answer.remote}; conntrack has {flows[-1]}")


@pytest.mark.beside_scaling
@pytest.mark.needs(load_balancer="metallb", nodes=2, own_lab=True, kube_proxy=True)
@pytest.mark.rests_on("one_node_answers_arp_for_a_balancers_address", "the_local_policy_keeps_the_clients_address")
def test_a_local_service_is_announced_where_its_pod_is(session: LabSession, claim: Claim) -> None:
    """With externalTrafficPolicy: Local a node with a pod answers ARP, and the pod sees the client's address."""
    address, home, client = session.announced("announced-local"), session.single.node, session.snapshot.setting.gateway
    heard = session.who_has(address)
    replies = {node.name: session.arp_reply_from(node, packets, address) for node, packets in heard.items()}
    answers = {name: reply for name, reply in replies.items() if reply}
    claim.require(
        list(answers) == [home.name],
        f"{listed(answers) if answers else 'no node'} answers ARP for {address}, whose pod is on {home.name}",
        *answers.values(),
    )
    answer = session.request_from_outside(f"http://{address}/")
    claim.require(answer, f"{address} does not answer from outside")
    claim.require(answer and answer.remote == client, f"{session.single} saw {answer and answer.remote}, not {client}")
    flows = [flow for flow in session.flows(home, client) if flow.original.dst == str(address)]
    claim.require(
        flows and flows[-1].destination_translated and not flows[-1].source_translated,
        f"conntrack on {home.name} has no entry for {address} with DNAT and without SNAT",
        *flows,
    )
    claim.saw(f"{home.name} answers for {address}, {session.single} saw {client}; conntrack has {flows[-1]}")


def test_host_ports_lead_to_pods(lab: Snapshot, claim: Claim) -> None:
    """A port of a node that a pod has taken (hostPort) leads to this pod: no rule is left of one that is gone, for it
    would take the port from the next pod."""
    rules = 0
    for node in lab.nodes:
        dead = leftovers.dead_host_ports(lab, node)
        claim.require(
            not dead,
            f"`{dead[0].rule}` on {node.name} leads to {dead[0].to}, which no pod there has" if dead else "",
            *(port.rule for port in dead),
        )
        rules += len(leftovers.host_ports(node))
    claim.saw(f"{counted(rules, 'rule')} for host ports on {counted(len(lab.nodes), 'node')}, each to a pod there")
