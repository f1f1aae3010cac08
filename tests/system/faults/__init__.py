"""Faults: one place of a real lab broken by hand, the lessons that have to notice, and the way back.

Each is a pair of shell commands, run on a node (or in the network namespace of one of its pods) with everything filled
in that the lab alone knows. While they are tried, kube-proxy, flanneld, Felix and cilium-agent stand still (SIGSTOP) on
all nodes: they would repair within seconds what is broken here.

A family of faults is a module here; ``FAULTS`` has those of all families, in the order in which they are tried.
"""

from __future__ import annotations

from tests.system.faults import (
    calico,
    cilium,
    filters,
    hosts,
    ingress,
    ipv6,
    links,
    load_balancer,
    nat,
    nftables,
    nodes,
    policies,
    routes,
    services,
)
from tests.system.faults.fault import Fault, together
from tests.system.faults.site import Site, opened, wait

__all__ = ["FAULTS", "Fault", "Site", "opened", "together", "wait"]

FAULTS: tuple[Fault, ...] = (
    *links.FAULTS,
    *routes.FAULTS,
    *nat.FAULTS,
    *services.FAULTS,
    *load_balancer.FAULTS,
    *policies.FAULTS,
    *filters.FAULTS,
    *nftables.FAULTS,
    *nodes.FAULTS,
    *hosts.FAULTS,
    *ingress.FAULTS,
    *calico.FAULTS,
    *cilium.FAULTS,
    *ipv6.FAULTS,
)
