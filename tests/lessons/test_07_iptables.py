"""Chapter 7, iptables: ``iptables-save -c``."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from hoplab import probe
from hoplab.capture import Capture
from hoplab.claims import Claim, counted, listed
from hoplab.facts.addresses import ADDRESSES
from hoplab.facts.all_hooks import ALL_HOOKS
from hoplab.facts.hooks import HOOKS
from hoplab.facts.iptables import IPTABLES, Iptables
from hoplab.live import Live
from hoplab.netfilter import Packet, walk
from hoplab.proxy import iptables as kube_proxy
from hoplab.snapshot import Snapshot

BUILT_IN = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}

# A table's place among those that are called at the same hook; nat has two, before the routing decision and after it.
# (The kernel's own, older iptables calls security at 50.)
PRIORITIES = {"raw": (-300,), "mangle": (-150,), "nat": (-100, 100), "filter": (0,), "security": (150,)}
AFTER_ROUTING = ("postrouting", "input")
HOOKS_IN_ORDER = ("prerouting", "input", "forward", "output", "postrouting")  # as a packet may meet them

ICMP_UNREACHABLE = 3  # ICMP's type

pytestmark = pytest.mark.needs(proxy="iptables")


def test_tables_and_their_hooks(lab: Snapshot, claim: Claim) -> None:
    """Each table has built-in chains at certain hooks only: nat has no FORWARD, filter no PREROUTING."""
    for node in lab.nodes:
        claim.require({"filter", "nat"} <= set(node[IPTABLES].tables), f"{node.name} has no filter or no nat table")
        for table in node[IPTABLES].tables:
            found = {name for name, chain in node[IPTABLES].chains(table).items() if chain.policy}
            claim.require(
                found == set(BUILT_IN[table]), f"{table} on {node.name} has the built-in chains {listed(found)}"
            )
        for table, chains in BUILT_IN.items():  # a table that nobody has used is not there: tried in a namespace
            made = [each.hook.upper() for each in node[ALL_HOOKS] if each.table == table]
            claim.require(
                sorted(made) == sorted(chains),
                f"{table}, where all its chains are used, is called at {listed(made)} on {node.name}",
                *node[ALL_HOOKS],
            )
    claim.saw(listed(f"{table} has {', '.join(chains)}" for table, chains in BUILT_IN.items()))


def test_tables_are_called_in_their_order(lab: Snapshot, claim: Claim) -> None:
    """At a hook the tables are called in the order raw, mangle, nat (DNAT), filter, nat (SNAT), security."""
    orders: dict[str, list[str]] = {}
    for node in lab.nodes:
        called = [each for each in node[HOOKS] if each.table in PRIORITIES]
        claim.require(called, f"no table is called at any hook of {node.name}")
        for each in (*called, *node[ALL_HOOKS]):
            wanted = PRIORITIES[each.table][-1 if each.hook in AFTER_ROUTING else 0]
            claim.require(
                each.priority == wanted, f"{each} on {node.name} is called at {each.priority}, not at {wanted}", *called
            )
        by_hook = sorted(node[ALL_HOOKS], key=lambda each: each.priority)
        orders = {hook: [each.table for each in by_hook if each.hook == hook] for hook in HOOKS_IN_ORDER}
    claim.saw("; ".join(f"{hook}: {', '.join(tables)}" for hook, tables in orders.items() if tables))


def test_kube_proxy_hooks_in_its_chains(lab: Snapshot, claim: Claim) -> None:
    """kube-proxy has chains of its own, reached from PREROUTING, OUTPUT, POSTROUTING and FORWARD."""
    for node in lab.nodes:
        for table, names in kube_proxy.CHAINS.items():
            for name in names:
                claim.require(name in node[IPTABLES].chains(table), f"{node.name} has no chain {name} in {table}")
        for table, hook, chain in kube_proxy.HOOKS:
            rules = node[IPTABLES].rules(table, hook)
            claim.require(
                any(rule.target == chain for rule in rules),
                f"{hook} of {table} on {node.name} never calls {chain}",
                *rules,
            )
    claim.saw(listed(f"{hook} of {table} calls {chain}" for table, hook, chain in kube_proxy.HOOKS))


def test_a_service_leads_to_its_endpoints(lab: Snapshot, claim: Claim) -> None:
    """A connection to a ClusterIP goes through KUBE-SERVICES, the service's KUBE-SVC and one KUBE-SEP to a pod."""
    client = lab.setting.pod_cidr[-2]  # some pod; none of those behind the services
    services = [service for service in kube_proxy.promises(lab) if service.endpoints]
    for node in lab.nodes:
        for service in services:
            packet = Packet(client, service.cluster_ip, service.protocol, service.port)
            ends = walk(node[IPTABLES].chains("nat"), "PREROUTING", packet)
            found = {
                end.last.value("--to-destination"): end.chains for end in ends if end.last and end.verdict == "DNAT"
            }
            wanted = {
                endpoint.to: ("PREROUTING", "KUBE-SERVICES", service.chain, endpoint.chain)
                for endpoint in service.endpoints
            }
            claim.require(
                found == wanted,
                f"on {node.name} {service} leads to {listed(found)}, not to {listed(wanted)} by {service.chain}",
                *(rule for end in ends for rule in end.path),
            )
            claim.require(all(end.verdict == "DNAT" for end in ends), f"on {node.name} {service} may also lead nowhere")
    claim.saw(
        f"{counted(len(services), 'service port')} on {counted(len(lab.nodes), 'node')}, for one: "
        f"{services[-1]} by {services[-1].chain} to {listed(each.to for each in services[-1].endpoints)}"
    )


