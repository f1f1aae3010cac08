"""Chapter 4, the default gateway: ``ip route``, ``ip neigh``."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from hoplab.expectations import cni
from hoplab.expectations.cni import calico
from hoplab.observe.capture import Capture
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.neighbours import NEIGHBOURS
from hoplab.observe.facts.routes import DEFAULT, ROUTES, lookup
from hoplab.observe.facts.sysctls import SYSCTLS
from hoplab.observe.pcap import CapturedPacket
from hoplab.observe.routing import Flow, decide_on
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import workload
from hoplab.verify.claims import Claim, counted, listed
from hoplab.verify.session import LabSession

pytestmark = pytest.mark.remedy("ssh {node} ip route show table all")


@pytest.mark.needs(cni="flannel")
@pytest.mark.rests_on("a_node_has_the_interfaces_of_its_cni", "a_nodes_range_has_its_ends")
@pytest.mark.rests_on("nodes_are_ready_with_a_range_each", "pods_are_in_their_nodes_range", anywhere=True)
@pytest.mark.remedy("ssh {node} sudo ip -n {netns} route")
def test_a_pods_gateway_is_its_nodes_bridge(lab: Snapshot, claim: Claim) -> None:
    """A pod's default gateway is the first address of its node's range, which is cni0's own (not flannel.1's)."""
    expected = cni.expectations(lab)
    for pod in lab.pods:
        gateway, bridge = expected[pod.node.name].pod_gateway, expected[pod.node.name].bridge
        defaults = [route for route in pod[ROUTES] if route.dst == DEFAULT and route.table == "main"]
        claim.require(
            [(route.via, route.dev) for route in defaults] == [(gateway, "eth0")],
            f"{pod} has the default routes {listed(defaults)}, not one via {gateway} dev eth0",
        )
        owners = [entry.dev for entry in pod.node[ADDRESSES] if entry.address == gateway]
        claim.require(owners == [bridge], f"{gateway} is on {listed(owners)} of {pod.node.name}, not on {bridge}")
    claim.saw(
        listed(
            f"{counted(len(lab.pods_on(node)), 'pod')} of {node.name} via {expected[node.name].pod_gateway}"
            for node in lab.nodes
        )
    )


@pytest.mark.needs(cni="calico")
@pytest.mark.rests_on("a_pod_hangs_on_a_veth_pair", "calico_has_no_bridge")
@pytest.mark.remedy("ssh {node} sudo ip -n {netns} route")
def test_calicos_gateway_is_nobodys_address(lab: Snapshot, claim: Claim) -> None:
    """With Calico a pod's default gateway is 169.254.1.1, which no interface has: the pod's interface on the node,
    always ee:ee:ee:ee:ee:ee, answers for it by proxy ARP."""
    for place, facts in lab.places.items():
        owners = [entry.dev for entry in facts[ADDRESSES] if entry.address == calico.GATEWAY]
        claim.require(not owners, f"{calico.GATEWAY} is on {listed(owners)} of {place}")
    for pod in lab.pods:
        gateway = cni.expectations(lab)[pod.node.name].pod_gateway
        by_eth0 = [route for route in pod[ROUTES] if (route.table, route.dev) == ("main", "eth0")]  # Multus has others
        found = {(route.dst, route.via, route.dev) for route in by_eth0}
        wanted = {(DEFAULT, gateway, "eth0"), (IPv4Network(gateway), None, "eth0")}
        claim.require(found == wanted, f"{pod} has other routes than the two to {gateway}", *pod[ROUTES])
        claim.require(pod.host_end, f"the node's end of the pair of {pod} is missing")
        assert pod.host_end
        claim.require(
            pod.host_end.mac == calico.HOST_MAC,
            f"{pod.host_end.name}, the end of {pod}, has the MAC {pod.host_end.mac}",
        )
        switch = f"net.ipv4.conf.{pod.host_end.name}.proxy_arp"
        claim.require(
            pod.node[SYSCTLS].get(switch) == "1",
            f"{pod.host_end.name} of {pod.node.name} answers for no other: {switch} is {pod.node[SYSCTLS].get(switch)}",
        )
        learned = {entry.mac for entry in pod[NEIGHBOURS] if entry.address == gateway and entry.mac}
        claim.require(learned <= {calico.HOST_MAC}, f"{pod} was told that {gateway} is at {listed(learned)}")
    claim.saw(f"{counted(len(lab.pods), 'pod')} via {calico.GATEWAY}, which is on no interface, at {calico.HOST_MAC}")


@pytest.mark.needs(own_lab=True)
@pytest.mark.rests_on("every_node_has_its_own_address")
@pytest.mark.remedy(
    "ssh {node} ip route show default",
    mends="ssh {node} sudo ip route replace default via {gateway} dev {dev}",
    says="not via (?P<gateway>[^ ]+) dev (?P<dev>[^ ]+)",
)
@pytest.mark.remedy("ssh {node} ip neigh show dev eth0")
def test_a_nodes_gateway_is_the_labs(lab: Snapshot, claim: Claim) -> None:
    """A node's default gateway is the host end of the lab network; the node resolves its MAC by ARP."""
    macs = set()
    for node in lab.nodes:
        chosen = lookup([route for route in node[ROUTES] if route.dst == DEFAULT], lab.setting.gateway)
        claim.require(
            chosen and (chosen.via, chosen.dev) == (lab.setting.gateway, "eth0"),
            f"{node.name} has the default route {chosen}, not via {lab.setting.gateway} dev eth0",
        )
        known = [entry for entry in node[NEIGHBOURS] if (entry.address, entry.dev) == (lab.setting.gateway, "eth0")]
        claim.require(
            known and known[0].mac and "PERMANENT" not in known[0].states,
            f"{node.name} has learned no MAC for {lab.setting.gateway}",
            *node[NEIGHBOURS],
        )
        macs.add(known[0].mac)
    claim.require(len(macs) == 1, f"the nodes learned different MACs for {lab.setting.gateway}", *macs)
    claim.saw(f"{counted(len(lab.nodes), 'node')} via {lab.setting.gateway}, which is at {macs.pop()}")


