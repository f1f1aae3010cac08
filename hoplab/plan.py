"""The plan: everything a lab will be, computed from its spec alone. Pure: same spec, same addresses, MACs, names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from hoplab.spec import CniSpec, LabSpec

Role = Literal["control-plane", "worker"]

FIRST_CONTROL_PLANE = 10  # host number in the lab network of the first control-plane VM
FIRST_WORKER = 20  # ... and of the first worker


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


@dataclass(frozen=True)
class NetworkPlan:
    """The lab network: one bridge, its host end is the gateway."""

    name: str  # libvirt network name, "hoplab-<id>"
    bridge: str  # interface name, at most 15 characters
    cidr: IPv4Network
    gateway: IPv4Address  # the host end
    domain: str  # DNS domain, "<lab>.hoplab"


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
    ingress_controller: str
    kubernetes_version: str  # "1.37.2"

    @property
    def api_service_ip(self) -> IPv4Address:
        """ClusterIP of the service ``kubernetes``: the first address of the service range."""
        return self.service_cidr[1]

    @property
    def dns_ip(self) -> IPv4Address:
        """ClusterIP of ``kube-dns``: the tenth address of the service range."""
        return self.service_cidr[10]

    @property
    def workers(self) -> tuple[NodePlan, ...]:
        return tuple(node for node in self.nodes if node.role == "worker")


def mac_address(lab: str, node: str) -> str:
    """A stable MAC in QEMU's range, from the names alone."""
    digest = hashlib.sha256(f"{lab}/{node}".encode()).hexdigest()
    return f"52:54:00:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"


def plan_lab(spec: LabSpec, *, lab_id: str, accel: Literal["kvm", "tcg"]) -> LabPlan:
    """The plan of a spec on a host with the given acceleration."""
    placement: Literal["vm", "hosted"]
    if spec.control_plane_placement == "auto":
        placement = "vm" if accel == "kvm" else "hosted"
    else:
        placement = spec.control_plane_placement
    hosts = int(spec.network.network_address)
    nodes: list[NodePlan] = []

    def add(name: str, role: Role, number: int, size: tuple[int, int, int]) -> None:
        nodes.append(
            NodePlan(
                name=name,
                role=role,
                address=IPv4Address(hosts + number),
                prefix=spec.network.prefixlen,
                mac=mac_address(spec.lab, name),
                vcpus=size[0],
                memory_mib=size[1],
                disk_gib=size[2],
            )
        )

    if placement == "vm":
        size = spec.control_plane_size
        add("cp1", "control-plane", FIRST_CONTROL_PLANE, (size.vcpus, size.memory_mib, size.disk_gib) if size else (2, 3072, 20))
    for index in range(spec.workers):
        size = spec.worker_size
        vcpus = 2 if accel == "kvm" else 1  # more than one emulated vCPU races in TCG
        add(
            f"worker{index + 1}",
            "worker",
            FIRST_WORKER + index,
            (size.vcpus, size.memory_mib, size.disk_gib) if size else (vcpus, 2048, 20),
        )
    gateway = IPv4Address(hosts + 1)
    return LabPlan(
        lab=spec.lab,
        id=lab_id,
        accel=accel,
        placement=placement,
        network=NetworkPlan(
            name=f"hoplab-{lab_id}",
            bridge="hl" + hashlib.sha256(lab_id.encode()).hexdigest()[:8],
            cidr=spec.network,
            gateway=gateway,
            domain=f"{spec.lab}.hoplab",
        ),
        nodes=tuple(nodes),
        api_address=nodes[0].address if placement == "vm" else gateway,
        pod_cidr=spec.pod_cidr,
        service_cidr=spec.service_cidr,
        cni=spec.cni,
        proxy_mode=spec.proxy_mode,
        ingress_controller=spec.ingress_controller,
        kubernetes_version=spec.kubernetes_version,
    )
