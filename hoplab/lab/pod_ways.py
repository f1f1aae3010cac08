"""The way to each range of pods: the address of its node, as the Kubernetes API has it now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hoplab.cluster.api import Requests
from hoplab.cluster.pod_routes import Way
from hoplab.lab.api_facts import read_fact
from hoplab.observe.facts.api_ipam_blocks import API_IPAM_BLOCKS, API_IPAM_BLOCKS6
from hoplab.observe.facts.api_nodes import API_NODES


def ways_to_pods(api: Requests) -> Iterator[Way]:
    """Yield the way to each range that Kubernetes gave to a node, and to each of Calico's blocks."""
    nodes = read_fact(api, API_NODES)
    status, text = api.request("GET", API_IPAM_BLOCKS.command)
    blocks = text if status == 200 else '{"items": []}'  # where there is no Calico
    ranges = [(node.name, node.pod_cidr) for node in nodes]
    ranges += [(block.node, block.cidr) for block in API_IPAM_BLOCKS.parse(blocks)]
    ranges6 = [(node.name, node.pod_cidr6) for node in nodes]
    ranges6 += [(block.node, block.cidr) for block in API_IPAM_BLOCKS6.parse(blocks)]
    yield from _ways(ranges, {node.name: node.address for node in nodes})
    yield from _ways(ranges6, {node.name: node.address6 for node in nodes})


def _ways(
    ranges: Iterable[tuple[str, IPv4Network | IPv6Network | None]],
    addresses: Mapping[str, IPv4Address | IPv6Address | None],
) -> Iterator[Way]:
    """Yield the ranges of nodes that have an address of their family; a node that just joined may have no range."""
    for node, pods in ranges:
        address = addresses.get(node)
        if pods and address:
            yield pods, address