def test_every_endpoint_gets_the_same_share(lab: Snapshot, claim: Claim) -> None:
    """The rules of a KUBE-SVC chain take 1/n, 1/(n-1), ... of what is left: every endpoint gets the same share."""
    shared = []
    for node in lab.nodes:
        for service in kube_proxy.promises(lab):
            rules = [rule for rule in node[IPTABLES].rules("nat", service.chain) if rule.target.startswith("KUBE-SEP-")]
            found = tuple(float(text) if (text := rule.value("--probability")) else None for rule in rules)
            wanted = kube_proxy.probabilities(len(service.endpoints))
            claim.require(
                len(found) == len(wanted) and all(_close(one, other) for one, other in zip(found, wanted, strict=True)),
                f"on {node.name} {service.chain} of {service} has probabilities {listed(found)}, not {listed(wanted)}",
                *rules,
            )
            if len(wanted) > 1:
                shared.append(f"{service} has {listed(f'{each:.2f}' if each else 'the rest' for each in found)}")
    claim.saw(shared[0] if shared else "no service has more than one endpoint: each takes all")


def _close(one: float | None, other: float | None) -> bool:
    """iptables keeps probabilities as 31-bit integers."""
    return one is other is None or (one is not None and other is not None and abs(one - other) < 1e-6)


def test_marked_packets_are_masked(lab: Snapshot, claim: Claim) -> None:
    """What comes from outside of the pod range to a ClusterIP is marked by KUBE-MARK-MASQ and masked on its way out."""
    stranger = lab.setting.gateway
    services = [service for service in kube_proxy.promises(lab) if service.endpoints]
    for node in lab.nodes:
        nat = node[IPTABLES].chains("nat")
        for service in services:
            for end in walk(nat, "PREROUTING", Packet(stranger, service.cluster_ip, service.protocol, service.port)):
                claim.require(
                    end.packet.mark & kube_proxy.MASQUERADE_MARK,
                    f"on {node.name} a packet of {stranger} to {service} is not marked",
                    *end.path,
                )
        for end in walk(nat, "POSTROUTING", Packet(stranger, lab.setting.pod_cidr[5], mark=kube_proxy.MASQUERADE_MARK)):
            claim.require(
                end.verdict == "MASQUERADE" and end.last and end.last.chain == "KUBE-POSTROUTING",
                f"on {node.name} {listed(end.chains)} end a marked packet with {end.verdict}, not KUBE-POSTROUTING",
                *end.path,
            )
            claim.require(not end.packet.mark, f"on {node.name} the mark {end.packet.mark:#x} stays on the packet")
    claim.saw(
        f"{stranger} to any of {counted(len(services), 'service port')} is marked {kube_proxy.MASQUERADE_MARK:#x}"
    )


