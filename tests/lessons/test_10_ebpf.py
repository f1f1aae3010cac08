"""Chapter 10, programs of eBPF: ``bpftool net``, and Cilium's maps by ``cilium-dbg bpf``, in the place of rules."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from hoplab.expectations import cni, proxy
from hoplab.expectations.cni import cilium
from hoplab.expectations.proxy import iptables
from hoplab.netfilter.ruleset import prerouting
from hoplab.observe.facts.bpf_programs import BPF_PROGRAMS
from hoplab.observe.facts.cilium_endpoints import CILIUM_ENDPOINTS
from hoplab.observe.facts.cilium_ipcache import CILIUM_IPCACHE
from hoplab.observe.facts.cilium_services import CILIUM_SERVICES, Frontend
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.snapshot import Snapshot
from hoplab.verify.claims import EVIDENCE, Claim, counted, listed
from hoplab.verify.session import LabSession

AGENT = "kubectl -n kube-system exec ds/cilium -- "
RESTART = "kubectl delete pod -n kube-system -l k8s-app=cilium --field-selector spec.nodeName={node}"

pytestmark = [pytest.mark.needs(programs=True, own_lab=True), pytest.mark.remedy(f"{AGENT}cilium-dbg status")]


@pytest.mark.needs(facts=(BPF_PROGRAMS.name,))
@pytest.mark.rests_on("a_node_has_the_interfaces_of_its_cni", "a_pod_hangs_on_a_veth_pair")
@pytest.mark.remedy(f"{AGENT}bpftool net", mends=RESTART)
def test_a_program_takes_what_a_pod_sends(lab: Snapshot, claim: Claim) -> None:
    """With Cilium the kernel runs a program for each packet that comes out of a pod, before any route or rule, and
    others at the node's own interfaces."""
    for node in lab.nodes:
        found = node[BPF_PROGRAMS]
        expected = cni.expectations(lab)[node.name].programs
        claim.each_met(expected, found, where=node.name, kind="program")
        for pod in lab.pods_on(node):
            claim.require(pod.host_end, f"the node's end of the pair of {pod} is missing")
            assert pod.host_end
            for wanted in cilium.of_pod(pod.host_end.name):
                claim.require(
                    any(wanted.met_by(program) for program in found),
                    f"{node.name} has no program {wanted}, which is the end of {pod}",
                    *found[:EVIDENCE],
                )
    node = lab.nodes[0]
    claim.saw(
        f"on {node.name} {listed(cni.expectations(lab)[node.name].programs)}, and "
        f"{cilium.FROM_POD['ingress']} at each of {counted(len(lab.pods_on(node)), 'pod')}"
    )


@pytest.mark.needs(facts=(CILIUM_ENDPOINTS.name,))
@pytest.mark.rests_on("a_pod_hangs_on_a_veth_pair", "every_pod_has_its_own_address")
@pytest.mark.remedy(f"{AGENT}cilium-dbg bpf endpoint list", mends=RESTART)
def test_a_map_knows_the_pods_of_its_node(lab: Snapshot, claim: Claim) -> None:
    """With Cilium the programs of a node find a pod of it, its interface and MAC, by its address in a map; no route and
    no ARP is needed."""
    for node in lab.nodes:
        known = {endpoint.address: endpoint for endpoint in node[CILIUM_ENDPOINTS]}
        for pod in lab.pods_on(node):
            found = known.get(pod.address)
            claim.require(found, f"the map of {node.name} has no {pod.address} of {pod}", *known.values())
            assert found
            ends = (pod.host_end.index, pod.eth0.mac.lower()) if pod.host_end and pod.eth0 else None
            claim.require(
                (found.index, found.mac) == ends,
                f"the map of {node.name} has {pod.address} of {pod} at interface {found.index}, {found.mac}",
                pod.host_end or "the pair is not there",
            )
    claim.saw(listed(f"{node.name} knows {counted(len(lab.pods_on(node)), 'pod')}" for node in lab.nodes))


@pytest.mark.needs(facts=(CILIUM_IPCACHE.name,))
@pytest.mark.rests_on("every_pod_has_its_own_address")
@pytest.mark.remedy(f"{AGENT}cilium-dbg bpf ipcache list", mends=RESTART)
def test_a_map_knows_whose_an_address_is(lab: Snapshot, claim: Claim) -> None:
    """With Cilium a map of every node has every pod's address, with an identity, which pods with the same labels share,
    and where packets are wrapped with the node that it is behind."""
    wrapped = lab.setting.backend == "vxlan"
    for node in lab.nodes:
        known = {owner.range: owner for owner in node[CILIUM_IPCACHE]}
        for pod in lab.own_address_pods:
            found = next((known[owned] for owned in known if pod.address in owned and owned.prefixlen == 32), None)
            claim.require(
                found, f"the map of {node.name} has no {pod.address} of {pod}", *list(known.values())[:EVIDENCE]
            )
            assert found
            claim.require(found.identity > 0, f"the map of {node.name} gives {pod.address} of {pod} no identity", found)
            home = next((other for other in lab.cluster_nodes if other.name == pod.node), None)
            if wrapped and home and home is not node:
                claim.require(
                    found.tunnel == home.address,
                    f"the map of {node.name} has {pod.address} of {pod} behind {found.tunnel}, not {home.address}",
                    found,
                )
    node, pod = lab.nodes[0], lab.own_address_pods[-1]
    shown = next(owner for owner in node[CILIUM_IPCACHE] if pod.address in owner.range)
    claim.saw(f"{counted(len(lab.own_address_pods), 'pod')} in the map of each node, on {node.name} for one: {shown}")


