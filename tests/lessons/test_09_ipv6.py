"""Chapter 9, the second family: ``ip -6``, ``ip6tables-save``, on labs with ``ipv6`` in their spec (dual-stack)."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from hoplab.core.ip import with_port
from hoplab.expectations import cni, proxy
from hoplab.expectations.cni import cilium
from hoplab.netfilter.packet import Packet
from hoplab.netfilter.ruleset import postrouting, prerouting
from hoplab.observe.capture import Capture
from hoplab.observe.facts.addresses import ADDRESSES6
from hoplab.observe.facts.fdb import FDB
from hoplab.observe.facts.neighbours import NEIGHBOURS6
from hoplab.observe.facts.routes import ROUTES6
from hoplab.observe.facts.sysctls import SYSCTLS
from hoplab.observe.routing import Flow, decide_on
from hoplab.observe.snapshot import Pod, Snapshot
from hoplab.spec.model import Ipv6Spec
from hoplab.verify import workload
from hoplab.verify.claims import Claim, counted, listed
from hoplab.verify.session import LabSession

pytestmark = [pytest.mark.needs(ipv6=True), pytest.mark.remedy("ssh {node} ip -6 route show table all")]

FORWARDING = "net.ipv6.conf.all.forwarding"


def ranges(lab: Snapshot) -> Ipv6Spec:
    assert lab.setting.ipv6
    return lab.setting.ipv6


@pytest.mark.needs(one_subnet=True)
def test_everybody_has_an_address_of_each_family(lab: Snapshot, claim: Claim) -> None:
    """In a dual-stack lab every node and every pod has an IPv6 address beside its IPv4 address; a pod's is from its
    node's range (a /64 with flannel, blocks with Calico)."""
    expected = cni.expectations6(lab)
    for node in lab.nodes:
        planned = lab.setting.nodes6[node.name]
        found = [entry for entry in node[ADDRESSES6] if entry.dev == node.uplink]
        claim.require(
            any(entry.address == planned and entry.network == ranges(lab).network for entry in found),
            f"{node.name} has no {planned} in {ranges(lab).network} on {node.uplink}",
            *found,
        )
        claim.require(node.address6 == planned, f"Kubernetes knows {node.name} by {node.address6}, not by {planned}")
    for pod in lab.pods:
        claim.require(
            any((entry.dev, entry.address) == ("eth0", pod.address6) for entry in pod[ADDRESSES6]),
            f"{pod} has no {pod.address6} on its eth0",
            *pod[ADDRESSES6],
        )
        claim.require(
            any(pod.address6 in cidr for cidr in expected[pod.node.name].ranges),
            f"{pod} has {pod.address6}, which is not of {pod.node.name}'s {listed(expected[pod.node.name].ranges)}",
        )
    addresses = sorted(pod.address6 for pod in lab.pods)
    claim.require(len(set(addresses)) == len(addresses), "two pods share an address", *addresses)
    claim.saw(
        f"{listed(f'{node.name} has {node.address} and {node.address6}' for node in lab.nodes)}; "
        f"{counted(len(addresses), 'pod')} in {ranges(lab).pod_cidr}: {listed(addresses)}"
    )


@pytest.mark.rests_on("a_pod_hangs_on_a_veth_pair", "a_node_has_the_interfaces_of_its_cni")
@pytest.mark.rests_on("everybody_has_an_address_of_each_family", anywhere=True)
def test_a_pods_way_out_by_ipv6(lab: Snapshot, claim: Claim) -> None:
    """A pod has an IPv6 default route: with a bridge CNI through the bridge, which has the first address of the node's
    range, with Calico through the link-local address of its veth's other end, with Cilium through the address of
    cilium_host."""
    expected = cni.expectations6(lab)
    for pod in lab.pods:
        gateway = expected[pod.node.name].pod_gateway
        one_for_all = cilium.HOST if cni.by_programs(lab) else expected[pod.node.name].bridge
        defaults = [route for route in pod[ROUTES6] if route.dst.prefixlen == 0 and route.kind == "unicast"]
        claim.require(
            [(route.via, route.dev) for route in defaults] == [(gateway, "eth0")],
            f"{pod} has the default routes {listed(defaults)}, not one via {gateway} dev eth0",
            *pod[ROUTES6],
        )
        end = one_for_all or (pod.host_end.name if pod.host_end else "")
        owners = [entry.dev for entry in pod.node[ADDRESSES6] if entry.address == gateway]
        claim.require(
            end in owners and (not one_for_all or len(owners) == 1),
            f"{gateway} is on {listed(owners)} of {pod.node.name}, not on {end}",
        )
    claim.saw(
        listed(
            f"{counted(len(lab.pods_on(node)), 'pod')} of {node.name} via {expected[node.name].pod_gateway}"
            for node in lab.nodes
        )
    )


