"""kube-proxy in iptables mode: KUBE-SERVICES -> KUBE-SVC-* -> KUBE-SEP-*, and KUBE-MARK-MASQ for what has to be masked.

The names of the chains are hashes of what they are for, so they can be told in advance.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from hoplab.facts.api_endpointslices import API_ENDPOINTS, Endpoint
from hoplab.facts.api_services import API_SERVICES, ApiService, ServicePort
from hoplab.snapshot import Snapshot

MASQUERADE_MARK = 0x4000  # set by KUBE-MARK-MASQ, looked at by KUBE-POSTROUTING

# Chains that kube-proxy keeps in each table, services or not.
CHAINS = {
    "nat": ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-MARK-MASQ", "KUBE-POSTROUTING"),
    "filter": ("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL"),
}
# Where it hooks them in: table, built-in chain, its own chain.
HOOKS = (
    ("nat", "PREROUTING", "KUBE-SERVICES"),
    ("nat", "OUTPUT", "KUBE-SERVICES"),
    ("nat", "POSTROUTING", "KUBE-POSTROUTING"),
    ("filter", "FORWARD", "KUBE-FORWARD"),
)
GONE = "KUBE-PORTALS"  # of the userspace proxy, which left Kubernetes in 1.26


def service_chain(service: str, protocol: str) -> str:
    """The chain of a service port.

    >>> service_chain("default/kubernetes:https", "tcp")
    'KUBE-SVC-NPX46M4PTMTKRN6Y'
    """
    return f"KUBE-SVC-{_hash(service + protocol)}"


def external_chain(service: str, protocol: str) -> str:
    """The chain for what comes to a service port from outside the cluster (NodePort, LoadBalancer)."""
    return f"KUBE-EXT-{_hash(service + protocol)}"


def endpoint_chain(service: str, protocol: str, endpoint: str) -> str:
    """The chain of one endpoint, ``10.244.1.2:53``, of a service port."""
    return f"KUBE-SEP-{_hash(service + protocol + endpoint)}"


def _hash(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:16]


@dataclass(frozen=True)
class EndpointPromise:
    """One endpoint's chain and where it sends to."""

    chain: str
    address: IPv4Address
    port: int

    @property
    def to(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class ServicePromise:
    """One port of one service that has a ClusterIP."""

    service: str  # "kube-system/kube-dns:dns"
    protocol: str  # "udp"
    cluster_ip: IPv4Address
    port: int
    node_port: int
    chain: str
    external_chain: str
    external_policy: str
    endpoints: tuple[EndpointPromise, ...]  # the ready ones; none: connections are refused

    def __str__(self) -> str:
        return f"{self.service} ({self.cluster_ip}:{self.port}/{self.protocol})"


def promises(lab: Snapshot) -> tuple[ServicePromise, ...]:
    """What every node's rules have to say, the same on all nodes."""
    endpoints = lab.api[API_ENDPOINTS]
    return tuple(
        _promise(service, port, service.cluster_ip, endpoints)
        for service in lab.api[API_SERVICES]
        if service.cluster_ip is not None
        for port in service.ports
    )


def _promise(
    service: ApiService, port: ServicePort, cluster_ip: IPv4Address, endpoints: Iterable[Endpoint]
) -> ServicePromise:
    name = f"{service}:{port.name}" if port.name else str(service)
    protocol = port.protocol.lower()
    behind = {
        (endpoint.address, endpoint.port)
        for endpoint in endpoints
        if (endpoint.namespace, endpoint.service, endpoint.port_name) == (service.namespace, service.name, port.name)
        and endpoint.protocol == port.protocol
        and endpoint.ready
    }
    return ServicePromise(
        service=name,
        protocol=protocol,
        cluster_ip=cluster_ip,
        port=port.port,
        node_port=port.node_port,
        chain=service_chain(name, protocol),
        external_chain=external_chain(name, protocol),
        external_policy=service.external_policy,
        endpoints=tuple(
            EndpointPromise(endpoint_chain(name, protocol, f"{address}:{number}"), address, number)
            for address, number in sorted(behind)
        ),
    )


def probabilities(endpoints: int) -> tuple[float | None, ...]:
    """What the rules of a KUBE-SVC chain say, in order, so that each endpoint gets the same share of connections.

    >>> probabilities(3)
    (0.3333333333333333, 0.5, None)
    """
    return tuple(1 / left if left > 1 else None for left in range(endpoints, 0, -1))
