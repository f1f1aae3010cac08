"""What `./lab test --matrix` makes of the same machines, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Combination:
    """A CNI with its settings, a mode of kube-proxy, one family of addresses or both, and what enforces policies."""

    name: str
    cni: Mapping[str, Any]
    proxy: str = "iptables"
    ipv6: bool = False
    policies: str = "none"

    def spec(self, components: Sequence[str] = ()) -> str:
        """The lab's spec, whose node image has these components too, so that all of them have the same one."""
        config: dict[str, Any] = {
            "lab:nodes": {"workers": 2},
            "lab:cni": dict(self.cni),
            "lab:proxy": {"mode": self.proxy},
            "lab:loadBalancer": {"name": "metallb"},
            "lab:engine": "embedded",
            "lab:checkpoint": "off",
        }
        if self.policies != "none":
            config["lab:networkPolicy"] = self.policies
        if self.ipv6:
            config["lab:ipv6"] = True
        if components:
            config["lab:image"] = {"components": list(components)}
        return yaml.safe_dump({"config": config}, sort_keys=False)

    @property
    def component(self) -> str:
        """What its CNI is called among the components of node images."""
        return f"cni_{self.cni['name']}"


VXLAN, HOST_GW, WIREGUARD = ({"name": "flannel", "backend": backend} for backend in ("vxlan", "host-gw", "wireguard"))
CILIUM, CILIUM_NATIVE = ({"name": "cilium", "backend": backend} for backend in ("vxlan", "native"))
BGP, IPIP, CALICO_VXLAN = ({"name": "calico", "backend": backend} for backend in ("bgp", "ipip", "vxlan"))

COMBINATIONS = (
    Combination("flannel vxlan, iptables", VXLAN),
    Combination("flannel vxlan, nftables", VXLAN, "nftables"),
    Combination("flannel vxlan with nftables, nftables", {**VXLAN, "nftables": True}, "nftables"),
    Combination("flannel host-gw, iptables", HOST_GW),
    Combination("flannel wireguard, iptables", WIREGUARD),
    Combination("flannel vxlan, iptables, kube-network-policies", VXLAN, policies="kube-network-policies"),
    Combination("calico bgp, iptables", BGP),
    Combination("calico ipip, iptables", IPIP),
    Combination("calico vxlan, iptables", CALICO_VXLAN),
    Combination("cilium vxlan, iptables", CILIUM),
    Combination("cilium native, cilium", CILIUM_NATIVE, "cilium"),
    Combination("flannel vxlan, iptables, dual-stack", VXLAN, ipv6=True),
    Combination("calico bgp, iptables, dual-stack", BGP, ipv6=True),
    Combination("cilium native, cilium, dual-stack", CILIUM_NATIVE, "cilium", ipv6=True),
)
