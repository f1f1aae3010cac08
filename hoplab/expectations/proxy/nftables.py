"""kube-proxy in nftables mode: a table of its own, maps from address and port to the chain of a service.

The kernel calls the base chains beside those of iptables. The chain of a service has the service's name and picks one
of its endpoints at random.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from hoplab.expectations.proxy import EndpointExpectation, ServiceExpectation
from hoplab.netfilter.ruleset import HasFacts, Rule
from hoplab.observe.facts import nftables
from hoplab.observe.facts.nft_expressions import Match, Vmap
from hoplab.observe.facts.nftables import NFTABLES, Table
from hoplab.spec.parts import ProxyPart

PART = ProxyPart(name="nftables", order=20, nft_tables=("ip kube-proxy",), nft_tables6=("ip6 kube-proxy",))
SERVICES_ARE_IN = "maps of nftables"
TABLE = "kube-proxy"
LOOKUP = "services"
MASKING = "masquerading"
BY_ADDRESS, BY_NODE_PORT, REFUSED = "service-ips", "service-nodeports", "no-endpoint-services"  # maps to verdicts
CLUSTER_IPS = "cluster-ips"
NAME_LENGTH = 240  # of a chain, without its prefix


@dataclass(frozen=True)
class BaseChain:
    """A chain that the kernel calls, and the chains it calls in turn."""

    name: str
    kind: str
    hook: str
    priority: (
        int  # at one hook the lowest comes first: -110, before destinations change, -100 dstnat, 0 filter, 100 srcnat
    )
    calls: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {{ type {self.kind} hook {self.hook} priority {self.priority} }}"


BASE_CHAINS = (
    BaseChain("filter-prerouting-pre-dnat", "filter", "prerouting", -110, ("firewall-check",)),
    BaseChain("nat-prerouting", "nat", "prerouting", -100, (LOOKUP,)),
    BaseChain("filter-input", "filter", "input", 0, ("nodeport-endpoints-check", "service-endpoints-check")),
    BaseChain("filter-forward", "filter", "forward", 0, ("service-endpoints-check", "cluster-ips-check")),
    BaseChain("filter-output-pre-dnat", "filter", "output", -110, ("firewall-check",)),
    BaseChain("nat-output", "nat", "output", -100, (LOOKUP,)),
    BaseChain("filter-output", "filter", "output", 0, ("service-endpoints-check", "cluster-ips-check")),
    BaseChain("nat-postrouting", "nat", "postrouting", 100, (MASKING,)),
)


def service_chain(service: str, protocol: str) -> str:
    """Return the chain of a service port.

    >>> service_chain("default/kubernetes:https", "tcp")
    'service-2QRHZV4L-default/kubernetes/tcp/https'
    """
    return f"service-{_name(service, protocol)}"


def local_chain(service: str, protocol: str) -> str:
    """Return the chain of connections to a service port that stay on their node (internalTrafficPolicy: Local)."""
    return f"local-{_name(service, protocol)}"


def external_chain(service: str, protocol: str) -> str:
    """Return the chain for connections to a service port from outside the cluster (NodePort, LoadBalancer)."""
    return f"external-{_name(service, protocol)}"


def endpoint_chain(service: str, protocol: str, endpoint: str, *, sticky: bool = False) -> str:
    """Return the chain of one endpoint, ``10.244.1.2:53``: only a service with session affinity has them."""
    return f"endpoint-{_name(service, protocol, endpoint)}" if sticky else ""


def _name(service: str, protocol: str, endpoint: str = "") -> str:
    """Return the name: ``ULMVA6XW-ns1/svc1/tcp/p80``, of an endpoint ``5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80``."""
    name, _, port = service.partition(":")
    text = f"{name}/{protocol}/{port}"
    if endpoint:
        text += f"__{endpoint.replace(':', '/')}"
    text = f"{base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:8]}-{text}"
    return text if len(text) <= NAME_LENGTH else f"{text[: NAME_LENGTH - 3]}..."


def table(host: HasFacts) -> Table:
    """Return kube-proxy's table; an empty one where there is none."""
    return host[NFTABLES].table(TABLE) or Table("ip", TABLE, {}, {})


def way(service: ServiceExpectation, endpoint: EndpointExpectation) -> tuple[str, ...]:
    return ("nat-prerouting", LOOKUP, service.chain, *([endpoint.chain] if endpoint.chain else []))


def node_port_way(service: ServiceExpectation) -> frozenset[str]:
    return frozenset({LOOKUP, service.external_chain})


def rules(host: HasFacts, chain: str) -> tuple[Rule, ...]:
    return table(host).rules(chain)


def chains(host: HasFacts) -> frozenset[str]:
    return frozenset(table(host).chains)


def asks_node_ports(rule: Rule) -> bool:
    return isinstance(rule, nftables.Rule) and any(
        isinstance(expression, Vmap) and expression.map == BY_NODE_PORT for expression in rule.expressions
    )


def cluster_ips(host: HasFacts) -> frozenset[IPv4Address]:
    """Return the ClusterIPs that are in a map of verdicts and in the set of all ClusterIPs."""
    sets = table(host).sets
    leads = {element.key[0] for name in (BY_ADDRESS, REFUSED) if name in sets for element in sets[name].elements}
    known = {element.key[0] for element in sets[CLUSTER_IPS].elements} if CLUSTER_IPS in sets else set()
    return frozenset(IPv4Address(address) for address in leads & known)


def remembers(host: HasFacts, service: ServiceExpectation) -> Mapping[str, int]:
    """Return the timeouts of the endpoints' sets of clients; a rule matches these sets before the random choice."""
    found = table(host)
    memory = {endpoint.chain.replace("endpoint-", "affinity-", 1): endpoint.to for endpoint in service.endpoints}
    asked = {
        value.removeprefix("@")
        for rule in found.rules(service.chain)
        for expression in rule.expressions
        if isinstance(expression, Match)
        for value in expression.values
    }
    return {memory[name]: found.sets[name].timeout for name in asked if name in memory and name in found.sets}
