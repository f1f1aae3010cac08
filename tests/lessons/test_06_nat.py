"""Chapter 6, NAT: ``iptables-save -c -t nat``, ``nft list ruleset``, ``conntrack -L``, and what the receiver saw."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from hoplab.expectations import cni
from hoplab.netfilter.packet import Packet
from hoplab.netfilter.ruleset import postrouting
from hoplab.observe.capture import Capture
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.routing import Flow, decide_on
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import workload
from hoplab.verify.claims import Claim, counted, listed
from hoplab.verify.remedies import RESTART_FLANNEL
from hoplab.verify.session import LabSession

pytestmark = pytest.mark.remedy("ssh {node} sudo conntrack -L")


@pytest.mark.rests_on("tables_and_their_hooks")
@pytest.mark.remedy("ssh {node} sudo nft list ruleset ip", mends=RESTART_FLANNEL, cni="flannel")
def test_what_leaves_the_pod_range_is_masqueraded(lab: Snapshot, claim: Claim) -> None:
    """The rules of POSTROUTING masquerade what a pod sends out of the cluster, but not what it sends to another pod."""
    for node in lab.nodes:
        for pod in lab.pods_on(node):
            for end in postrouting(node, Packet(pod.address, lab.setting.gateway, out_dev=node.uplink)):
                claim.require(
                    end.verdict == "MASQUERADE",
                    f"on {node.name} a packet of {pod} to {lab.setting.gateway} ends in {end.verdict}, not MASQUERADE",
                    *end.path,
                )
            for other in lab.pods:
                route = decide_on(node.facts, Flow(other.address)).route
                for end in postrouting(node, Packet(pod.address, other.address, out_dev=route.dev if route else "")):
                    claim.require(
                        end.verdict == "ACCEPT", f"on {node.name} a packet of {pod} to {other} is translated", *end.path
                    )
    claim.saw(f"so it is for {counted(len(lab.pods), 'pod')} in the rules of {counted(len(lab.nodes), 'node')}")


@pytest.mark.beside_scaling
@pytest.mark.needs(outside=True)
@pytest.mark.rests_on(
    "what_leaves_the_pod_range_is_masqueraded",
    "a_pods_gateway_is_its_nodes_bridge",
    "calicos_gateway_is_nobodys_address",
    "the_host_end_is_a_port_of_the_bridge",
    "the_longest_prefix_decides",
    "nodes_forward",
)
@pytest.mark.rests_on("nothing_drops_what_a_pod_sends_to_the_outside")
def test_the_outside_sees_the_nodes_address(lab: Snapshot, session: LabSession, claim: Claim) -> None:
    """A pod's packets leave the cluster with its node's address, and conntrack translates the replies back to the
    pod."""
    paths = {pod: session.unique_path() for pod in session.echo_pods}
    urls = {pod: session.external.url(path) for pod, path in paths.items()}
    for pod, asked in session.request_all(urls, rules=True).items():
        node = pod.node
        claim.require(asked.answered, f"{pod} gets no answer from the outside: {asked.why}")
        asker = session.external.client_of(paths[pod])
        claim.require(asker == node.address, f"the outside saw {asker}, not {node.address}, the address of {node.name}")
        end = postrouting(asked.before, Packet(pod.address, lab.setting.gateway, dport=session.external.port))[0]
        counts = asked.counted(end.last) if end.last else 0
        claim.require(
            end.verdict == "MASQUERADE" and counts != 0,
            f"no MASQUERADE rule on {node.name} counted the packet",
            *end.path,
        )
        flows = [flow for flow in asked.flows if flow.original.dport == session.external.port]
        claim.require(
            any(flow.reply.dst == str(node.address) for flow in flows),
            f"conntrack on {node.name} has no entry that sends replies for {node.address} on to {pod}",
            *flows,
        )
    claim.saw(
        f"{listed(f'{pod.address} was seen as {pod.node.address}' for pod in session.echo_pods)}; "
        f"on {node.name} it is `{end.last}` that says so, and conntrack has {flows[-1]}"
    )


@pytest.mark.beside_scaling
@pytest.mark.needs(nodes=2)
@pytest.mark.rests_on(
    "what_leaves_the_pod_range_is_masqueraded",
    "between_nodes_a_packet_travels_wrapped",
    "pods_of_one_node_need_no_gateway",
)
def test_pod_to_pod_is_never_translated(session: LabSession, claim: Claim) -> None:
    """From pod to pod, also across nodes, the receiver sees the sender's own address."""
    seen, by_programs = [], cni.by_programs(session.snapshot)
    pairs = dict(zip(session.echo_pods, (*session.echo_pods[1:], session.echo_pods[0]), strict=True))
    asked_all = session.request_all({pod: f"http://{other.address}:{workload.PORT}/" for pod, other in pairs.items()})
    for pod, other in pairs.items():
        asked, answer = asked_all[pod], asked_all[pod].answer
        claim.require(
            answer.remote == pod.address,
            f"{other} on {other.node.name} saw {answer.remote}, not {pod.address} of {pod}",
        )
        claim.require(answer.node == other.node.name, f"{answer.pod} on {answer.node} answered for {other}")
        if by_programs:
            tracked = session.tracked(pod.node, pod.address)
            ours = [entry for entry in tracked if (entry.kind, entry.dst) == ("OUT", other.address)]
            claim.require(
                any(not entry.service for entry in ours),
                f"the map of {pod.node.name} has no untranslated connection of {pod.address} to {other.address}",
                *tracked,
            )
        else:
            flows = [flow for flow in asked.flows if flow.original.dst == str(other.address)]
            claim.require(
                flows and not any(flow.source_translated or flow.destination_translated for flow in flows),
                f"conntrack on {pod.node.name} has no untranslated entry for {pod.address} to {other.address}",
                *asked.flows,
            )
        seen.append(f"{other} on {other.node.name} saw {answer.remote}, the address of {pod} on {pod.node.name}")
    claim.saw(listed(seen))


