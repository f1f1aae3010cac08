"""The resource types and properties that the embedded engine supports; any other is an error with its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hoplab.core.errors import EngineError
from hoplab.engine.monitor import UNKNOWN

POOL = "libvirt:index/pool:Pool"
VOLUME = "libvirt:index/volume:Volume"
SEED = "libvirt:index/cloudInitDisk:CloudInitDisk"
NETWORK = "libvirt:index/network:Network"
DOMAIN = "libvirt:index/domain:Domain"
PROVIDER = "pulumi:providers:libvirt"
CLUSTER = "pulumi-python:dynamic/hoplab:Cluster"
HOST = "pulumi-python:dynamic/hoplab:Host"
MEMBER = "pulumi-python:dynamic/hoplab:Member"

DYNAMIC = (HOST, CLUSTER, MEMBER)  # of Pulumi's own provider for Python
RECORDED = (PROVIDER, *DYNAMIC)  # recorded only: `hoplab.lab.lifecycle` does the work

# A type, a list of a shape, or named shapes; ``None`` as a key means any name.
Shape = type | list[Any] | dict[str | None, Any]

SHAPES: Mapping[str, Shape] = {
    PROVIDER: {"uri": str},
    HOST: {"lab": str, "__provider": str},
    MEMBER: {"lab": str, "node": str, "machine": str, "__provider": str},
    CLUSTER: {
        "lab": str,
        "settings": {None: object},
        "roles": str,
        "image": str,
        "nodes": {None: str},
        "__provider": str,
    },
    POOL: {"name": str, "type": str, "target": {"path": str}},
    VOLUME: {"name": str, "pool": str, "source": str, "format": str, "baseVolumeId": str, "size": int},
    SEED: {"name": str, "pool": str, "userData": str, "metaData": str, "networkConfig": str},
    NETWORK: {
        "name": str,
        "mode": str,
        "bridge": str,
        "addresses": [str],
        "domain": str,
        "autostart": bool,
        "dhcp": {"enabled": bool},
        "dns": {"enabled": bool, "localOnly": bool, "hosts": [{"hostname": str, "ip": str}]},
    },
    DOMAIN: {
        "name": str,
        "type": str,
        "machine": str,
        "cpu": {"mode": str},
        "vcpu": int,
        "memory": int,
        "kernel": str,
        "initrd": str,
        "cmdlines": [{None: str}],
        "disks": [{"volumeId": str}],
        "networkInterfaces": [{"networkId": str, "mac": str}],
        "consoles": [{"type": str, "sourcePath": str, "targetType": str, "targetPort": str}],
        "graphics": {"type": str, "listenType": str, "autoport": bool},
        "video": {"type": str},
        "autostart": bool,
    },
}

# The values that the engine implements.
ONLY: Mapping[tuple[str, str], tuple[Any, ...]] = {
    (POOL, "type"): ("dir",),
    (NETWORK, "mode"): ("nat",),
    (NETWORK, "dhcp.enabled"): (False,),
    (NETWORK, "dns.enabled"): (True,),
    (DOMAIN, "type"): ("kvm", "qemu"),
    (DOMAIN, "consoles[].type"): ("file",),
    (DOMAIN, "graphics.type"): ("vnc",),
    (DOMAIN, "graphics.listenType"): ("none",),
}


def short(type: str) -> str:
    """Return the short name of a resource type: "Domain"."""
    return type.rpartition(":")[2]


def check(type: str, name: str, inputs: Mapping[str, Any]) -> None:
    """Raise EngineError for an unsupported resource type or property, and for a value of the wrong kind."""
    if type not in SHAPES:
        raise EngineError(
            f"the embedded engine does not support the resource type {type} (of {name!r})",
            remedy="it supports the types of this project's program; for any other install the Pulumi CLI",
        )
    _check(type, name, "", inputs, SHAPES[type])


def _check(type: str, name: str, path: str, value: Any, shape: Shape) -> None:
    if value == UNKNOWN or value is None:
        return
    if isinstance(shape, list) and isinstance(value, list):
        for item in value:
            _check(type, name, f"{path}[]", item, shape[0])
    elif isinstance(shape, dict) and isinstance(value, Mapping):
        for key, item in value.items():
            inner = f"{path}.{key}" if path else str(key)
            if key not in shape and None not in shape:
                raise EngineError(
                    f"the embedded engine does not support the property {inner} of {short(type)} {name!r}",
                    remedy="leave the property out, or install the Pulumi CLI",
                )
            _check(type, name, inner, item, shape[key] if key in shape else shape[None])
    elif isinstance(shape, list | dict) or not isinstance(value, shape) or (shape is int and isinstance(value, bool)):
        raise EngineError(
            f"{short(type)} {name!r}: property {path} is {value!r}, a value that the embedded engine does not support",
            remedy="correct the program",
        )
    allowed = ONLY.get((type, path))
    if allowed and value not in allowed:
        raise EngineError(
            f"the embedded engine does not support {path} = {value!r} of {short(type)} {name!r}",
            remedy=f"use {' or '.join(repr(item) for item in allowed)}, or install the Pulumi CLI",
        )
