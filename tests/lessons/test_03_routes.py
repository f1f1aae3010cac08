"""Chapter 3, routes: ``ip route``, ``bridge fdb``, ``ip neigh``."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import product

import pytest

from hoplab.expectations import cni
from hoplab.expectations.cni import calico
from hoplab.observe import reverse_path
from hoplab.observe.facts.bgp import BGP
from hoplab.observe.facts.no_route import NO_ROUTE
from hoplab.observe.facts.proc_routes import PROC_ROUTES
from hoplab.observe.facts.routes import DEFAULT, ROUTES, NextHop, Route
from hoplab.observe.facts.rules import RULES
from hoplab.observe.facts.sysctls import SYSCTLS
from hoplab.observe.routing import DEFAULT_RULES, Flow, decide, decide_on
from hoplab.observe.snapshot import Node, Snapshot
from hoplab.verify.claims import Claim, counted, listed
from hoplab.verify.remedies import RESTART_FLANNEL

pytestmark = pytest.mark.remedy("ssh {node} ip route show table all")


@pytest.mark.rests_on("a_node_has_the_interfaces_of_its_cni", "a_pod_hangs_on_a_veth_pair")
@pytest.mark.rests_on(
    "nodes_are_ready_with_a_range_each", "pods_are_in_their_nodes_range", "blocks_do_not_overlap", anywhere=True
)
def test_a_node_routes_its_own_range_to_its_pods(lab: Snapshot, claim: Claim) -> None:
    """A node has routes to its own pods: with a bridge CNI one to their range by the bridge, with Calico one per pod
    (/32) by the pod's interface."""
    for node in lab.nodes:
        claim.each_met(cni.expectations(lab)[node.name].own_routes, node[ROUTES], where=node.name, kind="route")
    claim.saw(
        listed(f"{node.name}: {route}" for node in lab.nodes for route in cni.expectations(lab)[node.name].own_routes)
    )


@pytest.mark.needs(nodes=2)
@pytest.mark.rests_on("a_node_has_the_interfaces_of_its_cni")
@pytest.mark.rests_on(
    "nodes_are_ready_with_a_range_each",
    "pods_are_in_their_nodes_range",
    "every_node_has_its_own_address",
    "blocks_do_not_overlap",
    "bgp_tells_the_nodes_of_each_other",
    "an_address_that_no_pod_has_leads_nowhere",
    anywhere=True,
)
@pytest.mark.remedy("ssh {node} ip route", mends=RESTART_FLANNEL, cni="flannel")
def test_a_node_routes_every_other_range_to_its_node(lab: Snapshot, claim: Claim) -> None:
    """A node has a route to every other node's pod range (with Calico: blocks) through that node."""
    for node in lab.nodes:
        claim.each_met(cni.expectations(lab)[node.name].routes, node[ROUTES], where=node.name, kind="route")
    claim.saw(
        listed(f"{node.name}: {route}" for node in lab.nodes for route in cni.expectations(lab)[node.name].routes)
    )


@pytest.mark.needs(cni="calico")
@pytest.mark.rests_on("blocks_do_not_overlap", anywhere=True)
def test_an_address_that_no_pod_has_leads_nowhere(lab: Snapshot, claim: Claim) -> None:
    """With Calico a node drops packets to addresses of its own block that no pod has, by a blackhole route for the
    block."""
    for node in lab.nodes:
        expected = cni.expectations(lab)[node.name]
        claim.require(expected.blackholes, f"no block of the pod range belongs to {node.name}")
        claim.each_met(expected.blackholes, node[ROUTES], where=node.name, kind="route")
    claim.saw(
        listed(f"{node.name}: {route}" for node in lab.nodes for route in cni.expectations(lab)[node.name].blackholes)
    )


