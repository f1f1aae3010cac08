"""Services as the Kubernetes API returns them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from hoplab.core.ip import V4, V6
from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Item, kubernetes_list


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

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse(text: str) -> tuple[ApiService, ...]:
    return tuple(_service(item) for item in kubernetes_list(text, "services"))


def _service(item: Item) -> ApiService:
    meta, spec, status = item.item("metadata"), item.item("spec"), item.item("status")
    given = spec.text("clusterIP")
    return ApiService(
        namespace=meta.text("namespace"),
        name=meta.text("name"),
        kind=spec.text("type"),
        cluster_ip=None if given in ("", "None") else V4.address(given, "services"),
        ports=tuple(
            ServicePort(port.text("name"), port.text("protocol") or "TCP", port.number("port"), port.number("nodePort"))
            for port in spec.items("ports")
        ),
        external_policy=spec.text("externalTrafficPolicy"),
        balancer_class=spec.text("loadBalancerClass"),
        affinity=spec.item("sessionAffinityConfig").item("clientIP").number("timeoutSeconds"),
        cluster_ip6=next((V6.address(text, "services") for text in spec.texts("clusterIPs") if V6.has(text)), None),
        balancer_ips=tuple(
            found for entry in status.item("loadBalancer").items("ingress") if (found := entry.address("ip"))
        ),
    )


API_SERVICES = Fact("services", "/api/v1/services", parse, frozenset({"api"}))
