"""kube-proxy's rules for services, as data: computed from the Kubernetes API, compared with the rules of a node.

The expectations are the same in every mode; the modes differ in the chains that meet them. One mode is one module of
this folder, which its ``PART`` describes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Protocol, cast

from hoplab.core.ip import IPAddress, with_port
from hoplab.expectations.registry import get_module
from hoplab.netfilter.packet import Outcome, Packet
from hoplab.netfilter.ruleset import HasFacts, Rule, prerouting
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS, API_ENDPOINTS6, Endpoint, Endpoint6
from hoplab.observe.facts.api_services import API_SERVICES, ApiService, ServicePort
from hoplab.observe.snapshot import Node, Snapshot
from hoplab.spec.parts import ProxyPart

AnyEndpoint = Endpoint | Endpoint6
Endpoints = Iterable[AnyEndpoint]
ZONE = "topology.kubernetes.io/zone"  # label of a node
MASQUERADE_MARK = 0x4000  # of packets to masquerade, in every mode


@dataclass(frozen=True)
class EndpointExpectation:
    """One endpoint, and the chain that sends to it."""

    address: IPAddress
    port: int
    node: str
    chain: str  # "" where the service's own chain does that

    @property
    def to(self) -> str:
        return with_port(self.address, self.port)


@dataclass(frozen=True)
class ServiceExpectation:
    """One port of one service that has a ClusterIP, of one family."""

    service: str  # "kube-system/kube-dns:dns"
    protocol: str  # "udp"
    cluster_ip: IPAddress
    port: int
    node_port: int
    external_policy: str
    affinity: int  # seconds for which a client stays with one endpoint; 0: no longer than a connection
    chain: str  # of connections from inside
    external_chain: str  # ... and from outside (NodePort, LoadBalancer)
    endpoints: tuple[EndpointExpectation, ...]  # the usable ones; none: connections are refused
    # Those to which one node sends connections from inside, where this depends on the node: internalTrafficPolicy
    # Local, or hints of trafficDistribution
    by_node: Mapping[str, tuple[EndpointExpectation, ...]] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.service} ({with_port(self.cluster_ip, self.port)}/{self.protocol})"

    def on(self, node: str) -> ServiceExpectation:
        """Return the same with the endpoints to which this node sends connections from inside; none: it drops them."""
        return replace(self, endpoints=self.by_node[node]) if node in self.by_node else self


class Mode(Protocol):
    """The shape of a mode's module: which rules meet the expectations."""

    PART: ProxyPart
    SERVICES_ARE_IN: str  # "chains of iptables"
    LOOKUP: str  # the chain in which a new connection's service is looked up
    MASKING: str  # the chain that masks what is marked

    def service_chain(self, service: str, protocol: str) -> str: ...
    def local_chain(self, service: str, protocol: str) -> str:
        """Return the chain of connections to a service port that stay on their node."""

    def external_chain(self, service: str, protocol: str) -> str: ...
    def endpoint_chain(self, service: str, protocol: str, endpoint: str, *, sticky: bool) -> str:
        """Return the chain of one endpoint, ``10.244.1.2:53``; "" where it needs none."""

    def way(self, service: ServiceExpectation, endpoint: EndpointExpectation) -> tuple[str, ...]:
        """Return the chains from the hook to the rule that changes the destination."""

    def node_port_way(self, service: ServiceExpectation) -> frozenset[str]:
        """Return chains that a connection to a NodePort goes through."""

    def rules(self, host: HasFacts, chain: str) -> tuple[Rule, ...]:
        """Return the rules of a chain that translates addresses."""

    def chains(self, host: HasFacts) -> frozenset[str]:
        """Return all chains that translate addresses."""

    def asks_node_ports(self, rule: Rule) -> bool:
        """Return whether a rule looks up the NodePorts of the node's own addresses."""

    def cluster_ips(self, host: HasFacts) -> frozenset[IPv4Address]:
        """Return the ClusterIPs in the rules."""

    def remembers(self, host: HasFacts, service: ServiceExpectation) -> Mapping[str, int]:
        """Return for how many seconds session affinity keeps a client with an endpoint, by endpoint."""


def get_mode(mode: str) -> Mode:
    """Return the module of the mode of that name; LabError when there is none."""
    return cast("Mode", get_module(__name__, mode, "mode of kube-proxy"))


def of(lab: Snapshot) -> Mode:
    """Return the mode of the lab's kube-proxy."""
    return get_mode(lab.setting.proxy_mode)