@pytest.mark.beside_scaling
@pytest.mark.rests_on(
    "services_have_a_range_of_their_own",
    "pod_to_pod_is_never_translated",
    "a_cluster_ip_is_a_pod_chosen_per_connection",
)
def test_kube_dns_answers_a_pod(lab: Snapshot, session: LabSession, claim: Claim) -> None:
    """kube-dns resolves a service's name for a pod and answers from its ClusterIP."""
    name = "kubernetes.default.svc.cluster.local"
    query = f"dig +short +time=5 +tries=2 @{lab.setting.dns_ip} {name}"
    for pod, answer in session.run_all(session.echo_pods, query).items():
        claim.require(
            answer.out.split() == [str(lab.setting.api_service_ip)],
            f"{pod} asked {lab.setting.dns_ip} for {name} and got: {(answer.out + answer.err).strip() or 'nothing'}",
        )
    claim.saw(f"{listed(session.echo_pods)} asked {lab.setting.dns_ip} and got {lab.setting.api_service_ip} for {name}")


@pytest.mark.beside_scaling
@pytest.mark.rests_on(
    "a_service_leads_to_its_endpoints",
    "every_endpoint_gets_the_same_share",
    "no_interface_owns_a_cluster_ip",
    "pod_to_pod_is_never_translated",
)
def test_a_cluster_ip_is_a_pod_chosen_per_connection(session: LabSession, claim: Claim) -> None:
    """A ClusterIP is translated (DNAT) to one of its pods, chosen per connection; the client's address stays."""
    service, client = session.service("echo"), session.client
    behind = {endpoint.address for endpoint in service.endpoints}
    connections = 24  # with two pods behind the service, all 24 reach the same one once in eight million runs
    asked = session.request(client, f"http://{service.cluster_ip}:{service.port}/[1-{connections}]")
    answers = asked.answers
    claim.require(
        len(answers) == connections, f"{len(answers)} of {connections} connections to {service} were answered"
    )
    for answer in answers:
        claim.require(answer.local in behind, f"{answer.local} answered for {service}, which is not behind it", *behind)
        own = answer.local == client.address  # the pod reached itself: then an address of its node stands for it
        claim.require(
            own or answer.remote == client.address,
            f"{answer.pod} saw {answer.remote}, not the client's {client.address}",
        )
    reached = {str(answer.local) for answer in answers}
    claim.require(len(behind) == 1 or len(reached) > 1, f"all {connections} connections reached {listed(reached)}")
    if not session.snapshot.setting.has_kube_proxy:
        where = "its socket was given the pod's address, before there was a packet"
    elif cni.by_programs(session.snapshot):
        tracked = session.tracked(client.node, client.address)
        ours = [entry for entry in tracked if (entry.kind, entry.dst) == ("SVC", service.cluster_ip)]
        claim.require(ours, f"the map of {client.node.name} has no connection to {service}", *tracked)
        where = f"Cilium's map has {ours[-1]}"
    else:
        flows = [flow for flow in asked.flows if flow.original.dst == str(service.cluster_ip)]
        claim.require(
            flows and all(flow.destination_translated for flow in flows),
            f"conntrack on {client.node.name} has no translated entry for {service}",
            *asked.flows,
        )
        where = f"conntrack has {flows[-1]}"
    claim.saw(f"{connections} connections to {service} reached {listed(sorted(reached))}; {where}")


