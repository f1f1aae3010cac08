"""ingress-nginx: the Kubernetes community's controller, retired in March 2026. Its endpoints are in nginx's memory."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hoplab.expectations.ingress import Access, Served, Ways, nginx_conf
from hoplab.spec.parts import IngressPart

PART = IngressPart(
    name="ingress-nginx",
    order=30,
    note="the community's, retired in March 2026",
    warning="ingress-nginx was retired in March 2026, there are no fixes any more: ingress.controller",
)
NAMESPACE = "ingress-nginx"
LABELS = {"app": "ingress-nginx"}
CONTAINER = "controller"
CONTROLLER = "k8s.io/ingress-nginx"
ANNOTATIONS: Mapping[str, str] = {}  # the role's ConfigMap has ssl-redirect off
CONFIGURATION = "/etc/nginx/nginx.conf"
ENDPOINTS = "http://127.0.0.1:10246/configuration/backends"
BY_ELEMENTS = True
EVENTS = True
WAYS = Ways(
    proxy="nginx with a balancer in Lua",
    evidence=f"`{CONFIGURATION}`: hosts and paths; `{ENDPOINTS}`: pods",
    running="pods, certificates",
    reloads="hosts and paths",
)


def served(configuration: str) -> tuple[Served, ...]:
    """Return hosts and paths of nginx.conf, with each backend's endpoints from the JSON that follows it."""
    text, _, backends = configuration.rstrip().rpartition("\n")
    endpoints = {
        backend["name"]: tuple(f"{to['address']}:{to['port']}" for to in backend.get("endpoints") or ())
        for backend in json.loads(backends)
    }
    found = []
    for server in nginx_conf.parse(text).find("server"):
        paths: dict[str, tuple[str, ...]] = {}
        for location in server.find("location"):
            sets = dict(directive.words[1:3] for directive in location.find("set") if len(directive.words) == 3)
            path = location.words[-1].rstrip("/") or "/"
            paths.setdefault(path, endpoints.get(sets.get("$proxy_upstream_name", ""), ()))
        found += [Served("" if name == "_" else name, paths) for name in server.value("server_name")]
    return tuple(found)


def access(line: str) -> Access | None:
    return nginx_conf.access(line)