def test_node_ports_come_last(lab: Snapshot, claim: Claim) -> None:
    """What is for the node itself and for no service goes to KUBE-NODEPORTS, then KUBE-EXT-* and the service's pods."""
    services = [each for each in kube_proxy.promises(lab) if each.node_port and each.external_policy == "Cluster"]
    for node in lab.nodes:
        rules = node[IPTABLES].rules("nat", "KUBE-SERVICES")
        claim.require(
            rules and rules[-1].target == "KUBE-NODEPORTS" and rules[-1].value("--dst-type") == "LOCAL",
            f"the last rule of KUBE-SERVICES on {node.name} is not for the node's own addresses",
            *rules[-1:],
        )
        for service in services:
            packet = Packet(lab.setting.gateway, node.address, service.protocol, service.node_port, dst_is_local=True)
            for end in walk(node[IPTABLES].chains("nat"), "PREROUTING", packet):
                claim.require(
                    end.verdict == "DNAT" and {"KUBE-NODEPORTS", service.external_chain} <= set(end.chains),
                    f"on {node.name} port {service.node_port} ends in {end.verdict} by {listed(end.chains)}",
                    *end.path,
                )
                claim.require(end.packet.mark, f"on {node.name} what comes to port {service.node_port} is not marked")
    claim.saw(listed(f"port {each.node_port} goes by {each.external_chain} to {each.chain}" for each in services))


def test_portals_are_gone(lab: Snapshot, claim: Claim) -> None:
    """The chains KUBE-PORTALS-* of older texts are gone, since kube-proxy's userspace mode left Kubernetes."""
    chains = 0
    for node in lab.nodes:
        for table in node[IPTABLES].tables:
            names = node[IPTABLES].chains(table)
            found = [name for name in names if name.startswith(kube_proxy.GONE)]
            claim.require(not found, f"{table} on {node.name} has {listed(found)}")
            chains += len(names)
    claim.saw(f"none among {counted(chains, 'chain')}")


def test_a_service_without_endpoints_rejects(lab: Snapshot, claim: Claim) -> None:
    """A service without endpoints has no KUBE-SVC rules; the filter table rejects, so a client is refused at once."""
    client = lab.setting.pod_cidr[-2]
    empty = [service for service in kube_proxy.promises(lab) if not service.endpoints]
    claim.require(empty, "every service has endpoints; verification makes one that has none")
    for node in lab.nodes:
        for service in empty:
            packet = Packet(client, service.cluster_ip, service.protocol, service.port)
            for hook in ("FORWARD", "OUTPUT"):
                for end in walk(node[IPTABLES].chains("filter"), hook, packet):
                    claim.require(
                        end.verdict == "REJECT",
                        f"{hook} on {node.name} ends in {end.verdict} for {service}, not in REJECT",
                        *node[IPTABLES].rules("filter", "KUBE-SERVICES"),
                    )
            claim.require(not node[IPTABLES].rules("nat", service.chain), f"{service} has rules in {service.chain}")
    claim.saw(f"{listed(empty)} is rejected in FORWARD and OUTPUT of {counted(len(lab.nodes), 'node')}")


