"""What `./lab test --matrix` makes of the same machines, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Combination:
    """A CNI with its settings, and a mode of kube-proxy."""

    name: str
    cni: Mapping[str, Any]
    proxy: str

    @property
    def spec(self) -> str:
        """The lab's spec."""
        config = {"lab:nodes": {"workers": 2}, "lab:cni": dict(self.cni), "lab:proxy": {"mode": self.proxy}}
        return yaml.safe_dump({"config": config}, sort_keys=False)


VXLAN, HOST_GW = ({"name": "flannel", "backend": backend} for backend in ("vxlan", "host-gw"))

COMBINATIONS = (
    Combination("flannel vxlan, iptables", VXLAN, "iptables"),
    Combination("flannel vxlan, nftables", VXLAN, "nftables"),
    Combination("flannel vxlan with nftables, nftables", {**VXLAN, "nftables": True}, "nftables"),
    Combination("flannel host-gw, iptables", HOST_GW, "iptables"),
)
