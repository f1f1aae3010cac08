"""Services as the Kubernetes API returns them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from hoplab.core.ip import V4, V6, Address, Family, Network
from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Entries, Item, gather_kubernetes

PROXY_LABEL = "service.kubernetes.io/service-proxy-name"  # the cluster's own proxy leaves a service with it alone


@dataclass(frozen=True)
class ServicePort:
    name: str  # "" when the service has one port only
    protocol: str  # "TCP"
    port: int
    node_port: int  # 0 when it has none


@dataclass(frozen=True)
class ApiService:
    """One service."""

    namespace: str
    name: str
    kind: str  # "ClusterIP", "NodePort", "LoadBalancer"
    cluster_ip: IPv4Address | None  # none when it is headless
    ports: tuple[ServicePort, ...]
    external_policy: str  # externalTrafficPolicy: "Cluster", "Local", "" when it does not apply
    balancer_class: str = ""  # loadBalancerClass: the balancer of this service; "" for the lab's own
    affinity: int = 0  # seconds for which a client stays with one endpoint (sessionAffinity: ClientIP)
    balancer_ips: tuple[IPv4Address, ...] = ()  # of a LoadBalancer: its addresses outside of the cluster
    cluster_ip6: IPv6Address | None = None  # a service of both families has two
    internal_policy: str = "Cluster"  # internalTrafficPolicy; "Local": a node sends to its own endpoints only
    balancer_ips6: tuple[IPv6Address, ...] = ()
    proxy: str = ""  # who implements it, by PROXY_LABEL; "" for the cluster's own proxy

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse(text: str) -> Entries[ApiService]:
    return gather_kubernetes(text, "services", lambda item: (_service(item),))


def _service(item: Item) -> ApiService:
    meta, spec, status = item.item("metadata"), item.item("spec"), item.item("status")
    given = [address for address in (spec.text("clusterIP"), *spec.texts("clusterIPs")) if address not in ("", "None")]
    return ApiService(
        namespace=meta.text("namespace"),
        name=meta.text("name"),
        kind=spec.text("type"),
        cluster_ip=_first(given, V4),
        ports=tuple(
            ServicePort(port.text("name"), port.text("protocol") or "TCP", port.number("port"), port.number("nodePort"))
            for port in spec.items("ports")
        ),
        external_policy=spec.text("externalTrafficPolicy"),
        balancer_class=spec.text("loadBalancerClass"),
        affinity=spec.item("sessionAffinityConfig").item("clientIP").number("timeoutSeconds"),
        balancer_ips=_balancer_ips(status, V4),
        cluster_ip6=_first(given, V6),
        internal_policy=spec.text("internalTrafficPolicy") or "Cluster",
        balancer_ips6=_balancer_ips(status, V6),
        proxy=meta.item("labels").text(PROXY_LABEL),
    )


def _first(texts: list[str], family: Family[Address, Network]) -> Address | None:
    return next((family.address(text, "services") for text in texts if family.has(text)), None)


def _balancer_ips(status: Item, family: Family[Address, Network]) -> tuple[Address, ...]:
    """Return the addresses of this family; an entry may also have a name only."""
    entries = status.item("loadBalancer").items("ingress")
    return tuple(found for entry in entries if (found := entry.of_family("ip", family)))


API_SERVICES = Fact("services", "/api/v1/services", parse, frozenset({"api"}))
