"""Descriptors of the pluggable parts of a lab: CNI, kube-proxy mode, controllers, load balancer, policies.

A descriptor holds what other folders need to know of a part. The descriptors themselves are beside the part's
expectations, in ``hoplab/expectations``; folders below it receive them as a ``Parts`` value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

AnyPart = TypeVar("AnyPart", bound="Part")


@dataclass(frozen=True, kw_only=True)
class Part:
    """What every kind of part has. A part that is neither ``planned`` nor refused has a role, ``Part.role``."""

    kind: ClassVar[str] = ""  # prefix of its role: "cni", "ingress", "loadbalancer"

    name: str  # as the spec has it: "flannel"
    order: int = 100  # position among the parts of its kind in lists and messages; equal ones are sorted by name
    planned: bool = False  # a known name, but no role yet
    refusal: str = ""  # why no lab may have it: "is deprecated in Kubernetes"
    note: str = ""  # beside its name in the documentation of the spec: "F5's"
    warning: str = ""  # shown by `up` in a lab that has it: one sentence

    @property
    def usable(self) -> bool:
        """Whether a lab can have it."""
        return not self.planned and not self.refusal

    @property
    def role(self) -> str:
        """The Ansible role that installs it: ``ingress_ingress_nginx``."""
        return f"{self.kind}_{self.name}".replace("-", "_")


@dataclass(frozen=True, kw_only=True)
class ResetScope:
    """What a part leaves on a host beyond what ``kubeadm reset`` and the general reset remove."""

    directories: tuple[str, ...] = ()  # removed, and compared with the fresh host: "/run/flannel"
    files: tuple[str, ...] = ()  # removed: "/opt/cni/bin/calico"
    interfaces: tuple[str, ...] = ()  # names of its links: "flannel.1"
    kernel_modules: tuple[str, ...] = ()  # unloaded, for links that exist as long as their module: "ipip"
    route_protocols: tuple[str, ...] = ()  # whose routes are flushed: "bird"


@dataclass(frozen=True, kw_only=True)
class CniPart(Part):
    """A network plugin."""

    kind: ClassVar[str] = "cni"

    backends: tuple[str, ...] = ()  # how packets get to other nodes; the first is the default
    backend_notes: Mapping[str, str] = field(default_factory=dict, hash=False)  # "wireguard" -> "encrypted"
    unwrapped_backends: tuple[str, ...] = ()  # those that send packets between nodes as they are
    writes_nftables: bool = False  # cni.nftables is possible: its own rules in nftables instead of iptables
    block_sizes: tuple[int, int] | None = None  # bounds of cni.blockSize, prefix lengths; None: a fixed range per node
    node_annotations: tuple[str, ...] = ()  # prefixes of its annotations on nodes: "projectcalico.org/"
    nft_tables: tuple[str, ...] = ()  # its tables, with family: "ip flannel-ipv4"
    nft_tables6: tuple[str, ...] = ()  # ... of IPv6: "ip6 flannel-ipv6"
    chain_prefixes: tuple[str, ...] = ()  # of its chains in iptables: "FLANNEL-"
    daemons: tuple[str, ...] = ()  # workloads that have to be ready: names of DaemonSets and Deployments
    enforces_policies: bool = False  # whether a NetworkPolicy has an effect
    programs: bool = False  # whether eBPF programs at interfaces take packets before the kernel's rules and routes
    reset: ResetScope = ResetScope()


@dataclass(frozen=True, kw_only=True)
class ProxyPart(Part):
    """A mode of kube-proxy, or a CNI in its place. It has no role of its own."""

    kind: ClassVar[str] = "proxy"

    cni: str = ""  # the CNI that implements services in place of kube-proxy, which the cluster does not have

    nft_tables: tuple[str, ...] = ()
    nft_tables6: tuple[str, ...] = ()
    chain_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class IngressPart(Part):
    """An ingress controller."""

    kind: ClassVar[str] = "ingress"

    auto_rank: int = 0  # ``auto`` takes the lowest whose image is at hand; 0: never this one
    gateway_api: bool = False  # ingress.gatewayApi is possible


@dataclass(frozen=True, kw_only=True)
class GatewayPart(Part):
    """A controller that serves the Gateway API alone, beside an ingress controller or without one."""

    kind: ClassVar[str] = "gateway"

    daemons: tuple[str, ...] = ()  # as of a CNI


@dataclass(frozen=True, kw_only=True)
class LoadBalancerPart(Part):
    """What assigns addresses to Services of type LoadBalancer."""

    kind: ClassVar[str] = "loadbalancer"

    daemons: tuple[str, ...] = ()  # as of a CNI


@dataclass(frozen=True, kw_only=True)
class PolicyPart(Part):
    """What enforces NetworkPolicies beside a CNI that does not."""

    kind: ClassVar[str] = "policy"

    daemons: tuple[str, ...] = ()  # as of a CNI
    nft_tables: tuple[str, ...] = ()  # with family: "inet kube-network-policies"


@dataclass(frozen=True)
class Parts:
    """All known parts by kind and name, in the order in which messages list them."""

    cni: Mapping[str, CniPart] = field(default_factory=dict)
    proxy: Mapping[str, ProxyPart] = field(default_factory=dict)
    ingress: Mapping[str, IngressPart] = field(default_factory=dict)
    gateway: Mapping[str, GatewayPart] = field(default_factory=dict)
    load_balancer: Mapping[str, LoadBalancerPart] = field(default_factory=dict)
    policy: Mapping[str, PolicyPart] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Parts:
        """Return the parts by kind and name, sorted by ``order`` and name."""
        ordered = sorted(parts, key=lambda part: (part.order, part.name))
        return cls(
            {part.name: part for part in ordered if isinstance(part, CniPart)},
            {part.name: part for part in ordered if isinstance(part, ProxyPart)},
            {part.name: part for part in ordered if isinstance(part, IngressPart)},
            {part.name: part for part in ordered if isinstance(part, GatewayPart)},
            {part.name: part for part in ordered if isinstance(part, LoadBalancerPart)},
            {part.name: part for part in ordered if isinstance(part, PolicyPart)},
        )

    def auto_ingress(self, *, gateway_api: bool = False) -> tuple[str, ...]:
        """Return the ingress controllers that ``auto`` considers, the preferred one first."""
        usable = [part for part in self.ingress.values() if part.usable and part.gateway_api >= gateway_api]
        return tuple(name for _, name in sorted((part.auto_rank, part.name) for part in usable if part.auto_rank))


def usable(parts: Mapping[str, AnyPart]) -> tuple[str, ...]:
    """Return the names of those parts that a lab can have."""
    return tuple(name for name, part in parts.items() if part.usable)


def planned(parts: Mapping[str, AnyPart]) -> tuple[str, ...]:
    """Return the names of those parts that are known and have no role yet."""
    return tuple(name for name, part in parts.items() if part.planned)
