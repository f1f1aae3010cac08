"""The setting of a cluster that hoplab did not make, found out from its API and its hosts; pure.

    found = discover("prod", documents, seen, given)
    found.setting                # what lessons depend on, as `up` writes it down of a lab
    found.findings               # each thing with its source, to be shown first

What is written down is taken before what follows from it: kubeadm's ConfigMap before kube-proxy's, both before a guess
from the nodes' ranges. A part that hoplab does not know, or a mode of one, is no error: its name is in the setting, and
lessons about it are skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, collapse_addresses
from typing import Any

from hoplab.core.errors import FactError, LabError
from hoplab.expectations.proxy import iptables as iptables_mode
from hoplab.expectations.proxy import nftables as nftables_mode
from hoplab.observe.facts.addresses import ADDRESSES, ADDRESSES6
from hoplab.observe.facts.api_nodes import API_NODES, ApiNode
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.facts.links import LINKS
from hoplab.observe.facts.routes import DEFAULT, ROUTES
from hoplab.observe.setting import UPLINK, Setting
from hoplab.observe.snapshot import Snapshot
from hoplab.spec.model import CniSpec, Ipv6Spec
from hoplab.verify import found_cni, found_parts
from hoplab.verify.documents import Documents, Found, ranges_of

SOMEWHERE = IPv4Address("192.0.2.1")  # of a range for documentation: an address outside of every cluster
DNS_SERVICE = "kube-system/kube-dns"
RUNTIME = "containerd://"


class DiscoveryError(LabError):
    """Something of a cluster that lessons depend on and that cannot be found out."""


@dataclass(frozen=True)
class Given:
    """What the user says of a cluster, which then is not looked for."""

    pod_cidr: IPv4Network | None = None
    service_cidr: IPv4Network | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that was found out, and where."""

    name: str
    value: str
    source: str

    def __str__(self) -> str:
        return f"{self.value} (from {self.source})" if self.source else self.value


@dataclass(frozen=True)
class Discovery:
    """The setting of a cluster, and where each part of it was found."""

    setting: Setting
    findings: tuple[Finding, ...]

    @property
    def text(self) -> str:
        """Return what was found out, one thing a line."""
        width = max(len(finding.name) for finding in self.findings)
        lines = (f"{finding.name:<{width}}  {finding}" for finding in self.findings)
        return "\n".join([f"cluster {self.setting.lab}, which hoplab did not make", *(f"  {line}" for line in lines)])


def provisional(name: str, nodes: Iterable[ApiNode]) -> Setting:
    """Return what a snapshot of a cluster needs to know before it is taken: its nodes, and whether it has IPv6."""
    known = tuple(nodes)
    everything = IPv4Network("0.0.0.0/0")
    return Setting(
        lab=name,
        network=everything,
        gateway=SOMEWHERE,
        pod_cidr=everything,
        service_cidr=everything,
        cni="",
        backend="",
        proxy_mode="",
        nodes={node.name: _address(node) for node in known},
        ipv6=Ipv6Spec() if known and all(node.address6 and node.pod_cidr6 for node in known) else None,
        nodes6={node.name: node.address6 for node in known if node.address6},
        foreign=True,
    )


def _address(node: ApiNode) -> IPv4Address:
    if node.address is None:
        raise DiscoveryError(
            f"node {node.name} has no InternalIP of IPv4, which lessons need",
            remedy="clusters with IPv6 alone can't be verified; see `kubectl get nodes -o wide`",
        )
    return node.address


