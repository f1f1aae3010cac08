"""What remains on a node of pods that are gone: connections, reserved addresses, host ports; pure.

The verification of a lab reports it, since what remains leads packets to nobody, or takes an address from others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from hoplab.core.ip import with_port
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS
from hoplab.observe.facts.api_ipam_blocks import API_IPAM_BLOCKS, Block
from hoplab.observe.facts.api_pods import API_PODS, ApiPod
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.facts.cni_config import CNI_CONFIG, called
from hoplab.observe.facts.conntrack import CONNTRACK, Flow
from hoplab.observe.facts.ipam import IPAM, Reservation
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.snapshot import Node, Snapshot

HOST_PORTS = "CNI-HOSTPORT-DNAT"  # chain of the plugin portmap, one rule for each pod with host ports
HOST_PORTS_TABLE = "cni_hostport"  # its table where it writes nftables
DEPTH = 3  # chains that lead from HOST_PORTS to a DNAT: one


@dataclass(frozen=True)
class DeadFlow:
    """A UDP connection of conntrack to a service that goes to none of the service's endpoints."""

    flow: Flow
    service: str  # "kube-system/kube-dns:dns"

    @property
    def why(self) -> str:
        asked = f"{self.flow.original.dst}:{self.flow.original.dport}"
        if not self.flow.destination_translated:
            return f"a flow to {asked} is kept untranslated, though {self.service} has endpoints"
        to = f"{self.flow.reply.src}:{self.flow.reply.sport}"
        return f"a flow to {asked} goes to {to}, which is no endpoint of {self.service}"


def dead_flows(lab: Snapshot, node: Node) -> tuple[DeadFlow, ...]:
    """Return the UDP connections to addresses of services that go to no endpoint.

    conntrack applies the rewriting of a flow's first packet as long as packets follow. kube-proxy deletes the entry
    when the endpoint goes; where it did not, the client waits for answers of nobody. TCP ends such a connection itself.
    """
    behind: dict[tuple[str, str], set[str]] = {}
    for endpoint in lab.api[API_ENDPOINTS]:
        if endpoint.protocol == "UDP":
            key = f"{endpoint.namespace}/{endpoint.service}", endpoint.port_name
            behind.setdefault(key, set()).add(with_port(endpoint.address, endpoint.port))
    fronts = _udp_fronts(lab)
    found = []
    for flow in node[CONNTRACK]:
        front = fronts.get((flow.original.dst, flow.original.dport)) if flow.protocol == "udp" else None
        if front is None:
            continue
        endpoints = behind.get(front, set())
        if f"{flow.reply.src}:{flow.reply.sport}" in endpoints or not (flow.destination_translated or endpoints):
            continue
        found.append(DeadFlow(flow, ":".join(filter(None, front))))
    return tuple(found)


def _udp_fronts(lab: Snapshot) -> dict[tuple[str, int], tuple[str, str]]:
    """Return service and port name by each address and port at which a service is reached by UDP."""
    nodes = [str(entry.address) for node in lab.nodes for entry in node[ADDRESSES]]
    found: dict[tuple[str, int], tuple[str, str]] = {}
    for service in lab.api[API_SERVICES]:
        own = [str(address) for address in (service.cluster_ip, *service.balancer_ips) if address]
        own = [address for address in own if address not in nodes]  # k3s: a pod's hostPort, which is no endpoint
        for port in service.ports:
            if port.protocol == "UDP":
                found |= {(address, port.port): (str(service), port.name) for address in own}
                found |= {(address, port.node_port): (str(service), port.name) for address in nodes if port.node_port}
    return found


def _pods_of(lab: Snapshot, node: Node) -> tuple[ApiPod, ...]:
    return tuple(pod for pod in lab.api[API_PODS] if pod.node == node.name and not pod.host_network)


def _used(lab: Snapshot, node: Node) -> frozenset[IPv4Address]:
    """Return the addresses of a node's pods, as the API knows them and as their namespaces have them."""
    known = {pod.address for pod in _pods_of(lab, node) if pod.address}
    namespaces = lab.netns_facts.get(node.name, {}).values()
    return frozenset(known | {entry.address for facts in namespaces for entry in facts[ADDRESSES]})


def reservations(lab: Snapshot, node: Node) -> tuple[Reservation, ...]:
    """Return the addresses that host-local keeps for pods which are gone, in the node's own range.

    Return none while as many pods of the node are being started: these have an address that nothing else shows yet.
    """
    if not node[CNI_CONFIG]:
        return ()
    network, used = called(node[CNI_CONFIG]).name, _used(lab, node)
    starting = sum(not pod.running and not pod.address for pod in _pods_of(lab, node))
    own = (lease for lease in node[IPAM] if lease.network == network and lease.address in node.pod_cidr)
    kept = [lease for lease in own if lease.address not in used]
    return tuple(kept) if len(kept) > starting else ()


@dataclass(frozen=True)
class Taken:
    """An address that a block of Calico's IPAM keeps for a pod."""

    block: Block
    address: IPv4Address
    pod: str  # "hoplab-verify/echo-x7k2p"

    def __str__(self) -> str:
        return f"{self.address} of {self.block.cidr} is kept for {self.pod}"


def taken(lab: Snapshot) -> tuple[Taken, ...]:
    """Return the addresses that Calico's IPAM keeps for pods which are gone, or which have another address now.

    An address that some pod has is in use, whoever the block says it is kept for.
    """
    pods = {str(pod): pod for pod in lab.api[API_PODS]}
    used = {pod.address for pod in pods.values()}

    def gone(address: IPv4Address, owner: str) -> bool:
        pod = pods.get(owner)
        return pod is None or (pod.running and pod.address not in (None, address))

    return tuple(
        Taken(block, address, owner)
        for block in lab.api[API_IPAM_BLOCKS]
        for address, owner in block.taken.items()
        if "/" in owner
        and address not in used
        and gone(address, owner)  # other owners are tunnels: "vxlanTunnelAddress"
    )


@dataclass(frozen=True)
class HostPort:
    """A rule of the plugin portmap that leads a port of the node to a pod."""

    rule: str
    to: IPv4Address


def host_ports(node: Node) -> tuple[HostPort, ...]:
    """Return the rules that lead host ports to pods, of iptables and of nftables."""
    found = [*_iptables_dnat(node, HOST_PORTS, DEPTH)]
    if NFT_RULESET.name in node.facts.outputs:
        table = node[NFT_RULESET].table(HOST_PORTS_TABLE)
        rules = (str(rule) for chain in (table.chains.values() if table else ()) for rule in chain.rules)
        found += [
            HostPort(rule, IPv4Address(to[1]))
            for rule in rules
            if (to := re.search(r"dnat to (\d+(?:\.\d+){3})", rule))
        ]
    return tuple(found)


def _iptables_dnat(node: Node, chain: str, depth: int) -> Iterator[HostPort]:
    rules = node[IPTABLES].rules("nat", chain)
    for rule in rules if depth else ():
        if rule.target == "DNAT":
            to = rule.value("--to-destination").partition(":")[0]
            if re.fullmatch(r"\d+(\.\d+){3}", to):  # else a range of addresses, which portmap does not write
                yield HostPort(str(rule), IPv4Address(to))
        else:
            yield from _iptables_dnat(node, rule.target, depth - 1)


def dead_host_ports(lab: Snapshot, node: Node) -> tuple[HostPort, ...]:
    """Return those that lead to an address of the pod range that no pod of the node has."""
    used = _used(lab, node)
    return tuple(port for port in host_ports(node) if port.to in lab.setting.pod_cidr and port.to not in used)
