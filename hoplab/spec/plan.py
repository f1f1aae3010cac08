"""Computes the plan of a lab from its spec alone. Pure: the same spec gives the same addresses, MACs and names."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import count
from typing import Literal

from hoplab.spec.model import (
    FIRST_CONTROL_PLANE,
    FIRST_WORKER,
    AddressRange,
    CniSpec,
    Ipv6Spec,
    LabSpec,
    machine_size,
    pool_of,
)
from hoplab.spec.parts import Parts

Role = Literal["control-plane", "worker"]


@dataclass(frozen=True)
class NodePlan:
    """One virtual machine."""

    name: str  # "worker1"; also the Kubernetes node name and the host name
    role: Role
    address: IPv4Address
    prefix: int  # prefix length of the lab network
    mac: str  # "52:54:00:xx:xx:xx"
    vcpus: int
    memory_mib: int
    disk_gib: int
    address6: IPv6Address | None = None  # in a lab that has IPv6, always in a /64


@dataclass(frozen=True)
class NetworkPlan:
    """The lab network: one bridge, its host end is the gateway."""

    name: str  # libvirt network name, "hoplab-<id>"
    bridge: str  # interface name, at most 15 characters
    cidr: IPv4Network
    gateway: IPv4Address  # the host end
    domain: str  # DNS domain, "<lab>.hoplab", or "<family>.hoplab"
    cidr6: IPv6Network | None = None
    gateway6: IPv6Address | None = None  # the host end


def dataplane(lab: LabSpec | LabPlan) -> str:
    """Return what a lab's network is made of, in a few words: "flannel vxlan, kube-proxy iptables"."""
    return in_words(lab.cni, lab.proxy_mode, lab.ipv6)


def in_words(cni: CniSpec, proxy_mode: str, ipv6: Ipv6Spec | None) -> str:
    own = " with nftables" if cni.nftables else ""
    proxy = proxy_in_words(cni.name, proxy_mode)
    return f"{cni.name} {cni.backend}{own}, {proxy}{', dual-stack' if ipv6 else ''}"


def proxy_in_words(cni: str, proxy_mode: str) -> str:
    """Return what implements a lab's services.

    >>> proxy_in_words("flannel", "iptables"), proxy_in_words("cilium", "cilium")
    ('kube-proxy iptables', 'no kube-proxy')
    """
    return "no kube-proxy" if proxy_mode == cni else f"kube-proxy {proxy_mode}"


def host_address6(network: IPv6Network, number: int) -> IPv6Address:
    """Return the address with the digits of a host number, so that 192.168.77.20 and fd00:77::20 are the same machine.

    >>> str(host_address6(IPv6Network("fd00:77::/64"), 20))
    'fd00:77::20'
    """
    return network[int(str(number), 16)]


@dataclass(frozen=True)
class LabPlan:
    lab: str
    id: str  # unique on this host, see paths.lab_id
    accel: Literal["kvm", "tcg"]
    placement: Literal["vm", "hosted"]
    network: NetworkPlan
    nodes: tuple[NodePlan, ...]  # control plane first (when it is a VM), then workers; every VM is here
    api_address: IPv4Address  # where the API server listens (port 6443): the control-plane VM's, or the host end
    pod_cidr: IPv4Network
    service_cidr: IPv4Network
    cni: CniSpec
    proxy_mode: str
    ingress_controller: str  # "none" or a role, ingress_<name>
    ingress_why: str  # how it was chosen; "" when the spec names it
    gateway_api: bool  # whether that controller serves the Gateway API, too
    gateway_controller: str  # what serves it in its place: "none" or a role, gateway_<name>
    load_balancer: str
    pool: AddressRange | None  # of the load balancer's addresses; None without one
    kubernetes_version: str  # "1.37.2"
    network_policy: str = "none"  # or a role, policy_<name>
    ipv6: Ipv6Spec | None = None
    protect: bool = False  # the control plane and the lab's disks as a whole are neither deleted nor replaced
    part_warnings: tuple[str, ...] = ()  # of the chosen parts, one sentence each

    @property
    def api_service_ip(self) -> IPv4Address:
        """Return the ClusterIP of the service ``kubernetes``: the first address of the service range."""
        return self.service_cidr[1]

    @property
    def dns_ip(self) -> IPv4Address:
        """Return the ClusterIP of ``kube-dns``: the tenth address of the service range."""
        return self.service_cidr[10]

    @property
    def components(self) -> tuple[str, ...]:
        """Return the roles that the choices of the spec stand for: ``("cni_flannel", "ingress_nginx")``."""
        chosen = [
            f"cni_{self.cni.name}",
            f"ingress_{self.ingress_controller}",
            f"gateway_{self.gateway_controller}",
            f"policy_{self.network_policy}",
        ]
        return tuple(name.replace("-", "_") for name in chosen if not name.endswith("_none"))

    @property
    def workers(self) -> tuple[NodePlan, ...]:
        return tuple(node for node in self.nodes if node.role == "worker")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what is allowed and likely to cause problems, one sentence each."""
        found = []
        if self.accel == "tcg" and self.placement == "vm":
            found.append(
                "an emulated control plane takes minutes to settle and a core for good: controlPlane.placement"
            )
        found += self.part_warnings
        racing = [node.name for node in self.workers if self.accel == "tcg" and node.vcpus > 1]
        if racing:
            found.append(f"{racing[0]} has more than one emulated vCPU and may crash at boot: nodes.worker.vcpus")
        return tuple(found)


def bridge_name(lab_id: str) -> str:
    """Return the name of the bridge of a lab's network, on the workstation."""
    return "hl" + hashlib.sha256(lab_id.encode()).hexdigest()[:8]