@pytest.mark.rests_on("a_node_has_the_interfaces_of_its_cni")
@pytest.mark.rests_on(
    "nodes_are_ready_with_a_range_each",
    "pods_are_in_their_nodes_range",
    "everybody_has_an_address_of_each_family",
    "bgp_tells_the_nodes_of_each_other",
    anywhere=True,
)
def test_nodes_route_ipv6_as_they_route_ipv4(lab: Snapshot, claim: Claim) -> None:
    """A node has the same routes for IPv6 as for IPv4: to its own pods by the bridge (with Calico by their interfaces),
    to those of every other node through that node. IPv6 forwarding has its own sysctl."""
    seen = []
    for node in lab.nodes:
        expected = cni.expectations6(lab)[node.name]
        routes = (*expected.own_routes, *expected.routes, *expected.blackholes)
        claim.each_met(routes, node[ROUTES6], where=node.name, kind="route")
        found = node[SYSCTLS].get(FORWARDING, "missing")
        claim.require(found == "1", f"{FORWARDING} is {found} on {node.name}")
        seen += [f"{node.name}: {route}" for route in expected.routes or expected.own_routes]
    claim.saw(listed(seen))


@pytest.mark.needs(backend="vxlan", nodes=2, programs=False)
@pytest.mark.rests_on("a_node_has_the_interfaces_of_its_cni")
@pytest.mark.rests_on("everybody_has_an_address_of_each_family", anywhere=True)
def test_who_unwraps_ipv6_is_written_down(lab: Snapshot, claim: Claim) -> None:
    """VXLAN has a second interface for IPv6 with a longer outer header: it too has a neighbour entry and an FDB entry
    for every remote node, with the node's IPv6 address."""
    entries = 0
    for node in lab.nodes:
        expected = cni.expectations6(lab)[node.name]
        tunnel = expected.tunnel
        link = node.link(tunnel.dev) if tunnel else None
        claim.require(link and tunnel, f"{node.name} has no VXLAN interface for IPv6")
        assert link and tunnel
        room = node.link(node.uplink)
        wanted = room.mtu - tunnel.overhead if room else 0
        claim.require(link.mtu == wanted, f"{tunnel.dev} on {node.name} has the MTU {link.mtu}, not {wanted}")
        claim.require(link.mac == tunnel.mac, f"{node.name} announces {tunnel.mac}, but {tunnel.dev} has {link.mac}")
        entries += claim.each_met(expected.neighbours, node[NEIGHBOURS6], where=node.name, kind="neighbour")
        entries += claim.each_met(expected.fdb, node[FDB], where=node.name, kind="FDB entry")
    first = cni.expectations6(lab)[lab.nodes[0].name]
    claim.saw(f"{counted(entries, 'entry')}; on {lab.nodes[0].name}: {listed((*first.neighbours, *first.fdb))}")


@pytest.mark.needs(workload_pods=True, kube_proxy=True)
@pytest.mark.rests_on("kube_proxys_table_is_called_by_the_kernel")
def test_a_service_of_both_families_has_two_addresses(lab: Snapshot, claim: Claim) -> None:
    """A dual-stack service has a ClusterIP of each family; rules of their own lead from the IPv6 one to the IPv6
    addresses of the same pods. The other services have IPv4 only."""
    client, services = ranges(lab).pod_cidr[-2], proxy.expectations6(lab)
    claim.require(services, "no service has a ClusterIP of IPv6")
    for service in services:
        claim.require(service.cluster_ip in ranges(lab).service_cidr, f"{service} is not in {ranges(lab).service_cidr}")
        wanted = {endpoint.to: proxy.of(lab).way(service, endpoint) for endpoint in service.endpoints}
        claim.require(wanted, f"{service} has no endpoint of IPv6")
        for node in lab.nodes:
            ends = prerouting(node, proxy.connection(client, service))
            found = {
                end.to: tuple(chain for chain in end.chains if chain in wanted[end.to])
                for end in ends
                if end.to in wanted
            }
            claim.require(
                found == wanted and all(end.verdict == "DNAT" for end in ends),
                f"on {node.name} {service} leads to {listed(sorted(end.to or end.verdict for end in ends))}, "
                f"not to {listed(wanted)} by {service.chain}",
                *(rule for end in ends for rule in end.path),
            )
    named = {service.service: service for service in proxy.expectations(lab)}
    last = services[-1]
    claim.saw(
        f"{last.service} is {named[last.service].cluster_ip} and {last.cluster_ip}, which leads to {listed(wanted)}"
    )


@pytest.mark.rests_on("everybody_has_an_address_of_each_family")
def test_what_leaves_the_ipv6_pod_range_is_masqueraded(lab: Snapshot, claim: Claim) -> None:
    """What a pod sends out of the cluster by IPv6 leaves with its node's address; what it sends to another pod keeps
    the pod's."""
    outside = ranges(lab).network[1]
    for node in lab.nodes:
        for pod in lab.pods_on(node):
            for end in postrouting(node, Packet(pod.address6, outside, out_dev=node.uplink)):
                claim.require(
                    end.verdict == "MASQUERADE",
                    f"on {node.name} a packet of {pod} to {outside} ends in {end.verdict}, not MASQUERADE",
                    *end.path,
                )
            for other in lab.pods:
                route = decide_on(node.facts, Flow(other.address6)).route
                out = route.dev if route else ""
                for end in postrouting(node, Packet(pod.address6, other.address6, out_dev=out)):
                    claim.require(
                        end.verdict == "ACCEPT", f"on {node.name} a packet of {pod} to {other} is translated", *end.path
                    )
    claim.saw(f"so it is for {counted(len(lab.pods), 'pod')} in the rules of {counted(len(lab.nodes), 'node')}")