def test_a_refused_service_says_so_at_once(live: Live, claim: Claim) -> None:
    """A client of a service without endpoints is refused by its own node (ICMP port unreachable) and need not wait."""
    service, pod = live.service("nobody"), live.client
    claim.require(pod.host_end, f"{pod} has no veth pair")
    assert pod.host_end
    answers = {"answers": Capture(pod.host_end.name, f"icmp and dst host {pod.address}")}
    asked = live.ask(pod, f"http://{service.cluster_ip}:{service.port}/", answers)
    refused = 7  # curl: failed to connect; 28 would be a timeout
    claim.require(
        asked.output.code == refused,
        f"{pod} asked {service} and was not refused: {asked.output.err.strip() or asked.output.out}",
    )
    own = {each.address for each in pod.node[ADDRESSES]}
    said = [each for each in asked.packets["answers"] if each.icmp_type == ICMP_UNREACHABLE and each.src in own]
    claim.require(
        said, f"{pod.node.name} itself did not tell {pod} that {service} is unreachable", *asked.packets["answers"]
    )
    claim.saw(f"{pod}: {asked.output.err.strip()}; on {pod.host_end.name}: {said[0]}")


def test_only_rules_know_a_cluster_ip(lab: Snapshot, claim: Claim) -> None:
    """Every ClusterIP is in the rules of every node, whether or not a pod behind it runs there."""
    wanted = {service.cluster_ip for service in kube_proxy.promises(lab)}
    for node in lab.nodes:
        found: set[IPv4Address] = set()
        for table in ("nat", "filter"):
            rules = node[IPTABLES].rules(table, "KUBE-SERVICES")
            found |= {rule.destination[0] for rule in rules if rule.destination}
        claim.require(wanted <= found, f"the rules of {node.name} lack {listed(wanted - found)}", *found)
    claim.saw(f"{counted(len(wanted), 'ClusterIP')} in KUBE-SERVICES of {counted(len(lab.nodes), 'node')}")


def test_scaling_changes_the_endpoints_at_once(live: Live, claim: Claim) -> None:
    """Scaling a deployment changes the KUBE-SEP chains of its service on every node as soon as pods come and go."""
    service = live.service("single")

    def chains(endpoints: set[str]) -> set[str]:
        return {kube_proxy.endpoint_chain(service.service, service.protocol, endpoint) for endpoint in endpoints}

    def called(rules: Iptables) -> set[str]:
        return {rule.target for rule in rules.rules("nat", service.chain) if rule.target.startswith("KUBE-SEP-")}

    before = chains(live.endpoints("single"))
    with live.scaled("single", len(before) + 1) as more:
        wanted = chains(more)
        for node, rules in live.rules_when(lambda rules: called(rules) == wanted).items():
            claim.require(
                called(rules) == wanted,
                f"{service.chain} on {node} calls {listed(sorted(called(rules)))} for {counted(len(more), 'endpoint')}",
                *rules.rules("nat", service.chain),
            )
    for node, rules in live.rules_when(lambda rules: called(rules) == before).items():
        claim.require(
            called(rules) == before,
            f"{service.chain} on {node} still calls {listed(sorted(called(rules) - before))} after scaling down",
            *rules.rules("nat", service.chain),
        )
        left = (wanted - before) & set(rules.chains("nat"))
        claim.require(not left, f"{listed(sorted(left))} is still a chain of {node}, but its pod is gone")
    claim.saw(
        f"{service.chain} called {listed(sorted(before))}, with one more pod also {listed(sorted(wanted - before))}, "
        f"and not any more without it, on {counted(len(live.snapshot.nodes), 'node')}"
    )


@pytest.mark.needs(cni="flannel")
def test_a_policy_that_nobody_enforces_stops_nothing(live: Live, claim: Claim) -> None:
    """Where the CNI enforces none, as flannel, a NetworkPolicy that denies everything makes no difference."""
    client, url = live.client, f"http://{live.single.address}:{probe.PORT}/"
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny-all"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }
    before = live.rules()
    with live.made(f"/apis/networking.k8s.io/v1/namespaces/{probe.NAMESPACE}/networkpolicies", policy):
        asked = live.ask(client, url)
        after = live.rules()
    claim.require(asked.answered, f"{live.single} does not answer {client}: {asked.output.err.strip()}")
    for node, rules in after.items():
        new = set(rules.chains("nat")) - set(before[node].chains("nat"))
        claim.require(not new, f"the policy made {listed(sorted(new))} on {node}")
    claim.saw(f"with deny-all in force for every pod of {probe.NAMESPACE}, {live.single} still answers {client}")