@pytest.mark.needs(cni="calico", nodes=2)
@pytest.mark.rests_on("nodes_are_ready_with_a_range_each", "every_node_has_its_own_address", anywhere=True)
@pytest.mark.remedy("kubectl get pods -A -l k8s-app=calico-node -o wide")
def test_bgp_tells_the_nodes_of_each_other(lab: Snapshot, claim: Claim) -> None:
    """With Calico every node has a BGP session with every other node in the modes bgp and ipip, and none in vxlan."""
    sessions = 0
    for node in lab.nodes:
        expected = cni.expectations(lab)[node.name].bgp
        found = {session.peer: session for session in node[BGP]}
        claim.require(
            set(found) == set(expected),
            f"BIRD on {node.name} has sessions with {listed(found)}, not with {listed(expected)}",
            *node[BGP],
        )
        for session in found.values():
            claim.require(session.established, f"a session of {node.name} is not established: {session}")
        sessions += len(found)
    first = lab.nodes[0]
    claim.saw(f"{counted(sessions, 'session')}; on {first.name}: {listed(first[BGP])}")


@pytest.mark.rests_on(
    "a_node_routes_its_own_range_to_its_pods",
    "a_node_routes_every_other_range_to_its_node",
    "a_nodes_gateway_is_the_labs",
    "no_rule_takes_what_pods_send",
    "a_nodes_range_has_its_ends",
)
def test_the_longest_prefix_decides(lab: Snapshot, claim: Claim) -> None:
    """The longest prefix that contains the destination decides, not the order of the table."""
    claim.require(lab.pods, "no pod's network namespace was found")
    for node in lab.nodes:
        expected = cni.expectations(lab)[node.name]
        for pod in lab.pods:
            routes = expected.own_routes if pod.node is node else expected.routes
            planned = next((route for route in routes if pod.address in route.dst), None)
            chosen = decide_on(node.facts, Flow(pod.address))
            route = chosen.route
            candidates = [route for route in node[ROUTES] if route.table == "main" and pod.address in route.dst]
            claim.require(
                planned and route and planned.leads_like(route),
                f"{node.name} sends {pod.address} ({pod}) by `{chosen.way}`{chosen.why}, not by `{planned}`",
                *candidates,
            )
            claim.require(len(candidates) > 1, f"{node.name} had no choice for {pod.address}", *candidates)
    pod = lab.pods[0]
    claim.saw(
        f"{pod.address} goes by `{decide_on(pod.node.facts, Flow(pod.address)).way}` on {pod.node.name}, "
        "although `default` contains it too"
    )


@pytest.mark.rests_on("every_pod_has_its_own_address", "the_tables_are_asked_in_order")
@pytest.mark.remedy("ssh {node} ip rule")
def test_no_rule_takes_what_pods_send(lab: Snapshot, claim: Claim) -> None:
    """Policy rules (`ip rule`) leave what pods send to each other to the tables that the CNI writes: none leads it
    another way."""
    claim.require(lab.pods, "no pod's network namespace was found")
    packets, rules = 0, sum(len(node[RULES]) for node in lab.nodes)
    for node in lab.nodes:
        expected = cni.expectations(lab)[node.name]
        for pod, other in product(lab.pods, lab.pods):
            if node not in (pod.node, other.node) or pod is other:
                continue
            own = expected.bridge or (pod.host_end.name if pod.host_end else "")
            far = expected.tunnel.dev if expected.tunnel else node.uplink
            flow = Flow(other.address, pod.address, iif=own if pod.node is node else far)
            chosen, usual = decide_on(node.facts, flow), decide(flow, node[ROUTES], DEFAULT_RULES)
            claim.require(
                (chosen.verdict, chosen.route) == (usual.verdict, usual.route),
                f"on {node.name} rule {chosen.rule} takes what {pod} sends to {other}: by `{chosen.way}`, "
                f"not by `{usual.way}`",
                *node[RULES],
            )
            packets += 1
    claim.saw(
        f"{counted(packets, 'packet')} from pod to pod, each by its usual route, with {counted(rules, 'rule')} on "
        f"{counted(len(lab.nodes), 'node')}"
    )


