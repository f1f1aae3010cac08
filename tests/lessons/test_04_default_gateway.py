"""Chapter 4, the default gateway: ``ip route``, ``ip neigh``."""

from __future__ import annotations

from hoplab import cni
from hoplab.claims import Claim, counted, listed
from hoplab.facts.addresses import ADDRESSES
from hoplab.facts.neighbours import NEIGHBOURS
from hoplab.facts.routes import DEFAULT, ROUTES, lookup
from hoplab.snapshot import Snapshot


def test_a_pods_gateway_is_its_nodes_bridge(lab: Snapshot, claim: Claim) -> None:
    """A pod's default gateway is the first address of its node's range, which is cni0's own (not flannel.1's)."""
    promised = cni.promises(lab)
    for pod in lab.pods:
        gateway, bridge = promised[pod.node.name].pod_gateway, promised[pod.node.name].bridge
        defaults = [route for route in pod[ROUTES] if route.dst == DEFAULT and route.table == "main"]
        claim.require(
            [(route.via, route.dev) for route in defaults] == [(gateway, "eth0")],
            f"{pod} has the default routes {listed(defaults)}, not one via {gateway} dev eth0",
        )
        owners = [each.dev for each in pod.node[ADDRESSES] if each.address == gateway]
        claim.require(owners == [bridge], f"{gateway} is on {listed(owners)} of {pod.node.name}, not on {bridge}")
    claim.saw(
        listed(
            f"{counted(len(lab.pods_on(node)), 'pod')} of {node.name} via {promised[node.name].pod_gateway}"
            for node in lab.nodes
        )
    )


def test_a_nodes_gateway_is_the_labs(lab: Snapshot, claim: Claim) -> None:
    """A node's default gateway is the host end of the lab network, whose MAC it learned by ARP."""
    macs = set()
    for node in lab.nodes:
        chosen = lookup([route for route in node[ROUTES] if route.dst == DEFAULT], lab.setting.gateway)
        claim.require(
            chosen and (chosen.via, chosen.dev) == (lab.setting.gateway, "eth0"),
            f"{node.name} has the default route {chosen}, not via {lab.setting.gateway} dev eth0",
        )
        known = [each for each in node[NEIGHBOURS] if (each.address, each.dev) == (lab.setting.gateway, "eth0")]
        claim.require(
            known and known[0].mac and "PERMANENT" not in known[0].states,
            f"{node.name} has learned no MAC for {lab.setting.gateway}",
            *node[NEIGHBOURS],
        )
        macs.add(known[0].mac)
    claim.require(len(macs) == 1, f"the nodes learned different MACs for {lab.setting.gateway}", *macs)
    claim.saw(f"{counted(len(lab.nodes), 'node')} via {lab.setting.gateway}, which is at {macs.pop()}")


def test_the_same_subnet_goes_direct(lab: Snapshot, claim: Claim) -> None:
    """What is in the same subnet is reached directly; anything else goes through the gateway."""
    for pod in lab.pods:
        direct = [each for each in pod[ROUTES] if each.dst == pod.node.pod_cidr and each.table == "main"]
        claim.require(
            direct and direct[0].via is None, f"{pod} does not reach {pod.node.pod_cidr} directly", *pod[ROUTES]
        )
        for other in lab.pods:
            chosen = lookup(pod[ROUTES], other.address)
            if other is not pod:
                claim.require(
                    chosen and (chosen.via is None) == (other.node is pod.node),
                    f"{pod} on {pod.node.name} sends to {other} on {other.node.name} by `{chosen}`",
                )
    for node in lab.nodes:
        for other_node in lab.nodes:
            chosen = lookup(node[ROUTES], other_node.address)
            claim.require(
                chosen and chosen.via is None,
                f"{node.name} does not reach {other_node.name} directly but by `{chosen}`",
            )
    claim.saw(
        f"{counted(len(lab.pods), 'pod')} reach their own node's range directly and all else through the gateway; "
        "nodes reach each other directly"
    )
