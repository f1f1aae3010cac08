"""Objects of the Gateway API for tests of `readable`, from YAML, with what an API server adds to them."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

from hoplab.image.readable.api import Api, Object, Refused, key
from tests.support.readable_objects import Seen, endpoints, listed, secret, seen, service

MADE = "2026-01-01T00:00:00Z"


def gateway(name: str = "way", listeners: str = "[{name: http, port: 80, protocol: HTTP}]", **metadata: str) -> Any:
    """A Gateway of our class in the namespace shop."""
    spec = {"gatewayClassName": "readable", "listeners": yaml.safe_load(listeners)}
    given = {"namespace": "shop", "name": name, "generation": 3, "creationTimestamp": MADE, **metadata}
    return {"kind": "Gateway", "metadata": given, "spec": spec}


def route(name: str, text: str, **metadata: str) -> Any:
    """An HTTPRoute at the Gateway `way`, unless its text has other parents; ``text`` is the YAML of its spec.

    A rule without a match is for every path, as the API server writes it.
    """
    spec = {"parentRefs": [{"name": "way"}], **yaml.safe_load(textwrap.dedent(text))}
    for rule in spec["rules"]:
        rule.setdefault("matches", [{"path": {"type": "PathPrefix", "value": "/"}}])
        for match in rule["matches"]:
            match.setdefault("path", {"type": "PathPrefix", "value": "/"})
    given = {"namespace": "shop", "name": name, "generation": 1, "creationTimestamp": MADE, **metadata}
    return {"kind": "HTTPRoute", "metadata": given, "spec": spec}


def to(service_name: str, path: str = "/", **match: Any) -> dict[str, Any]:
    """A rule with one match by prefix and one backend."""
    found = {"path": {"type": "PathPrefix", "value": path}, **match}
    return {"matches": [found], "backendRefs": [{"name": service_name, "port": 80}]}


def grant(namespace: str, source: str, source_namespace: str, target: str, name: str = "") -> Any:
    entry = {"group": "gateway.networking.k8s.io", "kind": source, "namespace": source_namespace}
    allowed = {"group": "", "kind": target, **({"name": name} if name else {})}
    metadata = {"namespace": namespace, "name": "grant"}
    return {"kind": "ReferenceGrant", "metadata": metadata, "spec": {"from": [entry], "to": [allowed]}}


def namespace(name: str, **labels: str) -> Any:
    return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def elsewhere(item: dict[str, Any], where: str = "else") -> dict[str, Any]:
    """The same object in another namespace."""
    return {**item, "metadata": {**item["metadata"], "namespace": where}}


def cluster(*items: Any, ingresses: tuple[Any, ...] = (), **more: Any) -> Seen:
    """What the API has: the classes `readable` (ours) and `other`, services and pods of a shop, and ``items``."""
    kinds = ("Gateway", "HTTPRoute", "ReferenceGrant", "Namespace")
    classes: list[dict[str, Any]] = [
        {"metadata": {"name": "readable", "generation": 1}, "spec": {"controllerName": "hoplab.local/readable"}},
        {"metadata": {"name": "other"}, "spec": {"controllerName": "example.org/other"}},
    ]
    found = {kind: {key(item): item for item in items if item["kind"] == kind} for kind in kinds}
    apart = {
        "Service": listed(service("one"), service("two"), service("none"), elsewhere(service("far"))),
        "EndpointSlice": listed(
            endpoints("one", "10.244.0.3", "10.244.1.3"),
            endpoints("two", "10.244.1.4"),
            elsewhere(endpoints("far", "10.244.1.9")),
        ),
        "Secret": listed(secret("my-tls-secret"), elsewhere(secret("far-secret"))),
    }
    return seen(*ingresses, **{"GatewayClass": listed(*classes), **found, **apart, **more})


class Written(Api):
    """An API that writes down what it is asked, and refuses POST requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def post(self, path: str, body: Object) -> None:
        self.asked.append(("POST", path))
        raise Refused(409, "it is there already")

    def patch(self, path: str, body: Object) -> None:
        self.asked.append(("PATCH", path))

    def delete(self, path: str) -> None:
        self.asked.append(("DELETE", path))