def test_no_route_means_unreachable(lab: Snapshot, claim: Claim) -> None:
    """Without a matching route and a default route the network is unreachable (tried in an empty namespace)."""
    for node in lab.nodes:
        claim.require(
            "Network is unreachable" in node[NO_ROUTE],
            f"{node.name}, asked for a route in a namespace without any, said: {node[NO_ROUTE]}",
        )
    claim.saw(f"`{lab.nodes[0][NO_ROUTE]}` on {counted(len(lab.nodes), 'node')}")


@pytest.mark.needs(own_lab=True)
@pytest.mark.rests_on(
    "a_node_routes_its_own_range_to_its_pods",
    "a_node_routes_every_other_range_to_its_node",
    "a_nodes_gateway_is_the_labs",
)
def test_kinds_of_routes(lab: Snapshot, claim: Claim) -> None:
    """The lab has direct, default, static, host and network routes, and each names its origin (proto)."""
    shown, remote = [], cni.expectations(lab)
    for node in lab.nodes:
        main = [route for route in node[ROUTES] if route.table == "main" and route.kind == "unicast"]
        kinds = {
            "direct": [route for route in main if route.scope == "link" and route.via is None],
            "default": [route for route in main if route.dst == DEFAULT],
            "network": [route for route in main if route.dst in {wanted.dst for wanted in remote[node.name].routes}],
            "static": [route for route in main if route.protocol == "static"],
            "host": [route for route in node[ROUTES] if route.kind == "local" and route.dst.prefixlen == 32],
        }
        for kind, routes in kinds.items():
            if kind != "network" or len(lab.nodes) > 1:  # one node alone needs no way to another
                claim.require(routes, f"{node.name} has no {kind} route", *main)
        claim.require(all(route.protocol for route in main), f"a route of {node.name} does not say who made it", *main)
        shown = [f"{kind} `{routes[0]}` (proto {routes[0].protocol})" for kind, routes in kinds.items() if routes]
    claim.saw(f"on {lab.nodes[-1].name}: {listed(shown)}")


@pytest.mark.rests_on(
    "kinds_of_routes",
    "the_longest_prefix_decides",
    "an_address_that_no_pod_has_leads_nowhere",
    "a_pods_gateway_is_its_nodes_bridge",
    "calicos_gateway_is_nobodys_address",
    "the_same_subnet_goes_direct",
)
def test_proc_and_ip_route_agree(lab: Snapshot, claim: Claim) -> None:
    """`ip route show table main` and /proc/net/route list the same routes, on nodes and in pods."""
    lines = 0
    for place, facts in lab.places.items():
        tool = {
            (route.dst, *_first_hop(route), route.metric)
            for route in facts[ROUTES]
            if route.table == "main" and route.kind not in NOT_IN_PROC
        }
        kernel = {(route.dst, route.dev, route.via, route.metric) for route in facts[PROC_ROUTES]}
        claim.require(tool == kernel, f"they differ on {place} in {listed(tool ^ kernel)}")
        lines += len(tool)
    claim.saw(f"{counted(lines, 'route')} in {counted(len(lab.places), 'namespace')}")


NOT_IN_PROC = ("broadcast", "multicast", "anycast")  # kinds of routes that /proc/net/route leaves out


def _first_hop(route: Route) -> tuple[str, IPv4Address | None]:
    """Return interface and gateway as in /proc/net/route: of the first next hop only, and without gateways of IPv6."""
    hop = next(iter(route.hops), NextHop(None, route.dev))
    return hop.dev or "*", hop.via if isinstance(hop.via, IPv4Address) else None


@pytest.mark.remedy("ssh {node} ip rule")
def test_the_tables_are_asked_in_order(lab: Snapshot, claim: Claim) -> None:
    """The kernel looks up the tables local, main and default in this order (`ip rule`), so own addresses come first."""
    for node in lab.nodes:
        order = [rule.table for rule in sorted(node[RULES], key=lambda rule: rule.priority)]
        claim.require(order[0] == "local", f"{node.name} asks {order[0]} first")
        claim.require(order[-2:] == ["main", "default"], f"{node.name} ends with {listed(order[-2:])}", *node[RULES])
    claim.saw(f"{listed(order)} on {counted(len(lab.nodes), 'node')}")


