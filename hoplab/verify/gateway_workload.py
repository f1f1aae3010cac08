"""The Gateway and the HTTPRoute of the verification workload, in labs with ``ingress.gatewayApi``.

They lead to the apps that the Ingress leads to, by another host. The GatewayClass is the controller's.
"""

from __future__ import annotations

from typing import Any

GATEWAY_CLASS = "readable"
NAME = "way"  # of both
LISTENER = "http"
HOST = "way.yash.com"
QUERY = ("version", "2")
VERSION = "/app"  # a path whose rule comes before the one for the query


def manifests(namespace: str, app1: str, app2: str) -> list[tuple[str, dict[str, Any]]]:
    """Return both objects, each with the path of its POST request."""
    where = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}"
    listener = {"name": LISTENER, "port": 80, "protocol": "HTTP", "hostname": "*.yash.com"}
    gateway = {"gatewayClassName": GATEWAY_CLASS, "listeners": [listener]}
    by_query = {"queryParams": [{"name": QUERY[0], "value": QUERY[1]}]}
    route = {
        "parentRefs": [{"name": NAME}],
        "hostnames": [HOST],
        "rules": [_rule(app1, _path("/")), _rule(app2, _path("/login"), by_query), _rule(app1, _path(VERSION))],
    }
    return [(f"{where}/gateways", _object("Gateway", gateway)), (f"{where}/httproutes", _object("HTTPRoute", route))]


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


def _path(value: str) -> dict[str, Any]:
    return {"path": {"type": "PathPrefix", "value": value}}


def _rule(service: str, *matches: dict[str, Any]) -> dict[str, Any]:
    return {"matches": list(matches), "backendRefs": [{"name": service, "port": 80}]}


def _object(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": {"name": NAME}, "spec": spec}