@pytest.mark.needs(nodes=2)
@pytest.mark.rests_on(
    "who_unwraps_ipv6_is_written_down",
    "nodes_route_ipv6_as_they_route_ipv4",
    "a_pods_way_out_by_ipv6",
    "what_leaves_the_ipv6_pod_range_is_masqueraded",
)
def test_pods_of_two_nodes_talk_by_ipv6(session: LabSession, claim: Claim) -> None:
    """Between pods IPv6 crosses the lab network like IPv4, encapsulated or not, and no address is translated."""
    pod, other = session.echo_pods[:2]
    tunnel = cni.expectations6(session.snapshot)[pod.node.name].tunnel
    between = f"host {pod.address6} and host {other.address6}"
    asked = session.request(
        pod,
        f"http://{with_port(other.address6, workload.PORT)}/",
        {"outer": Capture(pod.node.uplink, f"({between}) or ({tunnel.filter})" if tunnel else between)},
    )
    claim.require(
        asked.answer.remote == pod.address6, f"{other} saw {asked.answer.remote}, not {pod.address6} of {pod}"
    )
    ours = [packet for packet in asked.packets["outer"] if (packet.inner or packet).dst == other.address6]
    claim.require(ours, f"nothing for {other} left {pod.node.name} by {pod.node.uplink}", *asked.packets["outer"])
    for packet in ours:
        outer = (packet.src, packet.dst, packet.vni)
        wanted: tuple[object, ...] = (pod.address6, other.address6, None)
        if tunnel and tunnel.vni_per_packet:  # Cilium wraps both families in IPv4; the VNI is the sender's identity
            wanted = (pod.node.address, other.node.address, packet.vni)
        elif tunnel:
            wanted = (pod.node.address6, other.node.address6, tunnel.vni)
        claim.require(
            outer == wanted,
            f"on {pod.node.uplink} it is from {packet.src} to {packet.dst}, not wrapped as expected",
            packet,
        )
    claim.saw(f"{other} saw {asked.answer.remote}; on {pod.node.uplink} of {pod.node.name}: {ours[0]}", *ours)


@pytest.mark.rests_on("a_service_of_both_families_has_two_addresses", "pods_of_two_nodes_talk_by_ipv6")
def test_an_ipv6_cluster_ip_is_a_pod(session: LabSession, claim: Claim) -> None:
    """A connection to an IPv6 ClusterIP reaches one of its pods; the client's address stays."""
    service, client = session.service("echo", ipv6=True), session.client
    answer = session.request(client, f"http://{with_port(service.cluster_ip, service.port)}/").answer
    behind = {endpoint.address for endpoint in service.endpoints}
    claim.require(answer.local in behind, f"{answer.local} answered for {service}, which is not behind it", *behind)
    itself = answer.local == client.address6
    kept = stands_for_itself(session.snapshot, client) if itself else {client.address6}
    claim.require(answer.remote in kept, f"the pod saw {answer.remote}, not {listed(sorted(kept))} of {client}")
    claim.saw(f"{service.cluster_ip} is {answer.local}, {answer.pod} on {answer.node}, which saw {answer.remote}")


def stands_for_itself(lab: Snapshot, pod: Pod) -> set[IPv6Address]:
    """Return whom a pod may see where a service has led it to itself."""
    if not lab.setting.has_kube_proxy:  # its socket was given its own address, and nothing was translated
        return {pod.address6}
    of_node = {entry.address for entry in pod.node[ADDRESSES6]}  # the bridge's, or eth0's where there is none
    return of_node | {IPv6Address(cilium.LOOPBACK[6])} if cni.by_programs(lab) else of_node


@pytest.mark.needs(own_lab=True)
@pytest.mark.rests_on(
    "what_leaves_the_ipv6_pod_range_is_masqueraded", "a_pods_way_out_by_ipv6", "nodes_route_ipv6_as_they_route_ipv4"
)
def test_the_outside_sees_the_nodes_ipv6_address(session: LabSession, claim: Claim) -> None:
    """A pod's IPv6 packets leave the cluster with its node's address."""
    assert session.external6
    seen = []
    for pod in session.echo_pods:
        path = session.unique_path()
        asked = session.request(pod, session.external6.url(path))
        claim.require(asked.answered, f"{pod} gets no answer from the outside: {asked.why}")
        asker = session.external6.client_of(path)
        claim.require(
            asker == pod.node.address6, f"the outside saw {asker}, not {pod.node.address6}, that of {pod.node.name}"
        )
        seen.append(f"{pod.address6} was seen as {asker}")
    claim.saw(listed(seen))
