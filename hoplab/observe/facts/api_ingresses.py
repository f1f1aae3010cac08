"""Ingresses as the Kubernetes API returns them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from hoplab.core.ip import V4
from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Entries, Item, gather_kubernetes

OLD_CLASS = "kubernetes.io/ingress.class"  # annotation that names the class as well


@dataclass(frozen=True)
class ApiIngress:
    """One Ingress."""

    namespace: str
    name: str
    hosts: tuple[str, ...]  # hosts of its rules
    secure_hosts: tuple[str, ...]  # hosts of its certificates
    addresses: tuple[IPv4Address, ...]  # of the controller that serves it; none where no controller does
    ingress_class: str = ""  # "" for the default class
    tls: tuple[tuple[str, tuple[str, ...]], ...] = ()  # each secret with a certificate, and the hosts that it is for
    backends: tuple[tuple[str, str], ...] = ()  # each service behind it, with the path; none in older recordings

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse(text: str) -> Entries[ApiIngress]:
    return gather_kubernetes(text, "ingresses", lambda item: (_ingress(item),))


def _ingress(item: Item) -> ApiIngress:
    meta, spec, status = item.item("metadata"), item.item("spec"), item.item("status")
    paths = [path for rule in spec.items("rules") for path in rule.item("http").items("paths")]
    backends = [("", spec.item("defaultBackend")), *((path.text("path"), path.item("backend")) for path in paths)]
    return ApiIngress(
        ingress_class=spec.text("ingressClassName") or meta.item("annotations").text(OLD_CLASS),
        namespace=meta.text("namespace"),
        name=meta.text("name"),
        hosts=tuple(host for rule in spec.items("rules") if (host := rule.text("host"))),
        tls=tuple((name, tls.texts("hosts")) for tls in spec.items("tls") if (name := tls.text("secretName"))),
        secure_hosts=tuple(host for tls in spec.items("tls") for host in tls.texts("hosts")),
        addresses=tuple(
            found for entry in status.item("loadBalancer").items("ingress") if (found := entry.of_family("ip", V4))
        ),
        backends=tuple(
            dict.fromkeys((name, path) for path, backend in backends if (name := backend.item("service").text("name")))
        ),
    )


API_INGRESSES = Fact("ingresses", "/apis/networking.k8s.io/v1/ingresses", parse, frozenset({"api"}))
