"""What an Ingress and a route of the Gateway API name: a port of a service, the pods behind it, a certificate; pure."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field

from hoplab.image.readable.api import Object

CONTROLLER = "hoplab.local/readable"  # what an IngressClass or a GatewayClass names to be ours
HTTP, HTTPS = 8080, 8443  # in the pod; the node's ports 80 and 443 lead here (hostPort)

Objects = Mapping[str, Mapping[str, Object]]  # kind -> "namespace/name" -> object


@dataclass(frozen=True)
class Backend:
    """A port of a service."""

    namespace: str
    service: str
    port: str  # its number or its name

    @property
    def upstream(self) -> str:
        """Its name in nginx.conf. Neither part has a dot in it, so no two are the same."""
        return f"{self.namespace}.{self.service}.{self.port}"


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, as a TLS secret holds them."""

    secret: str  # "namespace/name"
    pem: str = field(repr=False)

    @property
    def file(self) -> str:
        """Named after what is in it: the file of an older configuration is not overwritten."""
        return f"{self.secret.replace('/', '.')}.{hashlib.sha256(self.pem.encode()).hexdigest()[:12]}.pem"


def certificate_of(secret: str, seen: Objects) -> Certificate | None:
    """The certificate of a TLS secret, "namespace/name"; None where there is none."""
    data = seen["Secret"].get(secret, {}).get("data", {})
    if not data.get("tls.crt") or not data.get("tls.key"):
        return None
    parts = (b64decode(data[part]).decode(errors="replace").strip() + "\n" for part in ("tls.crt", "tls.key"))
    return Certificate(secret, "".join(parts))


def service_port(backend: Backend, seen: Objects) -> Object | None:
    """The port of the service that a backend means."""
    service = seen["Service"].get(f"{backend.namespace}/{backend.service}", {})
    ports = service.get("spec", {}).get("ports", ())
    return next((each for each in ports if backend.port in (str(each["port"]), each.get("name"))), None)


def endpoints(backend: Backend, seen: Objects) -> list[str]:
    """The pods behind a backend, ``10.244.1.3:8080``: the service's own address is not used.

    Pods that are ready; where there is none, those that still answer while they end.
    """
    port = service_port(backend, seen)
    if port is None:
        return []
    ready, ending = set(), set()
    for item in seen["EndpointSlice"].values():
        labels = item["metadata"].get("labels", {})
        belongs = (item["metadata"]["namespace"], labels.get("kubernetes.io/service-name"))
        if belongs != (backend.namespace, backend.service) or item["addressType"] not in ("IPv4", "IPv6"):
            continue
        numbers = [each["port"] for each in item.get("ports") or () if (each.get("name") or "") == port.get("name", "")]
        for endpoint in item.get("endpoints") or ():
            conditions = endpoint.get("conditions", {})
            for number in numbers:
                address = endpoint["addresses"][0]
                to = f"[{address}]:{number}" if item["addressType"] == "IPv6" else f"{address}:{number}"
                if conditions.get("ready", True):
                    ready.add(to)
                elif conditions.get("serving"):
                    ending.add(to)
    return sorted(ready or ending)
