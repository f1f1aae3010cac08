"""Documents of a cluster that say how it was set up: ConfigMaps of kubeadm, kube-proxy and flannel, Calico's resources.

They are read before the snapshot of a cluster that hoplab did not make, and are in no recording: what follows from them
is in its setting. A document that is missing, may not be read or is malformed is one that says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Generic, TypeVar

import yaml

from hoplab.observe.script import Output
from hoplab.spec.model import CniSpec

T = TypeVar("T")

SYSTEM = "/api/v1/namespaces/kube-system/configmaps"
PATHS = {  # of GET requests, by the name of the document
    "kubeadm": f"{SYSTEM}/kubeadm-config",
    "kube_proxy": f"{SYSTEM}/kube-proxy",
    "flannel": "/api/v1/namespaces/kube-flannel/configmaps/kube-flannel-cfg",
    "flannel_old": f"{SYSTEM}/kube-flannel-cfg",  # where flannel's manifest had it until 2022
    "ip_pools": "/apis/crd.projectcalico.org/v1/ippools",
    "felix": "/apis/crd.projectcalico.org/v1/felixconfigurations",
    "service_cidrs": "/apis/networking.k8s.io/v1/servicecidrs",
    "metallb_pools": "/apis/metallb.io/v1beta1/ipaddresspools",
}
USUAL_DETECTION = ("", "ClusterCIDR")  # how kube-proxy tells pods' packets from others
MASQUERADE_BIT = 14


@dataclass(frozen=True)
class Found(Generic[T]):
    """A value, and where it was found."""

    value: T
    source: str = ""


@dataclass(frozen=True)
class Kubeadm:
    """What kubeadm was told."""

    pod_subnet: str = ""  # both families, with a comma between them
    service_subnet: str = ""


@dataclass(frozen=True)
class KubeProxy:
    """The configuration of kube-proxy."""

    known: bool = False  # whether there is one to read
    mode: str = ""
    cluster_cidr: str = ""
    unusual: tuple[str, ...] = ()  # options with which its rules differ from those that hoplab knows


@dataclass(frozen=True)
class Flannel:
    """The configuration of flannel."""

    network: str = ""
    network6: str = ""
    backend: str = ""
    unusual: tuple[str, ...] = ()
    nftables: bool | None = None  # None where it is not said


@dataclass(frozen=True)
class Pool:
    """A pool of Calico, of IPv4."""

    name: str
    cidr: IPv4Network
    ipip: str  # "Always", "CrossSubnet", "Never"
    vxlan: str
    block_size: int


@dataclass(frozen=True)
class Documents:
    """The answers of the API server, by the names of ``PATHS``."""

    answers: Mapping[str, Output] = field(default_factory=dict)

    def why(self, *names: str) -> str:
        """Return which of the documents may not be read, for the end of a sentence; "" for none."""
        refused = [PATHS[name] for name in names if (answer := self.answers.get(name)) and answer.code in (401, 403)]
        return f"; the API server refuses {' and '.join(refused)}" if refused else ""

    @cached_property
    def kubeadm(self) -> Kubeadm:
        networking = _dict(self._data("kubeadm", "ClusterConfiguration"), "networking")
        return Kubeadm(str(networking.get("podSubnet") or ""), str(networking.get("serviceSubnet") or ""))

    @cached_property
    def proxy(self) -> KubeProxy:
        found = self._data("kube_proxy", "config.conf")
        if not found:
            return KubeProxy()
        mode, cidr = str(found.get("mode") or ""), str(found.get("clusterCIDR") or "")
        options = _dict(found, mode or "iptables")
        unusual = [
            f"detectLocalMode {detect}"
            for detect in [str(found.get("detectLocalMode") or "")]
            if detect not in USUAL_DETECTION
        ]
        unusual += [] if cidr or unusual else ["no clusterCIDR"]
        unusual += ["masqueradeAll"] if options.get("masqueradeAll") else []
        bit = options.get("masqueradeBit")
        unusual += [f"masqueradeBit {bit}"] if bit not in (None, MASQUERADE_BIT) else []
        return KubeProxy(True, mode, cidr, tuple(unusual))

    @cached_property
    def flannel(self) -> Flannel:
        found = self._data("flannel", "net-conf.json") or self._data("flannel_old", "net-conf.json")
        backend = _dict(found, "Backend")
        unusual = [
            f"{key} {backend[key]}"
            for key, usual in (("VNI", 1), ("Port", 8472))
            if backend.get(key, usual) not in (usual, 0)
        ]
        unusual += ["DirectRouting"] if backend.get("DirectRouting") else []
        nftables = found.get("EnableNFTables")
        return Flannel(
            str(found.get("Network") or ""),
            str(found.get("IPv6Network") or "") if found.get("EnableIPv6") else "",
            str(backend.get("Type") or ""),
            tuple(unusual),
            nftables if isinstance(nftables, bool) else None,
        )

    @cached_property
    def pools(self) -> tuple[Pool, ...]:
        """Return the pools of Calico for IPv4 that are in use."""
        found = []
        for item in self._items("ip_pools"):
            spec, name = _dict(item, "spec"), str(_dict(item, "metadata").get("name") or "")
            cidr = ranges_of(str(spec.get("cidr") or ""))[0]
            if cidr and not spec.get("disabled"):
                ipip, vxlan = (str(spec.get(key) or "Never") for key in ("ipipMode", "vxlanMode"))
                size = spec.get("blockSize")
                found.append(Pool(name, cidr, ipip, vxlan, size if isinstance(size, int) else CniSpec.block_size))
        return tuple(found)

    @cached_property
    def pools6(self) -> tuple[IPv6Network, ...]:
        cidrs = (ranges_of(str(_dict(item, "spec").get("cidr") or ""))[1] for item in self._items("ip_pools"))
        return tuple(cidr for cidr in cidrs if cidr)

    @cached_property
    def ebpf(self) -> bool:
        """Return whether Calico uses eBPF in place of rules and kube-proxy."""
        return any(_dict(item, "spec").get("bpfEnabled") is True for item in self._items("felix"))

    @cached_property
    def service_cidrs(self) -> str:
        """Return the ranges of the ServiceCIDR objects, with commas between them; the first is the cluster's own."""
        items = sorted(
            self._items("service_cidrs"), key=lambda item: _dict(item, "metadata").get("name") != "kubernetes"
        )
        return ",".join(str(cidr) for item in items for cidr in _dict(item, "spec").get("cidrs") or ())

    @cached_property
    def metallb_ranges(self) -> tuple[str, ...]:
        """Return the ranges of MetalLB's pools as they are written."""
        items = self._items("metallb_pools")
        return tuple(str(text) for item in items for text in _dict(item, "spec").get("addresses") or ())

    def _object(self, name: str) -> dict[str, Any]:
        answer = self.answers.get(name)
        return _read(json.loads, answer.out) if answer and answer.code == 0 else {}

    def _items(self, name: str) -> list[dict[str, Any]]:
        items = self._object(name).get("items")
        return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []

    def _data(self, name: str, key: str) -> dict[str, Any]:
        """Return the document under a key of a ConfigMap; JSON is YAML too."""
        text = _dict(self._object(name), "data").get(key)
        return _read(yaml.safe_load, text) if isinstance(text, str) else {}


def _read(parse: Callable[[str], Any], text: str) -> dict[str, Any]:
    try:
        found = parse(text)
    except (ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _dict(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = raw.get(key)
    return found if isinstance(found, dict) else {}


def ranges_of(text: str) -> tuple[IPv4Network | None, IPv6Network | None]:
    """Return the first range of each family in a list with commas; None where there is none.

    >>> ranges_of("10.244.0.0/16,fd00:244::/48")[1]
    IPv6Network('fd00:244::/48')
    """
    first4: IPv4Network | None = None
    first6: IPv6Network | None = None
    for part in text.split(","):
        try:
            found = ip_network(part.strip(), strict=False)
        except ValueError:
            continue
        if isinstance(found, IPv4Network):
            first4 = first4 or found
        else:
            first6 = first6 or found
    return first4, first6
