"""kube-proxy in iptables mode: KUBE-SERVICES -> KUBE-SVC-* -> KUBE-SEP-*, and KUBE-MARK-MASQ for packets to masquerade.

The names of the chains are hashes of service, protocol and endpoint, so they can be computed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from ipaddress import IPv4Address

from hoplab.expectations.proxy import EndpointExpectation, ServiceExpectation
from hoplab.netfilter.ruleset import HasFacts, Rule
from hoplab.observe.facts import iptables
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.spec.parts import ProxyPart

PART = ProxyPart(name="iptables", order=10, chain_prefixes=("KUBE-",))
SERVICES_ARE_IN = "chains of iptables"
LOOKUP = "KUBE-SERVICES"
MASKING = "KUBE-POSTROUTING"

# Chains that kube-proxy keeps in each table, services or not.
CHAINS = {
    "nat": (LOOKUP, "KUBE-NODEPORTS", "KUBE-MARK-MASQ", MASKING),
    "filter": (LOOKUP, "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL"),
}
# Where it hooks them in: table, built-in chain, its own chain.
HOOKS = (
    ("nat", "PREROUTING", LOOKUP),
    ("nat", "OUTPUT", LOOKUP),
    ("nat", "POSTROUTING", MASKING),
    ("filter", "FORWARD", "KUBE-FORWARD"),
)
GONE = "KUBE-PORTALS"  # of the userspace proxy, which left Kubernetes in 1.26
OF_SERVICES = ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-SEP-")


def service_chain(service: str, protocol: str) -> str:
    """Return the chain of a service port.

    >>> service_chain("default/kubernetes:https", "tcp")
    'KUBE-SVC-NPX46M4PTMTKRN6Y'
    """
    return f"KUBE-SVC-{_hash(service + protocol)}"


def local_chain(service: str, protocol: str) -> str:
    """Return the chain of connections to a service port that stay on their node (internalTrafficPolicy: Local)."""
    return f"KUBE-SVL-{_hash(service + protocol)}"


def external_chain(service: str, protocol: str) -> str:
    """Return the chain for connections to a service port from outside the cluster (NodePort, LoadBalancer)."""
    return f"KUBE-EXT-{_hash(service + protocol)}"


def endpoint_chain(service: str, protocol: str, endpoint: str, *, sticky: bool = False) -> str:
    """Return the chain of one endpoint, ``10.244.1.2:53``, of a service port."""
    return f"KUBE-SEP-{_hash(service + protocol + endpoint)}"


@cache
def _hash(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:16]


def way(service: ServiceExpectation, endpoint: EndpointExpectation) -> tuple[str, ...]:
    return ("PREROUTING", LOOKUP, service.chain, endpoint.chain)


def node_port_way(service: ServiceExpectation) -> frozenset[str]:
    return frozenset({"KUBE-NODEPORTS", service.external_chain})


def rules(host: HasFacts, chain: str) -> tuple[Rule, ...]:
    return host[IPTABLES].rules("nat", chain)


def chains(host: HasFacts) -> frozenset[str]:
    return frozenset(host[IPTABLES].chains("nat"))


def asks_node_ports(rule: Rule) -> bool:
    return isinstance(rule, iptables.Rule) and rule.target == "KUBE-NODEPORTS" and rule.value("--dst-type") == "LOCAL"


def cluster_ips(host: HasFacts) -> frozenset[IPv4Address]:
    found = (rule for table in ("nat", "filter") for rule in host[IPTABLES].rules(table, LOOKUP))
    return frozenset(rule.destination[0] for rule in found if rule.destination)


def remembers(host: HasFacts, service: ServiceExpectation) -> Mapping[str, int]:
    """Return the seconds of rules with ``-m recent --rcheck --seconds 10800``, which come before the random choice."""
    to = {endpoint.chain: endpoint.to for endpoint in service.endpoints}
    return {
        to.get(rule.target, rule.target): int(rule.value("--seconds") or 0)
        for rule in host[IPTABLES].rules("nat", service.chain)
        if rule.match("--rcheck")
    }
