"""The Gateway and the HTTPRoute of the verification workload, in labs where something serves the Gateway API.

They lead to the apps that the Ingress leads to, by another host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hoplab.expectations.gateway import HttpRoute

NAME = "way"  # of both
LISTENER = "http"
HOST = "way.yash.com"
QUERY = ("version", "2")
VERSION = "/app"  # a path whose rule comes before the one for the query


def manifests(gateway_class: str, namespace: str, app1: str, app2: str) -> list[tuple[str, dict[str, Any]]]:
    """Return both objects, each with the path of its POST request."""
    where = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}"
    listener = {"name": LISTENER, "port": 80, "protocol": "HTTP", "hostname": "*.yash.com"}
    gateway = {"gatewayClassName": gateway_class, "listeners": [listener]}
    route = {"parentRefs": [{"name": NAME}], "hostnames": [HOST], "rules": _rules(app1, app2)}
    return [(f"{where}/gateways", _object("Gateway", gateway)), (f"{where}/httproutes", _object("HTTPRoute", route))]


def http_route(namespace: str, app1: str, app2: str) -> HttpRoute:
    """Return the route as a configuration shows it."""
    return HttpRoute(f"{namespace}/{NAME}", HOST, _rules(app1, app2))


def service_of(rule: Mapping[str, Any]) -> str:
    """Return the name of the service that a rule leads to."""
    name: str = rule["backendRefs"][0]["name"]
    return name


def ways(app1: str, app2: str) -> dict[str, str]:
    """Return what can be asked for and the service that is to answer."""
    query = "=".join(QUERY)
    return {
        "/": app1,
        "/login": app2,
        "/login/more": app2,
        f"/?{query}": app2,
        "/?version=3": app1,
        f"{VERSION}?{query}": app1,
    }


def _rules(app1: str, app2: str) -> list[dict[str, Any]]:
    by_query = {"queryParams": [{"name": QUERY[0], "value": QUERY[1]}]}
    return [_rule(app1, _path("/")), _rule(app2, _path("/login"), by_query), _rule(app1, _path(VERSION))]


def _path(value: str) -> dict[str, Any]:
    return {"path": {"type": "PathPrefix", "value": value}}


def _rule(service: str, *matches: dict[str, Any]) -> dict[str, Any]:
    return {"matches": list(matches), "backendRefs": [{"name": service, "port": 80}]}


def _object(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": NAME}, "spec": spec}