@pytest.mark.needs(facts=(CILIUM_SERVICES.name,))
@pytest.mark.rests_on("services_have_a_range_of_their_own")
@pytest.mark.remedy(f"{AGENT}cilium-dbg bpf lb list", mends=RESTART)
def test_a_map_leads_a_service_to_its_endpoints(lab: Snapshot, claim: Claim) -> None:
    """With Cilium every ClusterIP is in a map of every node, with each pod behind the service and no other: the program
    at the client's interface draws one of them."""
    services = proxy.expectations(lab)
    for node in lab.nodes:
        known = {
            (found.address, found.port, found.protocol): found for found in node[CILIUM_SERVICES] if not found.internal
        }
        for service in services:
            found = known.get((service.cluster_ip, service.port, service.protocol))
            claim.require(
                found and found.kind,  # slots of backends alone are found by no program
                f"the map of services on {node.name} lacks {service}",
                *_near(known.values(), service),
            )
            assert found
            to = sorted(backend.to for backend in found.backends)
            wanted = sorted(endpoint.to for endpoint in service.on(node.name).endpoints)
            claim.require(
                to == wanted,
                f"on {node.name} the map leads {service} to {listed(to)}, not to {listed(wanted)}",
                found,
            )
    example = services[-1]
    claim.saw(
        f"{counted(len(services), 'service port')} in the map of {counted(len(lab.nodes), 'node')}, for one: {example} "
        f"to {listed(endpoint.to for endpoint in example.endpoints)}"
    )


@pytest.mark.needs(facts=(CILIUM_SERVICES.name,), proxy="cilium")
@pytest.mark.rests_on("a_map_leads_a_service_to_its_endpoints")
@pytest.mark.remedy(f"{AGENT}cilium-dbg bpf lb list", mends=RESTART)
def test_no_rule_of_kube_proxy_is_left(lab: Snapshot, claim: Claim) -> None:
    """With Cilium in the place of kube-proxy no node has a chain for services: NodePorts are in the map too, with each
    address of the node."""
    ports = [service for service in proxy.expectations(lab) if service.node_port]
    for node in lab.nodes:
        chains = [
            chain
            for table in iptables.CHAINS
            for chain in sorted(node[IPTABLES].chains(table))
            if chain.startswith(iptables.OF_SERVICES)
        ]
        claim.require(not chains, f"{node.name} has chains of kube-proxy: {listed(chains[:EVIDENCE])}")
        known = {(found.address, found.port, found.protocol) for found in node[CILIUM_SERVICES] if found.kind}
        for service in ports:
            claim.require(
                (node.address, service.node_port, service.protocol) in known,
                f"the map of services on {node.name} lacks port {service.node_port} of {node.address}, of {service}",
                *(found for found in node[CILIUM_SERVICES] if found.kind == "NodePort"),
            )
    claim.saw(
        f"no chain {iptables.LOOKUP} on {counted(len(lab.nodes), 'node')}, and "
        f"{listed(f'port {service.node_port} of {service}' for service in ports) or 'no NodePort'} in the map of each"
    )


def _near(found: Iterable[Frontend], service: proxy.ServiceExpectation) -> list[Frontend]:
    """Return the frontends with the address of a service, or some others."""
    known = list(found)
    return [frontend for frontend in known if frontend.address == service.cluster_ip] or known[:EVIDENCE]


@pytest.mark.needs(nodes=2, facts=(CILIUM_SERVICES.name,), kube_proxy=True)
@pytest.mark.rests_on(
    "a_map_leads_a_service_to_its_endpoints", "a_program_takes_what_a_pod_sends", "a_map_knows_whose_an_address_is"
)
def test_programs_translate_before_any_rule(session: LabSession, claim: Claim) -> None:
    """eBPF bypasses the kernel's tables: what a pod sends to a ClusterIP is translated by the program at its interface.
    Cilium's map has the connection, the kernel's conntrack has none to the ClusterIP, and no rule of kube-proxy counted
    it. Whether that is faster depends on the number of rules, and is not measured here."""
    service, server = session.service("single"), session.single
    client = next(pod for pod in session.echo_pods if pod.node is not server.node)
    asked = session.request(client, f"http://{service.cluster_ip}:{service.port}/", rules=True)
    claim.require(asked.answered, f"{service} does not answer {client}: {asked.why}")
    tracked = session.tracked(client.node, client.address)
    ours = [
        entry for entry in tracked if (entry.kind, entry.dst, entry.dport) == ("SVC", service.cluster_ip, service.port)
    ]
    claim.require(
        ours, f"the map of {client.node.name} has no connection of {client} to {service}", *tracked[:EVIDENCE]
    )
    to_pod = [entry for entry in tracked if entry.kind == "OUT" and entry.dst == server.address and entry.service]
    claim.require(to_pod, f"the map of {client.node.name} has none to {server} in its place", *tracked[:EVIDENCE])
    kernels = [flow for flow in asked.flows if flow.original.dst == str(service.cluster_ip)]
    claim.require(not kernels, f"the kernel's conntrack on {client.node.name} has it as well", *kernels)
    walked = [rule for end in prerouting(asked.before, proxy.connection(client.address, service)) for rule in end.path]
    counting = [rule for rule in walked if asked.counted(rule) and str(service.cluster_ip) in str(rule)]
    claim.require(not counting, f"a rule on {client.node.name} has counted it", *counting)
    claim.saw(
        f"on {client.node.name} Cilium's map has {ours[-1]} and {to_pod[-1]}; conntrack has nothing to "
        f"{service.cluster_ip}, and none of {counted(len(walked), 'rule')} that it would have met counted a packet"
    )