def mac_address(lab: str, node: str, attempt: int = 0) -> str:
    """Return a stable MAC in QEMU's range, from the names alone; another ``attempt`` gives another one."""
    digest = hashlib.sha256(f"{lab}/{node}{f'/{attempt}' if attempt else ''}".encode()).hexdigest()
    return f"52:54:00:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"


def mac_addresses(lab: str, nodes: Iterable[str]) -> dict[str, str]:
    """Return a MAC for each node. Where two names give the same one (3 % of labs with 1000 nodes), the later moves.

    A node's MAC depends on the nodes before it only, so adding workers changes none.
    """
    taken: dict[str, str] = {}  # MAC -> node
    for node in nodes:
        candidates = (mac_address(lab, node, attempt) for attempt in count())
        taken[next(mac for mac in candidates if mac not in taken)] = node
    return {node: mac for mac, node in taken.items()}


def choose_ingress(
    asked: str, ranked: Sequence[str], at_hand: Collection[str], *, offline: bool = False
) -> tuple[str, str]:
    """Return the ingress controller that is meant, and why it is this one: ``auto`` takes the first one at hand.

    ``offline``: the registries of the others were asked, and none gave an image.

    >>> choose_ingress("auto", ["nginx", "readable"], ["readable"])
    ('readable', 'the image of nginx is not at hand')
    >>> choose_ingress("auto", ["nginx", "readable"], ["readable"], offline=True)
    ('readable', 'the image of nginx is not at hand, and no registry gave it')
    >>> choose_ingress("none", ["nginx", "readable"], ["readable"])
    ('none', '')
    """
    if asked != "auto":
        return asked, ""
    chosen = next((name for name in ranked if name in at_hand), "none")
    missing = ranked[: ranked.index(chosen)] if chosen in ranked else ranked
    if not missing:
        return chosen, "its image is at hand"
    return (
        chosen,
        f"the image of {' and '.join(missing)} is not at hand{', and no registry gave it' if offline else ''}",
    )


def plan_lab(
    spec: LabSpec,
    parts: Parts,
    *,
    lab_id: str,
    accel: Literal["kvm", "tcg"],
    ingress_at_hand: Collection[str],
    registries_offline: bool = False,
) -> LabPlan:
    """Return the plan of a spec on a host with the given acceleration, and images of these ingress controllers.

    ``registries_offline``: registries were asked for images that are not here, and gave none.
    """
    ingress_controller, ingress_why = choose_ingress(
        spec.ingress_controller,
        parts.auto_ingress(gateway_api=spec.gateway_api),
        ingress_at_hand,
        offline=registries_offline,
    )
    chosen = (
        parts.cni.get(spec.cni.name),
        parts.proxy.get(spec.proxy_mode),
        parts.ingress.get(ingress_controller),
        parts.gateway.get(spec.gateway_controller),
        parts.load_balancer.get(spec.load_balancer),
        parts.policy.get(spec.network_policy),
    )
    placement: Literal["vm", "hosted"]
    if spec.control_plane_placement == "auto":
        placement = "vm" if accel == "kvm" or spec.remote else "hosted"  # machines elsewhere can't reach this host
    else:
        placement = spec.control_plane_placement
    first = int(spec.network.network_address)
    machines: list[tuple[str, Role, int]] = [("cp1", "control-plane", FIRST_CONTROL_PLANE)]
    machines += [(f"worker{index + 1}", "worker", FIRST_WORKER + index) for index in range(spec.workers)]
    macs = mac_addresses(spec.inner_name, (name for name, _, _ in machines))  # cp1 always: workers keep theirs
    sizes = {
        "control-plane": machine_size(spec.control_plane_size, "control-plane", accel),
        "worker": machine_size(spec.worker_size, "worker", accel),
    }
    nodes = tuple(
        NodePlan(
            name=name,
            role=role,
            address=IPv4Address(first + number),
            prefix=spec.network.prefixlen,
            mac=macs[name],
            vcpus=sizes[role].vcpus,
            memory_mib=sizes[role].memory_mib,
            disk_gib=sizes[role].disk_gib,
            address6=host_address6(spec.ipv6.network, number) if spec.ipv6 else None,
        )
        for name, role, number in machines
        if role == "worker" or placement == "vm"
    )
    gateway = IPv4Address(first + 1)
    return LabPlan(
        lab=spec.lab,
        id=lab_id,
        accel=accel,
        placement=placement,
        network=NetworkPlan(
            name=f"hoplab-{lab_id}",
            bridge=bridge_name(lab_id),
            cidr=spec.network,
            gateway=gateway,
            domain=f"{spec.inner_name}.hoplab",
            cidr6=spec.ipv6.network if spec.ipv6 else None,
            gateway6=spec.ipv6.network[1] if spec.ipv6 else None,
        ),
        nodes=nodes,
        api_address=nodes[0].address if placement == "vm" else gateway,
        pod_cidr=spec.pod_cidr,
        service_cidr=spec.service_cidr,
        cni=spec.cni,
        proxy_mode=spec.proxy_mode,
        ingress_controller=ingress_controller,
        ingress_why=ingress_why,
        gateway_api=spec.gateway_api,
        gateway_controller=spec.gateway_controller,
        load_balancer=spec.load_balancer,
        pool=pool_of(spec) if spec.load_balancer != "none" else None,
        kubernetes_version=spec.kubernetes_version,
        network_policy=spec.network_policy,
        ipv6=spec.ipv6,
        protect=spec.protect,
        part_warnings=tuple(part.warning for part in chosen if part and part.warning),
    )
