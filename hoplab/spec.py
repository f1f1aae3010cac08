"""The lab spec: what was asked for, in ``Pulumi.<lab>.yaml`` under the config namespace ``lab``. (validation follows)"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Literal

Accel = Literal["auto", "kvm", "tcg"]
Placement = Literal["auto", "vm", "hosted"]


@dataclass(frozen=True)
class NodeSize:
    vcpus: int
    memory_mib: int
    disk_gib: int


@dataclass(frozen=True)
class CniSpec:
    name: str = "flannel"
    backend: str = "vxlan"


@dataclass(frozen=True)
class LabSpec:
    """A valid spec. ``None`` sizes mean: the default for the acceleration in use (see plan.py)."""

    lab: str
    workers: int = 2
    control_plane_placement: Placement = "auto"
    control_plane_size: NodeSize | None = None
    worker_size: NodeSize | None = None
    network: IPv4Network = field(default_factory=lambda: IPv4Network("192.168.77.0/24"))
    pod_cidr: IPv4Network = field(default_factory=lambda: IPv4Network("10.244.0.0/16"))
    service_cidr: IPv4Network = field(default_factory=lambda: IPv4Network("10.96.0.0/12"))
    cni: CniSpec = field(default_factory=CniSpec)
    proxy_mode: str = "iptables"
    ingress_controller: str = "none"
    kubernetes_version: str = "1.37.2"
    libvirt: str = "private"  # private | system | a libvirt URI
    accel: Accel = "auto"
    engine: Literal["auto", "pulumi", "embedded"] = "auto"
