"""nginx: F5's NGINX Ingress Controller. A file of /etc/nginx/conf.d is an Ingress, named after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hoplab.expectations.ingress import Access, Served, Ways, nginx_conf
from hoplab.spec.parts import IngressPart

PART = IngressPart(name="nginx", order=20, auto_rank=1, note="F5's")
NAMESPACE = "nginx-ingress"
LABELS = {"app": "nginx-ingress"}
CONTAINER = "nginx-ingress"
CONTROLLER = "nginx.org/ingress-controller"
ANNOTATIONS: Mapping[str, str] = {}  # the role's ConfigMap has ssl-redirect off
CONFIGURATION = "/etc/nginx/conf.d/*.conf"
ENDPOINTS = ""
BY_ELEMENTS = False  # its location for /api is nginx's own prefix, which fits /apiary too
EVENTS = True
WAYS = Ways(
    proxy="nginx, which the controller starts",
    evidence=f"`{CONFIGURATION}`: a file for each Ingress, with its pods",
    running="nothing",
    reloads="every change, pods too",
)

# What it sends to where a service has no pods: a server of its own that answers with 502.
_NOBODY = "unix:"


def served(configuration: str) -> tuple[Served, ...]:
    return tuple(
        replace(
            block,
            paths={
                path: tuple(endpoint for endpoint in to if not endpoint.startswith(_NOBODY))
                for path, to in block.paths.items()
            },
        )
        for block in nginx_conf.served(configuration)
    )


def access(line: str) -> Access | None:
    found = nginx_conf.access(line)
    return replace(found, upstream="") if found and found.upstream.startswith(_NOBODY) else found
