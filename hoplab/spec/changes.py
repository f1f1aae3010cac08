"""Which settings differ between two specs of one lab, by the names that the file has for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from hoplab.spec.model import AddressRange, LabSpec

# Fields of LabSpec and of its parts that the file calls otherwise
NAMES = {
    "workers": "nodes.workers",
    "control_plane_placement": "controlPlane.placement",
    "control_plane_size": "nodes.controlPlane",
    "worker_size": "nodes.worker",
    "memory_mib": "memory",
    "disk_gib": "disk",
    "pod_cidr": "podCIDR",
    "service_cidr": "serviceCIDR",
    "block_size": "blockSize",
    "proxy_mode": "proxy.mode",
    "network_policy": "networkPolicy",
    "ingress_controller": "ingress.controller",
    "gateway_api": "ingress.gatewayApi",
    "gateway_controller": "ingress.gateway",
    "load_balancer": "loadBalancer.name",
    "load_balancer_pool": "loadBalancer.pool",
    "kubernetes_version": "kubernetes.version",
    "image_mirror": "image.mirror",
    "image_components": "image.components",
}


def changed_settings(before: LabSpec, now: LabSpec) -> tuple[str, ...]:
    """Return the paths of the settings that differ, in the order of the spec's fields.

    >>> changed_settings(LabSpec("dev"), LabSpec("dev", workers=3, proxy_mode="nftables"))
    ('nodes.workers', 'proxy.mode')
    """
    return tuple(_changed(before, now))


def _changed(before: Any, now: Any) -> Iterator[str]:
    for field in fields(before):
        name = NAMES.get(field.name, field.name)
        old, new = getattr(before, field.name), getattr(now, field.name)
        if old == new:
            continue
        if is_dataclass(old) and type(old) is type(new) and not isinstance(old, AddressRange):
            yield from (f"{name}.{inner}" for inner in _changed(old, new))
        else:
            yield name
