"""Chapter 1, addresses: ``ip address``, on nodes and inside pods."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.snapshot import Snapshot
from hoplab.verify.claims import Claim, counted, listed

pytestmark = pytest.mark.remedy("ssh {node} ip address")

LOOPBACK = IPv4Address("127.0.0.1")
RFC1918 = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))


@pytest.mark.needs(one_subnet=True)
def test_every_node_has_its_own_address(lab: Snapshot, claim: Claim) -> None:
    """Every node has its own address in the lab network, and Kubernetes has the same address as its InternalIP."""
    for node in lab.nodes:
        planned = lab.setting.nodes[node.name]
        found = [entry for entry in node[ADDRESSES] if entry.dev == node.uplink]
        claim.require(
            any(entry.address == planned and entry.network == lab.setting.network for entry in found),
            f"{node.name} has no {planned} in {lab.setting.network} on {node.uplink}",
            *found,
        )
        claim.require(node.address == planned, f"Kubernetes knows {node.name} by {node.address}, not by {planned}")
    claim.saw(listed(f"{node.name} has {node.address}" for node in lab.nodes))


@pytest.mark.remedy("kubectl describe nodes")
def test_no_two_nodes_are_copies_of_one_machine(lab: Snapshot, claim: Claim) -> None:
    """No two nodes share the MAC of eth0, the machine-id or the product UUID, as copies of one virtual machine do."""
    seen: dict[tuple[str, str], str] = {}
    for node in lab.nodes:
        uplink = node.link(node.uplink)
        marks = {"MAC": uplink.mac if uplink else "", "machine-id": node.api.machine_id, "UUID": node.api.system_uuid}
        for mark in ((kind, value.lower()) for kind, value in marks.items() if value):
            claim.require(
                mark not in seen,
                f"{seen.get(mark)} and {node.name} have the same {mark[0]} {mark[1]}: one is a copy of the other",
            )
            seen[mark] = node.name
    kinds = dict.fromkeys(kind for kind, _ in seen)
    claim.saw(f"{listed(kinds)} of {counted(len(lab.nodes), 'node')} differ")


@pytest.mark.rests_on("nodes_are_ready_with_a_range_each", "pods_are_in_their_nodes_range", anywhere=True)
@pytest.mark.remedy("kubectl get pods -A -o wide")
def test_every_pod_has_its_own_address(lab: Snapshot, claim: Claim) -> None:
    """Every pod has its own network namespace, whose eth0 has its own address from the pod range."""
    claim.require(lab.own_address_pods, "no pod with an address of its own is running")
    found = {pod.api: pod for pod in lab.pods}
    for pod in lab.own_address_pods:
        claim.require(pod in found, f"no network namespace on {pod.node} has {pod.address}, the address of {pod}")
        claim.require(
            pod.address in lab.setting.pod_cidr, f"{pod} has {pod.address}, outside of {lab.setting.pod_cidr}"
        )
        claim.require(
            any(entry.dev == "eth0" and entry.address == pod.address for entry in found[pod][ADDRESSES]),
            f"{pod} has {pod.address} on another interface than eth0",
            *found[pod][ADDRESSES],
        )
    addresses = sorted(pod.address for pod in lab.pods)
    claim.require(len(set(addresses)) == len(addresses), "two pods share an address", *addresses)
    claim.saw(f"{counted(len(addresses), 'pod')} in {lab.setting.pod_cidr}: {listed(addresses)}")


@pytest.mark.needs(own_lab=True)
@pytest.mark.rests_on("calicos_gateway_is_nobodys_address")
def test_all_addresses_are_private(lab: Snapshot, claim: Claim) -> None:
    """Nodes, pods and services use private ranges (RFC 1918), which the internet does not route."""
    ranges = {
        "the lab network": lab.setting.network,
        "the pod range": lab.setting.pod_cidr,
        "the service range": lab.setting.service_cidr,
    }
    home = {
        name: next((network for network in RFC1918 if used.subnet_of(network)), None) for name, used in ranges.items()
    }
    for name, private in home.items():
        claim.require(private, f"{name} {ranges[name]} is in none of {listed(RFC1918)}")
    for place, facts in lab.places.items():
        for entry in facts[ADDRESSES]:
            claim.require(
                entry.address.is_loopback or any(entry.address in private for private in RFC1918),
                f"{entry.dev} of {place} has the public address {entry.address}",
            )
    claim.saw(listed(f"{name} {ranges[name]} is in {private}" for name, private in home.items()))


def test_every_namespace_has_its_own_loopback(lab: Snapshot, claim: Claim) -> None:
    """Every network namespace has its own lo with 127.0.0.1, so in a pod this address means that pod only."""
    for place, facts in lab.places.items():
        claim.require(
            any((entry.dev, entry.address) == ("lo", LOOPBACK) for entry in facts[ADDRESSES]),
            f"{place} has no {LOOPBACK} on lo",
            *facts[ADDRESSES],
        )
    claim.saw(f"lo has {LOOPBACK} on {counted(len(lab.nodes), 'node')} and in {counted(len(lab.pods), 'pod')}")