def discover(seen: Snapshot, documents: Documents, given: Given | None = None) -> Discovery:
    """Return the setting of the cluster of a snapshot that was taken with ``provisional``.

    Raise DiscoveryError for what lessons depend on and that is neither given nor found.
    """
    given = given or Given()
    has = seen.setting
    _check_runtime(seen)
    uplinks, network = _uplinks(seen)
    gateway = _gateway(seen)
    cni = found_cni.cni(seen)
    backend = found_cni.backend(cni.value, seen, documents)
    proxy = _proxy_mode(seen, documents)
    pods = _pod_range(seen, documents, cni.value, given)
    services = _service_range(documents, given)
    ipv6 = _ipv6(seen, documents) if has.ipv6 else None
    ingress, balancer = found_parts.ingress(seen), found_parts.load_balancer(seen)
    setting = Setting(
        lab=has.lab,
        network=network.value,
        gateway=gateway.value,
        pod_cidr=pods.value,
        service_cidr=services.value,
        cni=cni.value,
        backend=backend.value,
        proxy_mode=proxy.value,
        nodes=has.nodes,
        ingress=ingress.value,
        load_balancer=balancer.value,
        pool=found_parts.pool(documents) if balancer.value != "none" else None,
        block_size=found_cni.block_size(seen, documents) or CniSpec.block_size,
        cni_nftables=found_cni.writes_nftables(cni.value, seen, documents),
        ipv6=ipv6,
        nodes6=has.nodes6 if ipv6 else {},
        foreign=True,
        uplinks={name: dev for name, dev in uplinks.items() if dev != UPLINK},
        dns=_dns(seen, services.value),
    )
    sources: dict[str, Found[Any]] = {
        "nodes' network": network,
        "gateway": gateway,
        "pods": pods,
        "services": services,
        "CNI": Found(f"{cni.value} {backend.value}".strip(), "; ".join(filter(None, (cni.source, backend.source)))),
        "kube-proxy": proxy,
        "ingress": ingress,
        "load balancer": balancer,
    }
    return Discovery(setting, tuple(_findings(setting, seen, sources)))


def _check_runtime(seen: Snapshot) -> None:
    for node in seen.api[API_NODES]:
        if not node.runtime.startswith(RUNTIME):
            raise DiscoveryError(
                f"node {node.name} runs pods by {node.runtime or 'an unknown runtime'}: their network namespaces are "
                "found with containerd only",
                remedy="clusters with another container runtime can't be verified yet",
            )


def _uplinks(seen: Snapshot) -> tuple[dict[str, str], Found[IPv4Network]]:
    """Return the interface with each node's address, and the network that contains all of them."""
    devs: dict[str, str] = {}
    networks: dict[IPv4Network, None] = {}
    for node in seen.nodes:
        entry = next((entry for entry in node[ADDRESSES] if entry.address == node.api.address), None)
        if entry is None:
            there = ", ".join(str(entry.address) for entry in node[ADDRESSES] if not entry.address.is_loopback)
            raise DiscoveryError(
                f"the host that was taken for node {node.name} does not have its address {node.api.address}; it has "
                f"{there or 'none'}",
                remedy="the kubeconfig may be of another cluster, or the host of another machine: compare "
                "`kubectl get nodes -o wide` with `ip address` there",
            )
        devs[node.name] = entry.dev
        networks.setdefault(entry.network)
    words = ", ".join(dict.fromkeys(devs.values()))
    return devs, Found(_around(networks), f"the addresses of {words} on the nodes")


def _around(networks: Iterable[IPv4Network]) -> IPv4Network:
    """Return the smallest network that contains all of these.

    >>> str(_around([IPv4Network("10.1.0.0/24"), IPv4Network("10.1.2.0/24")]))
    '10.1.0.0/22'
    """
    found = list(collapse_addresses(networks))
    around = found[0]
    while not all(network.subnet_of(around) for network in found):
        around = around.supernet()
    return around


def _gateway(seen: Snapshot) -> Found[IPv4Address]:
    """Return the nodes' default gateway, which stands for a host outside of the cluster."""
    for node in seen.nodes:
        for route in node[ROUTES]:
            if route.dst == DEFAULT and route.table == "main" and isinstance(route.via, IPv4Address):
                return Found(route.via, f"the default route of {node.name}")
    return Found(SOMEWHERE, "no node has a default route; an address of no host")


def _pod_range(seen: Snapshot, documents: Documents, cni: str, given: Given) -> Found[IPv4Network]:
    if given.pod_cidr:
        return Found(given.pod_cidr, "--pod-cidr")
    pools = documents.pools
    if cni == "calico" and pools:
        if len(pools) > 1:
            raise DiscoveryError(
                f"Calico has several pools: {', '.join(str(pool.cidr) for pool in pools)}; lessons know one pod range",
                remedy="give the range that contains the addresses of all pods: --pod-cidr RANGE",
            )
        return Found(pools[0].cidr, f"the IPPool {pools[0].name}")
    candidates = (
        (documents.kubeadm.pod_subnet, "podSubnet in kubeadm-config"),
        (documents.flannel.network, "the ConfigMap of flannel"),
        (documents.proxy.cluster_cidr, "clusterCIDR in the ConfigMap of kube-proxy"),
    )
    for text, source in candidates:
        if found := ranges_of(text)[0]:
            return Found(found, source)
    own = [node.api.pod_cidr for node in seen.nodes if node.api.pod_cidr]
    if own:
        return Found(_around(own), "the smallest range around those of the nodes")
    raise DiscoveryError(
        "the range of the pods can't be found out: kubeadm-config has no podSubnet, and nodes have no podCIDR",
        remedy="give it: --pod-cidr RANGE",
    )