def expectations(lab: Snapshot) -> tuple[ServiceExpectation, ...]:
    """Return what the rules of every node have to contain, the same on all nodes."""
    return _expectations(lab, lab.api[API_ENDPOINTS], lambda service: service.cluster_ip)


def expectations6(lab: Snapshot) -> tuple[ServiceExpectation, ...]:
    """Return the same for IPv6, of the services that have such a ClusterIP."""
    return _expectations(lab, lab.api[API_ENDPOINTS6], lambda service: service.cluster_ip6)


def _expectations(
    lab: Snapshot, endpoints: Endpoints, address: Callable[[ApiService], IPAddress | None]
) -> tuple[ServiceExpectation, ...]:
    mode = of(lab)
    return tuple(
        _expectation(mode, lab.nodes, service, port, cluster_ip, endpoints)
        for service in lab.api[API_SERVICES]
        if not service.proxy and (cluster_ip := address(service)) is not None
        for port in service.ports
    )


def _expectation(
    mode: Mode,
    nodes: Iterable[Node],
    service: ApiService,
    port: ServicePort,
    cluster_ip: IPAddress,
    endpoints: Endpoints,
) -> ServiceExpectation:
    name = f"{service}:{port.name}" if port.name else str(service)
    protocol, sticky = port.protocol.lower(), service.affinity > 0
    behind = [
        endpoint
        for endpoint in endpoints
        if (endpoint.namespace, endpoint.service, endpoint.port_name) == (service.namespace, service.name, port.name)
        and endpoint.protocol == port.protocol
    ]

    def expected(found: Iterable[AnyEndpoint]) -> tuple[EndpointExpectation, ...]:
        places = sorted({(endpoint.address, endpoint.port, endpoint.node) for endpoint in found})
        return tuple(
            EndpointExpectation(
                address, number, node, mode.endpoint_chain(name, protocol, with_port(address, number), sticky=sticky)
            )
            for address, number, node in places
        )

    local = service.internal_policy == "Local"
    everywhere = _usable(behind)
    by_node = {
        node.name: expected(_usable([end for end in behind if end.node == node.name]) if local else hinted)
        for node in nodes
        if (hinted := _hinted(everywhere, node)) is not everywhere or local
    }
    return ServiceExpectation(
        service=name,
        protocol=protocol,
        cluster_ip=cluster_ip,
        port=port.port,
        node_port=port.node_port,
        external_policy=service.external_policy,
        affinity=service.affinity,
        chain=(mode.local_chain if local else mode.service_chain)(name, protocol),
        external_chain=mode.external_chain(name, protocol),
        endpoints=expected(everywhere),
        by_node=by_node,
    )


def _usable(endpoints: Sequence[AnyEndpoint]) -> Sequence[AnyEndpoint]:
    """Return the endpoints that kube-proxy uses: the ready ones, without any those that terminate and still answer."""
    ready = [endpoint for endpoint in endpoints if endpoint.ready]
    return ready or [endpoint for endpoint in endpoints if endpoint.serving and endpoint.terminating]


def _hinted(endpoints: Sequence[AnyEndpoint], node: Node) -> Sequence[AnyEndpoint]:
    """Return those that are hinted for a node or its zone; all, where one has no hint or no hint is for the node."""
    zone = dict(node.api.labels).get(ZONE, "")
    if endpoints and all(endpoint.ready for endpoint in endpoints):
        if all(endpoint.for_nodes for endpoint in endpoints):
            own = [endpoint for endpoint in endpoints if node.name in endpoint.for_nodes]
            if own:
                return own
        if all(endpoint.for_zones for endpoint in endpoints):
            return [endpoint for endpoint in endpoints if zone in endpoint.for_zones] or endpoints
    return endpoints


def connection(client: IPAddress, service: ServiceExpectation) -> Packet:
    """Return the first packet of a client to a service."""
    return Packet(client, service.cluster_ip, service.protocol, service.port)


def ways(host: HasFacts, client: IPAddress, service: ServiceExpectation) -> dict[str, Outcome[Rule]]:
    """Return the outcomes that a client's connection to a service may have on a host, by endpoint."""
    return {end.to: end for end in prerouting(host, connection(client, service)) if end.verdict == "DNAT"}


def targets(host: HasFacts, client: IPAddress, service: ServiceExpectation) -> frozenset[str]:
    """Return the endpoints to which a host may send a client's connection to a service, ``10.244.1.2:8080``."""
    return frozenset(ways(host, client, service))
