"""Chapter 5, subnets and CIDR: ``kubectl get nodes -o jsonpath=...podCIDR``, ``kubectl get services -A``."""

from __future__ import annotations

from itertools import combinations

import pytest

from hoplab.expectations import cni
from hoplab.expectations.cni import calico
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.api_ipam_blocks import API_IPAM_BLOCKS
from hoplab.observe.facts.api_nodes import API_NODES
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.facts.prefix_arithmetic import ADDRESSES as SUMS
from hoplab.observe.facts.prefix_arithmetic import PREFIX_ARITHMETIC
from hoplab.observe.facts.routes import ROUTES
from hoplab.observe.snapshot import Snapshot
from hoplab.verify.claims import Claim, counted, listed

pytestmark = pytest.mark.remedy("kubectl get nodes,services -A -o wide")

NODE_PREFIX = 24


@pytest.mark.needs(node_ranges=True)
@pytest.mark.remedy("kubectl describe node {node}")
def test_nodes_are_ready_with_a_range_each(lab: Snapshot, claim: Claim) -> None:
    """Every node is Ready and has its own /24 of the pod range; no two overlap."""
    known = {node.name: node for node in lab.api[API_NODES]}
    for name in lab.setting.nodes:
        claim.require(name in known, f"{name} is a machine of the lab but no node of the cluster", listed(known))
        claim.require(known[name].ready, f"{name} is not Ready: {known[name].why_not_ready}")
    for node in lab.nodes:
        claim.require(
            (lab.setting.foreign or node.pod_cidr.prefixlen == NODE_PREFIX)
            and node.pod_cidr.subnet_of(lab.setting.pod_cidr),
            f"{node.name} has {node.pod_cidr}, which is no /{NODE_PREFIX} of {lab.setting.pod_cidr}",
        )
    for one, other in combinations(lab.nodes, 2):
        claim.require(
            not one.pod_cidr.overlaps(other.pod_cidr),
            f"{one.name} has {one.pod_cidr}, which overlaps {other.pod_cidr} of {other.name}",
        )
    claim.saw(listed(f"{node.name} is Ready with {node.pod_cidr}" for node in lab.nodes))


@pytest.mark.rests_on("nodes_are_ready_with_a_range_each", "blocks_do_not_overlap", anywhere=True)
@pytest.mark.remedy("kubectl get pods -A -o wide")
def test_pods_are_in_their_nodes_range(lab: Snapshot, claim: Claim) -> None:
    """Each pod's address is inside a range of the node it runs on: with flannel the node's /24, with Calico one of its
    blocks."""
    ranges = {node.name: cni.expectations(lab)[node.name].ranges for node in lab.nodes}
    pods = [pod for pod in lab.own_address_pods if pod.node in ranges]
    claim.require(pods, "no pod with an address of its own is running")
    for pod in pods:
        claim.require(
            any(pod.address in cidr for cidr in ranges[pod.node]),
            f"{pod} has {pod.address}, but {pod.node}, where it runs, has {listed(ranges[pod.node])}",
        )
    claim.saw(listed(f"{pod.address} is in {listed(ranges[pod.node])}" for pod in pods))


@pytest.mark.needs(cni="calico")
def test_blocks_do_not_overlap(lab: Snapshot, claim: Claim) -> None:
    """Calico divides the pod range into blocks (/26 by default) and assigns them to nodes as they need them; the /24
    that Kubernetes gives each node stays unused."""
    size = lab.setting.block_size
    for block in lab.api[API_IPAM_BLOCKS]:
        claim.require(
            block.cidr.prefixlen == size and block.cidr.subnet_of(lab.setting.pod_cidr),
            f"{block.cidr} of {block.node} is no /{size} of {lab.setting.pod_cidr}",
        )
    for one, other in combinations(lab.api[API_IPAM_BLOCKS], 2):
        claim.require(
            not one.cidr.overlaps(other.cidr), f"{one.cidr} of {one.node} overlaps {other.cidr} of {other.node}"
        )
    for node in lab.nodes:
        claim.require(
            calico.blocks(lab, node) or not lab.has_pods_on(node),  # the first pod of a node makes its first block
            f"no block belongs to {node.name}",
            *lab.api[API_IPAM_BLOCKS],
        )
    claim.saw(listed(lab.api[API_IPAM_BLOCKS]))