@pytest.mark.needs(nodes=2, kube_proxy=True)
@pytest.mark.rests_on("a_cluster_ip_is_a_pod_chosen_per_connection")
def test_the_destination_changes_on_the_way(session: LabSession, claim: Claim) -> None:
    """A pod sends to the ClusterIP, its node translates the destination to a pod, and the reply comes back from the
    ClusterIP."""
    service, server = session.service("single"), session.single
    client = next(pod for pod in session.echo_pods if pod.node is not server.node)
    way = decide_on(client.node.facts, Flow(server.address)).route
    claim.require(client.host_end and way, f"{client.node.name} has no route to {server}, or {client} no veth pair")
    assert client.host_end and way
    tunnel = cni.expectations(session.snapshot)[client.node.name].tunnel
    leaves = tunnel.dev if tunnel else way.dev  # a program needs no route
    asked = session.request(
        client,
        f"http://{service.cluster_ip}:{service.port}/",
        {
            "pod": Capture(client.host_end.name, f"tcp and host {client.address}"),
            "node": Capture(leaves, f"tcp and host {client.address}"),
        },
    )
    claim.require(asked.answered, f"{service} does not answer {client}: {asked.why}")
    before = [packet for packet in asked.packets["pod"] if packet.src == client.address]
    after = [packet for packet in asked.packets["node"] if packet.src == client.address]
    replies = [packet for packet in asked.packets["pod"] if packet.dst == client.address]
    for found, wanted, where in (
        (before, (service.cluster_ip, service.port), client.host_end.name),
        (after, (server.address, workload.PORT), leaves),
    ):
        claim.require(
            found and all((packet.dst, packet.dport) == wanted for packet in found),
            f"on {where} of {client.node.name} not everything is for {wanted[0]}:{wanted[1]}",
            *found,
        )
    claim.require(
        replies and all((packet.src, packet.sport) == (service.cluster_ip, service.port) for packet in replies),
        f"not every reply to {client} comes from {service.cluster_ip}:{service.port}",
        *replies,
    )
    claim.saw(f"{client.host_end.name}: {before[0]}; {leaves}: {after[0]}; {client.host_end.name}: {replies[0]}")


