"""MetalLB in layer-2 mode: which node answers ARP, or neighbour solicitations, for an address.

Every speaker sorts the live nodes by a hash of node and address, and the first node announces the address. All speakers
get the same result without negotiation. Addresses are spread over the nodes, and when a node fails only its addresses
move.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from hoplab.core.ip import IPAddress
from hoplab.spec.parts import LoadBalancerPart

PART = LoadBalancerPart(name="metallb", daemons=("metallb-controller", "metallb-speaker"))
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"  # label of nodes that announce nothing


def announcer(address: IPAddress, nodes: Iterable[str]) -> str:
    """Return which node announces an address, of those that may: with a speaker, with a pod where the policy is Local.

    >>> from ipaddress import IPv4Address
    >>> announcer(IPv4Address("192.168.77.245"), ["worker1", "worker2"])
    'worker1'
    >>> announcer(IPv4Address("192.168.77.247"), ["worker1", "worker2"])
    'worker2'
    """
    return min(nodes, key=lambda node: hashlib.sha256(f"{node}#{address}".encode()).digest())