def test_first_and_last_address_follow_from_the_prefix(lab: Snapshot, claim: Claim) -> None:
    """Network, broadcast, first and last usable address follow from the prefix; the kernel computes the same ones."""
    for node in lab.nodes:
        main = {route.dst for route in node[PREFIX_ARITHMETIC] if route.table == "main" and route.scope == "link"}
        ends = {route.dst[0] for route in node[PREFIX_ARITHMETIC] if route.kind == "broadcast"}
        for given in SUMS:
            network = given.network
            alone = network.prefixlen == 32  # one address: nothing else is in its network
            claim.require(alone or network in main, f"{given} on {node.name} makes no route to {network}", *main)
            claim.require(
                alone or network.broadcast_address in ends,
                f"{given} on {node.name} makes no broadcast address {network.broadcast_address}",
                *ends,
            )
    claim.saw(
        listed(f"{given} is in {given.network.network_address} to {given.network.broadcast_address}" for given in SUMS)
    )


@pytest.mark.needs(cni="flannel")
@pytest.mark.rests_on("a_node_has_the_interfaces_of_its_cni")
@pytest.mark.rests_on("nodes_are_ready_with_a_range_each", "pods_are_in_their_nodes_range", anywhere=True)
def test_a_nodes_range_has_its_ends(lab: Snapshot, claim: Claim) -> None:
    """In a node's range the last address is for broadcast, the first usable one is the bridge's, and pods have the
    rest."""
    nodes = [node for node in lab.nodes if lab.has_pods_on(node)]  # the others need no bridge
    for node in nodes:
        broadcast = [route.dst[0] for route in node[ROUTES] if route.kind == "broadcast"]
        last = node.pod_cidr.broadcast_address
        claim.require(last in broadcast, f"{last} is no broadcast address on {node.name}", *broadcast)
        first = node.pod_cidr[1]
        claim.require(
            any(entry.address == first for entry in node[ADDRESSES]),
            f"{first}, the first of {node.pod_cidr}, is not on {node.name}",
        )
        for pod in lab.pods:
            claim.require(
                pod.address not in (node.pod_cidr[0], first, last), f"{pod} has {pod.address}, an end of its range"
            )
    claim.saw(
        listed(
            f"{node.pod_cidr}: {node.pod_cidr[1]} is {node.name}'s own, {node.pod_cidr[-1]} is for broadcast"
            for node in nodes
        )
    )


def test_services_have_a_range_of_their_own(lab: Snapshot, claim: Claim) -> None:
    """ClusterIPs come from the service range: `kubernetes` has its first address, `kube-dns` its tenth."""
    services = {str(service): service for service in lab.api[API_SERVICES]}
    for name, expected in (
        ("default/kubernetes", lab.setting.api_service_ip),
        ("kube-system/kube-dns", lab.setting.dns_ip),
    ):
        claim.require(name in services, f"there is no service {name}", listed(services))
        claim.require(services[name].cluster_ip == expected, f"{name} has {services[name].cluster_ip}, not {expected}")
    for service in services.values():
        claim.require(
            service.cluster_ip is None or service.cluster_ip in lab.setting.service_cidr,
            f"{service} has {service.cluster_ip}, outside of {lab.setting.service_cidr}",
        )
    ranges = {"services": lab.setting.service_cidr, "pods": lab.setting.pod_cidr, "the lab": lab.setting.network}
    for (one, first), (other, second) in combinations(ranges.items(), 2):
        claim.require(not first.overlaps(second), f"the ranges of {one} and {other} overlap: {first} and {second}")
    claim.saw(
        f"kubernetes is {lab.setting.api_service_ip}, kube-dns is {lab.setting.dns_ip}, "
        f"{counted(len(services), 'service')} in {lab.setting.service_cidr}"
    )


def test_no_interface_owns_a_cluster_ip(lab: Snapshot, claim: Claim) -> None:
    """No interface anywhere has a ClusterIP (kube-proxy iptables mode): the address exists only as rules."""
    cluster_ips = {service.cluster_ip: service for service in lab.api[API_SERVICES] if service.cluster_ip}
    for place, facts in lab.places.items():
        for entry in facts[ADDRESSES]:
            claim.require(entry.address not in cluster_ips, f"{entry.dev} of {place} has {entry.address}, a ClusterIP")
    claim.saw(
        f"none of {counted(len(cluster_ips), 'ClusterIP')} is on an interface of {counted(len(lab.nodes), 'node')} "
        f"or {counted(len(lab.pods), 'pod')}"
    )
