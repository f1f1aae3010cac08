"""LabState: the twin of the plan, what came to be. Written to <lab>/state.json; holds no secrets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NodeState:
    name: str
    role: str
    address: str
    mac: str
    domain_uuid: str


@dataclass(frozen=True)
class LabState:
    lab: str
    id: str
    libvirt_uri: str  # resolved: "qemu+unix:///system?socket=/run/hoplab/<id>/libvirt-sock" for a private libvirt
    netns: str  # "" unless libvirt is private
    accel: str
    placement: str
    image: str  # digest of the node image
    nodes: tuple[NodeState, ...]
