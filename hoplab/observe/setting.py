"""The setting of a lab: the part of its spec that lessons depend on. ``up`` stores it, and recordings contain it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

from hoplab.core.serialization import from_json, to_json
from hoplab.spec.model import AddressRange, CniSpec, Ipv6Spec
from hoplab.spec.parts import Parts
from hoplab.spec.plan import LabPlan, proxy_in_words

UPLINK = "eth0"  # of every machine that hoplab makes


@dataclass(frozen=True)
class Setting:
    """The part of the spec of a lab that lessons depend on."""

    lab: str
    network: IPv4Network
    gateway: IPv4Address
    pod_cidr: IPv4Network
    service_cidr: IPv4Network
    cni: str
    backend: str
    proxy_mode: str
    nodes: Mapping[str, IPv4Address]  # every machine, by name
    network_policy: str = "none"  # what enforces NetworkPolicies beside the CNI
    ingress: str = "none"  # the ingress controller
    gateway_api: bool = False  # whether it serves the Gateway API, too
    gateway_controller: str = "none"  # what serves the Gateway API in its place
    load_balancer: str = "none"
    pool: AddressRange | None = None  # of the load balancer
    block_size: int = CniSpec.block_size  # prefix length of Calico's blocks
    cni_nftables: bool = False  # whether the CNI's own rules are in nftables
    ipv6: Ipv6Spec | None = None  # the ranges of the second family
    nodes6: Mapping[str, IPv6Address] = field(default_factory=dict)  # every machine's address in it, by name
    foreign: bool = False  # a cluster that hoplab did not make: the other fields were found out from it
    uplinks: Mapping[str, str] = field(default_factory=dict)  # interface with the node's address, where not eth0
    dns: IPv4Address | None = None  # ClusterIP of kube-dns, where not the tenth of the service range

    @property
    def gateway6(self) -> IPv6Address | None:
        """Return the host's address of IPv6 in the lab network; None where the lab has IPv4 alone."""
        return self.ipv6.network[1] if self.ipv6 else None

    @property
    def has_gateways(self) -> bool:
        """Return whether something in the lab serves the Gateway API."""
        return self.gateway_api or self.gateway_controller != "none"

    @property
    def has_kube_proxy(self) -> bool:
        """Return whether kube-proxy implements services, not the CNI in its place."""
        return self.proxy_mode != self.cni

    @property
    def proxy(self) -> str:
        """Return what implements services, in words: "kube-proxy iptables"."""
        return proxy_in_words(self.cni, self.proxy_mode)

    @property
    def api_service_ip(self) -> IPv4Address:
        return self.service_cidr[1]

    @property
    def dns_ip(self) -> IPv4Address:
        return self.dns or self.service_cidr[10]

    def uplink(self, node: str) -> str:
        """Return the name of the interface that has the address of a node."""
        return self.uplinks.get(node, UPLINK)


def of_plan(plan: LabPlan) -> Setting:
    """Return the setting of a planned lab."""
    return Setting(
        lab=plan.lab,
        network=plan.network.cidr,
        gateway=plan.network.gateway,
        pod_cidr=plan.pod_cidr,
        service_cidr=plan.service_cidr,
        cni=plan.cni.name,
        backend=plan.cni.backend,
        proxy_mode=plan.proxy_mode,
        nodes={node.name: node.address for node in plan.nodes},
        network_policy=plan.network_policy,
        ingress=plan.ingress_controller,
        gateway_api=plan.gateway_api,
        gateway_controller=plan.gateway_controller,
        load_balancer=plan.load_balancer,
        pool=plan.pool,
        block_size=plan.cni.block_size,
        cni_nftables=plan.cni.nftables,
        ipv6=plan.ipv6,
        nodes6={node.name: node.address6 for node in plan.nodes if node.address6},
    )


def omitted(setting: Setting, parts: Parts) -> frozenset[str]:
    """Return the fields that do not apply to such a lab; its document omits them."""
    cni = parts.cni.get(setting.cni)
    without = set() if cni and cni.block_sizes else {"block_size"}
    if not setting.cni_nftables:
        without.add("cni_nftables")
    if setting.network_policy == "none":
        without.add("network_policy")
    if setting.gateway_controller == "none":
        without.add("gateway_controller")
    without |= {name for name in ("foreign", "uplinks", "dns", "gateway_api") if not getattr(setting, name)}
    return frozenset(without if setting.ipv6 else {*without, "ipv6", "nodes6"})


def to_document(setting: Setting, parts: Parts) -> dict[str, Any]:
    """Return the setting in the form of recordings and of the lab's state; a missing pool is an empty text."""
    found: dict[str, Any] = to_json(setting, exclude=omitted(setting, parts))
    return {**found, "pool": found["pool"] or ""}


def from_document(document: Mapping[str, Any]) -> Setting:
    """Return the setting in a document, with defaults for fields that older documents lack; raise ValueError."""
    return from_json(Setting, {**document, "pool": document.get("pool") or None})