def _service_range(documents: Documents, given: Given) -> Found[IPv4Network]:
    if given.service_cidr:
        return Found(given.service_cidr, "--service-cidr")
    candidates = (
        (documents.kubeadm.service_subnet, "serviceSubnet in kubeadm-config"),
        (documents.service_cidrs, "the ServiceCIDR objects"),
    )
    for text, source in candidates:
        if found := ranges_of(text)[0]:
            return Found(found, source)
    raise DiscoveryError(
        "the range of the services can't be found out: there is neither kubeadm-config nor a ServiceCIDR object to read"
        + documents.why("kubeadm", "service_cidrs"),
        remedy="give it: --service-cidr RANGE, as --service-cluster-ip-range of the API server has it",
    )


def _dns(seen: Snapshot, services: IPv4Network) -> IPv4Address | None:
    """Return the address of kube-dns where it is not the usual one."""
    found = next((service.cluster_ip for service in seen.api[API_SERVICES] if str(service) == DNS_SERVICE), None)
    usual = services[10] if services.num_addresses > 10 else None
    return found if found != usual else None


def _proxy_mode(seen: Snapshot, documents: Documents) -> Found[str]:
    written, running = documents.proxy, _running_mode(seen)
    if not written.known:
        return Found(running or "none", "the rules of the nodes")
    mode = written.mode or running or "iptables"  # kube-proxy's default depends on its version
    source = "the ConfigMap of kube-proxy"
    if running and running != mode:
        source += f"; the nodes have rules of {running}"
    return Found(" with ".join([mode, *written.unusual]), source)


def _running_mode(seen: Snapshot) -> str:
    """Return the mode whose rules the nodes have; "" for none."""
    for node in seen.nodes:
        with suppress(FactError):
            if nftables_mode.table(node).chains:
                return "nftables"
        with suppress(FactError):
            if iptables_mode.LOOKUP in node[IPTABLES].chains("nat"):
                return "ipvs" if any(link.name == "kube-ipvs0" for link in node[LINKS]) else "iptables"
    return ""


def _ipv6(seen: Snapshot, documents: Documents) -> Ipv6Spec | None:
    """Return the ranges of the second family; None where one of them cannot be found out."""
    networks = {
        entry.network for node in seen.nodes for entry in node[ADDRESSES6] if entry.address == node.api.address6
    }
    pods = ranges_of(documents.kubeadm.pod_subnet)[1] or ranges_of(documents.flannel.network6)[1]
    pods = pods or next(iter(documents.pools6), None) or ranges_of(documents.proxy.cluster_cidr)[1]
    services = ranges_of(documents.kubeadm.service_subnet)[1] or ranges_of(documents.service_cidrs)[1]
    if len(networks) != 1 or pods is None or services is None:
        return None
    network: IPv6Network = networks.pop()
    return Ipv6Spec(network=network, pod_cidr=pods, service_cidr=services)


def _findings(setting: Setting, seen: Snapshot, sources: Mapping[str, Found[Any]]) -> Iterator[Finding]:
    """Yield what is shown first."""
    versions = sorted({node.kubelet for node in seen.api[API_NODES]})
    yield Finding("kubernetes", ", ".join(versions), "the kubelets")
    for name, address in setting.nodes.items():
        where = "which could not be looked at" if name in seen.lost_nodes else f"on {setting.uplink(name)}"
        yield Finding(f"node {name}", f"{address} {where}", "")
    for name, found in sources.items():
        yield Finding(name, str(found.value), found.source)
    yield Finding("DNS", str(setting.dns_ip), f"the service {DNS_SERVICE}")
    if ipv6 := setting.ipv6:
        yield Finding("IPv6", f"nodes {ipv6.network}, pods {ipv6.pod_cidr}, services {ipv6.service_cidr}", "")
    elif seen.setting.ipv6:
        yield Finding("IPv6", "left out, as one of its ranges was not found", "")