@pytest.mark.remedy(
    "ssh {node} sysctl net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables",
    mends="ssh {node} sudo sysctl -w net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1",
)
def test_nodes_forward(lab: Snapshot, claim: Claim) -> None:
    """A node forwards packets between its interfaces: ip_forward and the switch of every interface by which they arrive
    are on, and bridged packets traverse iptables."""
    expected, switches, bridged = cni.expectations(lab), 0, False
    for node in lab.nodes:
        bridged = not lab.setting.foreign or bool(expected[node.name].bridge)
        for name in ("net.ipv4.ip_forward", *(["net.bridge.bridge-nf-call-iptables"] if bridged else [])):
            claim.require(
                node[SYSCTLS].get(name) == "1", f"{name} is {node[SYSCTLS].get(name, 'missing')} on {node.name}"
            )
        arrivals = {dev for dev, _ in _arrivals(lab, node, expected[node.name])}
        for name in (f"net.ipv4.conf.{dev}.forwarding" for dev in sorted(arrivals)):
            claim.require(
                node[SYSCTLS].get(name, "1") == "1",
                f"{name} is {node[SYSCTLS].get(name)} on {node.name}: what arrives there goes no further",
            )
            switches += name in node[SYSCTLS]
    claim.saw(
        f"{'both switches are' if bridged else 'net.ipv4.ip_forward is'} 1 on "
        f"{listed(node.name for node in lab.nodes)}, and so are {switches} of their interfaces"
    )


def test_no_packet_comes_by_a_wrong_interface(lab: Snapshot, claim: Claim) -> None:
    """No node drops a packet because of the interface it comes by (rp_filter): what pods, nodes and the outside send
    comes by the interface of the way back, or the filter is not strict. The higher value of `all` and the interface's
    own applies."""
    expected, packets, seen = cni.expectations(lab), 0, []
    for node in lab.nodes:
        for dev, source in _arrivals(lab, node, expected[node.name]):
            why = reverse_path.refusal(node, source, dev)
            claim.require(not why, why, *node[RULES])
            packets += 1
        values = {dev: reverse_path.mode(node, dev) for dev, _ in _arrivals(lab, node, expected[node.name])}
        everywhere, shown = reverse_path.mode(node, reverse_path.ALL), listed(f"{dev} {values[dev]}" for dev in values)
        claim.require(
            everywhere != reverse_path.STRICT or lab.setting.cni == "calico" or lab.setting.foreign,  # some default
            f"{reverse_path.switch(reverse_path.ALL)} is 1 on {node.name}, and no interface can be exempt: {shown} "
            "drop what the node would answer by another one",
        )
        claim.require(
            everywhere != reverse_path.LOOSE or lab.setting.cni != "calico" or calico.checks_sources(node),
            f"{reverse_path.switch(reverse_path.ALL)} is 2 on {node.name}, and Felix has no rule of its own against "
            f"wrong sources: it needs 0 or 1; in effect are {shown}",
        )
        seen.append(f"{shown} on {node.name}")
    claim.saw(f"{counted(packets, 'source')} by the interface of the way back; rp_filter: {'; '.join(seen)}")


def _arrivals(lab: Snapshot, node: Node, expected: cni.NodeExpectations) -> list[tuple[str, IPv4Address]]:
    """Return interfaces of a node, each with a source whose packets arrive there: the outside, nodes, pods."""
    far, uplink = expected.tunnel.dev if expected.tunnel else node.uplink, node.uplink
    found = [(uplink, other.address) for other in lab.nodes if other is not node]
    if lab.setting.gateway in lab.setting.network:  # elsewhere the way out is by another interface
        found.insert(0, (uplink, lab.setting.gateway))
    for pod in lab.pods:
        own = expected.bridge or (pod.host_end.name if pod.host_end else "")
        found.append((own if pod.node is node else far, pod.address))
    return [(dev, source) for dev, source in found if node.link(dev)]