@pytest.mark.beside_scaling
@pytest.mark.needs(outside=True)
@pytest.mark.rests_on("node_ports_come_last", "pod_to_pod_is_never_translated")
@pytest.mark.rests_on("nothing_drops_what_comes_in_by_a_node_port")
def test_a_node_port_answers_on_every_node(session: LabSession, claim: Claim) -> None:
    """Every node translates a NodePort to a pod, even a node that runs none of them, and masquerades the client."""
    service, seen = session.service("single"), []
    for node in session.snapshot.nodes:
        answer = session.request_from_outside(f"http://{node.address}:{service.node_port}/")
        claim.require(answer, f"{node.name} does not answer on {service.node_port}")
        assert answer
        claim.require(
            answer.local == session.single.address,
            f"{answer.local} answered on {node.name}, not {session.single.address}",
        )
        own = {entry.address for entry in node[ADDRESSES]}
        if node is session.single.node and not session.snapshot.setting.has_kube_proxy:
            own = {session.snapshot.setting.gateway}  # programs masquerade only what goes on to another node
        claim.require(answer.remote in own, f"the pod saw {answer.remote}, which is no address of {node.name}", *own)
        seen.append(f"asked on {node.name}, {session.single} on {session.single.node.name} saw {answer.remote}")
    claim.saw(f"port {service.node_port}: {listed(seen)}")


@pytest.mark.beside_scaling
@pytest.mark.needs(nodes=2, outside=True, kube_proxy=True)
@pytest.mark.rests_on("a_local_service_stays_on_its_node", "a_node_port_answers_on_every_node")
def test_the_local_policy_keeps_the_clients_address(session: LabSession, claim: Claim) -> None:
    """externalTrafficPolicy: Local keeps the client's address (DNAT, no SNAT); nodes without a pod do not answer."""
    service, client = session.service("single-local"), session.snapshot.setting.gateway
    home = session.single.node
    for node in session.snapshot.nodes:
        answer = session.request_from_outside(f"http://{node.address}:{service.node_port}/")
        if node is not home:
            claim.require(answer is None, f"{node.name} answers on {service.node_port} without a pod of it: {answer}")
            continue
        claim.require(answer, f"{node.name}, which runs {session.single}, does not answer on {service.node_port}")
        claim.require(
            answer and answer.remote == client, f"{session.single} saw {answer and answer.remote}, not {client}"
        )
    flows = [flow for flow in session.flows(home, client) if flow.original.dport == service.node_port]
    claim.require(
        flows and all(flow.destination_translated and not flow.source_translated for flow in flows),
        f"conntrack on {home.name} has no entry with DNAT and without SNAT for port {service.node_port}",
        *flows,
    )
    claim.saw(f"{session.single} on {home.name} saw {client}, no other node answers; conntrack has {flows[-1]}")


@pytest.mark.beside_scaling
@pytest.mark.needs(own_lab=True, kube_proxy=True)
@pytest.mark.rests_on("a_service_leads_to_its_endpoints", "a_node_port_answers_on_every_node")
@pytest.mark.rests_on("nothing_drops_what_comes_in_by_a_load_balancer")
def test_a_load_balancers_address_reaches_the_pods(session: LabSession, claim: Claim) -> None:
    """Every node translates a LoadBalancer's address to a pod, whichever node the packet reaches."""
    if not session.external.namespace:
        pytest.skip("needs a private libvirt: on another one it would change this machine's own routes")
    address, seen = IPv4Address(workload.BALANCED_IP), []
    for node in session.snapshot.nodes:
        with session.external.routed(address, node.address):
            answer = session.request_from_outside(f"http://{address}:80/")
        claim.require(answer, f"{address} does not answer by way of {node.name}")
        assert answer
        claim.require(
            answer.local == session.single.address,
            f"{answer.local} answered for {address}, not {session.single.address}",
        )
        begun = session.flows(node, session.snapshot.setting.gateway)
        flows = [flow for flow in begun if flow.original.dst == str(address)]
        claim.require(
            flows and flows[-1].destination_translated and flows[-1].source_translated,
            f"conntrack on {node.name} has no entry for {address} with DNAT and SNAT",
            *flows,
        )
        seen.append(f"by way of {node.name} {session.single} saw {answer.remote}; conntrack has {flows[-1]}")
    owners = [
        f"{entry.dev} of {place}"
        for place, facts in session.snapshot.places.items()
        for entry in facts[ADDRESSES]
        if entry.address == address
    ]
    claim.require(not owners, f"{address} is the address of {listed(owners)}")
    claim.saw(listed(seen))
