"""Kubernetes objects that the ingress controller `readable` reads, and what it makes of them."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import yaml

from hoplab.image.readable.api import key
from hoplab.image.readable.ingress import Server, servers, wishes
from hoplab.image.readable.objects import CONTROLLER

Seen = dict[str, dict[str, dict[str, Any]]]


def listed(*items: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {key(item): item for item in items}


def ingress(name: str, spec: str, *, made: str = "2026-01-01T00:00:00Z", **more: Any) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": name, "uid": f"uid-{name}", "creationTimestamp": made}
    return {"metadata": metadata, "spec": {"ingressClassName": "nginx", **yaml.safe_load(spec)}, **more}


def rules(host: str, *paths: tuple[str, str, str]) -> str:
    """The spec of an Ingress with one rule: (path, "Prefix" or "Exact", service)."""
    given = [
        {"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": 80}}}}
        for path, kind, service in paths
    ]
    rule = {"http": {"paths": given}, **({"host": host} if host else {})}
    return yaml.safe_dump({"rules": [rule]})


def service(name: str, port_name: str = "") -> dict[str, Any]:
    port = {"port": 80, **({"name": port_name} if port_name else {})}
    return {"metadata": {"namespace": "shop", "name": name}, "spec": {"ports": [port]}}


def endpoints(name: str, *addresses: str, port: str = "", conditions: Any = None) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "shop",
            "name": f"{name}-{'-'.join(addresses)}",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": port, "port": 8080}],
        "endpoints": [{"addresses": [address], "conditions": conditions or {"ready": True}} for address in addresses],
    }


def secret(name: str, pem: str = "a certificate", key: str = "a key") -> dict[str, Any]:
    data = {"tls.crt": b64encode(pem.encode()).decode(), "tls.key": b64encode(key.encode()).decode()}
    return {"metadata": {"namespace": "shop", "name": name}, "data": data}


def seen(*ingresses: dict[str, Any], **more: Any) -> Seen:
    """What the API has: the class `nginx` is ours, and there are three services, of which `none` has no pods."""
    classes = [
        {"metadata": {"name": "nginx"}, "spec": {"controller": CONTROLLER}},
        {"metadata": {"name": "other"}, "spec": {"controller": "example.org/other"}},
    ]
    found = {
        "Ingress": listed(*ingresses),
        "IngressClass": listed(*classes),
        "Service": listed(service("one"), service("two"), service("none")),
        "EndpointSlice": listed(endpoints("one", "10.244.0.3", "10.244.1.3"), endpoints("two", "10.244.1.4")),
        "Secret": listed(secret("my-tls-secret")),
        "Pod": {},
    }
    return {**found, **more}


def blocks(*ingresses: dict[str, Any]) -> dict[str, Server]:
    sites, _ = wishes(seen(*ingresses))
    return {server.host: server for server in servers(sites)}


def led(server: Server) -> list[str]:
    return [f"{modifier}{path} {to.service}" for modifier, path, to in server.locations]


def shop() -> Seen:
    """A bit of everything."""
    spec = yaml.safe_load(
        rules("app1.yash.com", ("/login", "Prefix", "two"), ("/", "Prefix", "one"), ("/api", "Exact", "none"))
    )
    spec["tls"] = [{"hosts": ["app1.yash.com"], "secretName": "my-tls-secret"}]
    spec["rules"] += yaml.safe_load(rules("*.yash.com", ('/a b"; }', "Prefix", "two")))["rules"]
    return seen(ingress("apps", yaml.safe_dump(spec)))
