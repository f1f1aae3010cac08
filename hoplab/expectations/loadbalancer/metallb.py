"""MetalLB in layer-2 mode: which node answers ARP for an address.

Speakers do not ask each other: each sorts the nodes whose speakers it knows by a hash that depends on node and address,
and the first one announces. So all come to the same result, different addresses are with different nodes, and where a
node is gone nothing moves but its own addresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Address

from hoplab.spec.parts import LoadBalancerPart

PART = LoadBalancerPart(name="metallb", daemons=("metallb-controller", "metallb-speaker"))
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"  # label of nodes that announce nothing


def announcer(address: IPv4Address, nodes: Iterable[str]) -> str:
    """Return which node announces an address, of those that may: with a speaker, with a pod where the policy is Local.

    >>> announcer(IPv4Address("192.168.77.245"), ["worker1", "worker2"])
    'worker1'
    >>> announcer(IPv4Address("192.168.77.247"), ["worker1", "worker2"])
    'worker2'
    """
    return min(nodes, key=lambda node: hashlib.sha256(f"{node}#{address}".encode()).digest())