@pytest.mark.needs(one_subnet=True)
@pytest.mark.rests_on("every_node_has_its_own_address")
@pytest.mark.rests_on("nodes_are_ready_with_a_range_each", "pods_are_in_their_nodes_range", anywhere=True)
@pytest.mark.remedy("ssh {node} sudo ip -n {netns} route")
def test_the_same_subnet_goes_direct(lab: Snapshot, claim: Claim) -> None:
    """Destinations in the same subnet are reached directly, all others through the gateway; with Calico a pod's subnet
    is the pod alone (/32), so every packet takes the gateway."""
    expected = cni.expectations(lab)
    for pod in lab.pods:
        subnets = expected[pod.node.name].ranges if expected[pod.node.name].bridge else ()
        for subnet in subnets:
            direct = [route for route in pod[ROUTES] if route.dst == subnet and route.table == "main"]
            claim.require(direct and direct[0].via is None, f"{pod} does not reach {subnet} directly", *pod[ROUTES])
        for other in lab.pods:
            chosen = decide_on(pod.facts, Flow(other.address))
            if other is not pod:
                claim.require(
                    chosen.direct == any(other.address in subnet for subnet in subnets),
                    f"{pod} on {pod.node.name} sends to {other} on {other.node.name} by `{chosen.way}`{chosen.why}",
                )
    for node in lab.nodes:
        for other_node in lab.nodes:
            chosen = decide_on(node.facts, Flow(other_node.address))
            claim.require(
                chosen.direct,
                f"{node.name} does not reach {other_node.name} directly but by `{chosen.way}`{chosen.why}",
            )
    claim.saw(
        f"{counted(len(lab.pods), 'pod')} reach their own subnet directly and all else through the gateway; "
        "nodes reach each other directly"
    )


@pytest.mark.beside_scaling
@pytest.mark.rests_on(
    "the_host_end_is_a_port_of_the_bridge",
    "calicos_gateway_is_nobodys_address",
    "the_same_subnet_goes_direct",
    "the_longest_prefix_decides",
    "nodes_forward",
    "nothing_on_the_way_drops_it_on_one_node",
)
def test_pods_of_one_node_need_no_gateway(session: LabSession, claim: Claim) -> None:
    """Between pods of one node a packet crosses the bridge with its TTL unchanged (Calico routes it) and never leaves
    by eth0."""
    server, client = session.single, session.client
    claim.require(client.host_end and server.host_end, f"{client} or {server} has no veth pair")
    assert client.host_end and server.host_end
    between = f"host {client.address} and host {server.address}"
    tunnel = cni.expectations(session.snapshot)[server.node.name].tunnel
    asked = session.request(
        client,
        f"http://{server.address}:{workload.PORT}/",
        {
            "sent": Capture(client.host_end.name, between),
            "arrived": Capture(server.host_end.name, between),
            "left": Capture(server.node.uplink, f"({between}) or ({tunnel.filter})" if tunnel else between),
        },
    )
    claim.require(asked.answered, f"{server} does not answer {client}: {asked.why}")

    def ours(name: str) -> list[CapturedPacket]:
        pair = (client.address, server.address)
        return [
            packet
            for packet in asked.packets[name]
            if pair in {(at.src, at.dst) for at in (packet, packet.inner) if at}
        ]

    claim.require(
        not ours("left"),
        f"what {client} sends to {server} leaves {server.node.name} by {server.node.uplink}",
        *ours("left"),
    )
    claim.require(
        ours("sent") and ours("arrived"), f"nothing was seen between {client.host_end.name} and {server.host_end.name}"
    )
    hops = ours("sent")[0].ttl - ours("arrived")[0].ttl
    bridged = bool(cni.expectations(session.snapshot)[server.node.name].bridge)
    claim.require(
        hops == (0 if bridged else 1),
        f"between {client.host_end.name} and {server.host_end.name} the TTL fell by {hops}",
        ours("sent")[0],
        ours("arrived")[0],
    )
    claim.saw(
        f"{client.host_end.name} to {server.host_end.name} with the TTL {ours('arrived')[0].ttl}, nothing on "
        f"{server.node.uplink}: "
        f"{ours('arrived')[0]}"
    )
