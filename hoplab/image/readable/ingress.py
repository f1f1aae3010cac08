"""What Ingresses ask for: Ingress, IngressClass, Secret -> wishes() -> Site -> servers() -> Server; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hoplab.image.readable.api import Object, key
from hoplab.image.readable.objects import CONTROLLER, Backend, Certificate, Objects, certificate_of, service_port


@dataclass(frozen=True)
class Route:
    """One path of one rule."""

    host: str  # "app1.yash.com", "*.yash.com", "" for every host that nobody names
    path: str
    exact: bool
    backend: Backend


@dataclass(frozen=True)
class Site:
    """What one Ingress asks for."""

    ingress: str  # "namespace/name"
    routes: tuple[Route, ...]
    certificates: tuple[tuple[str, Certificate], ...]  # by host
    default: Backend | None = None  # spec.defaultBackend


@dataclass(frozen=True)
class Complaint:
    """What is wrong with an Ingress; becomes an Event."""

    ingress: str
    reason: str
    message: str


def ours(ingress: Object, classes: Mapping[str, Object]) -> bool:
    """Whether the Ingress is of a class that names us. (One without a class got the default class when it was made.)"""
    old = ingress["metadata"].get("annotations", {}).get("kubernetes.io/ingress.class", "")
    found = classes.get(f"/{ingress['spec'].get('ingressClassName') or old}", {})
    return bool(found) and found["spec"].get("controller") == CONTROLLER


def wishes(seen: Objects) -> tuple[list[Site], list[Complaint]]:
    """What our Ingresses ask for, the oldest first: where two want the same, it wins."""
    mine = [each for each in seen["Ingress"].values() if ours(each, seen["IngressClass"])]
    mine.sort(key=lambda each: (each["metadata"].get("creationTimestamp", ""), key(each)))
    sites, complaints = [], []
    for ingress in mine:
        site, problems = wish(ingress, seen)
        sites.append(site)
        complaints += [Complaint(site.ingress, *problem) for problem in problems]
    return sites, complaints


def wish(ingress: Object, seen: Objects) -> tuple[Site, list[tuple[str, str]]]:
    """What one Ingress asks for, and what of it is not to be had."""
    spec, namespace = ingress["spec"], ingress["metadata"]["namespace"]
    problems: list[tuple[str, str]] = []

    def backend(given: Object) -> Backend:
        port = given["service"].get("port", {})
        found = Backend(namespace, given["service"]["name"], str(port.get("number") or port.get("name")))
        if service_port(found, seen) is None:
            problems.append(("NoService", f"there is no port {found.port} of a service {namespace}/{found.service}"))
        return found

    routes = []
    for rule in spec.get("rules", ()):
        for path in rule.get("http", {}).get("paths", ()):
            if "service" in path["backend"]:  # the other kind, a resource, is nothing that nginx could serve
                exact = path.get("pathType") == "Exact"
                routes.append(Route(rule.get("host", ""), path.get("path") or "/", exact, backend(path["backend"])))
    certificates: dict[str, Certificate] = {}
    for entry in spec.get("tls", ()):
        name = f"{namespace}/{entry.get('secretName', '')}"
        certificate = certificate_of(name, seen)
        if certificate is None:
            problems.append(("NoSecret", f"there is no secret {name} of type kubernetes.io/tls"))
            continue
        for host in entry.get("hosts") or {route.host for route in routes}:
            certificates.setdefault(host, certificate)
    given = spec.get("defaultBackend", {})
    default = backend(given) if "service" in given else None
    return Site(key(ingress), tuple(routes), tuple(sorted(certificates.items())), default), problems


@dataclass(frozen=True)
class Server:
    """A server block: what nginx does for one host."""

    host: str
    locations: tuple[tuple[str, str, Backend], ...]  # "=" or "", path, where to; in the order in which they win
    certificate: Certificate | None = None

    @property
    def name(self) -> str:
        """nginx's own ``*.yash.com`` also means a.b.yash.com, an Ingress's does not."""
        return rf"~^[^.]+{re.escape(self.host[1:])}$" if self.host.startswith("*.") else self.host

    @property
    def whole(self) -> bool:
        """Whether every path leads somewhere."""
        return any((modifier, path) == ("", "/") for modifier, path, _ in self.locations)


def servers(sites: Iterable[Site]) -> list[Server]:
    """All sites by host; the first is the one for hosts that nobody names."""
    sites = list(sites)
    routes: dict[str, list[Route]] = {"": []}
    defaults: dict[str, Backend] = {}
    certificates: dict[str, Certificate] = {}
    for site in sites:
        for route in site.routes:
            routes.setdefault(route.host, []).append(route)
            if site.default:
                defaults.setdefault(route.host, site.default)
        for host, certificate in site.certificates:
            certificates.setdefault(host, certificate)
    default = next((site.default for site in sites if site.default), None)
    found = []
    for host in sorted(routes, key=lambda host: (host.startswith("*"), host)):
        locations = located(routes[host])
        if last := defaults.get(host, default):
            locations.setdefault(("", "/"), last)
        ordered = sorted(locations.items(), key=lambda each: (-len(each[0][1]), each[0][1], each[0][0] != "="))
        wildcard = f"*.{host.partition('.')[2]}"
        found.append(
            Server(
                host,
                tuple((modifier, path, to) for (modifier, path), to in ordered),
                certificates.get(host) or (certificates.get(wildcard) if host else None),
            )
        )
    return found


def located(routes: Iterable[Route]) -> dict[tuple[str, str], Backend]:
    """Paths as nginx's locations, of which the longest wins, and ``=`` before all others.

    A prefix goes by whole elements: /api is for /api and /api/users, not for /apis.
    """
    found: dict[tuple[str, str], Backend] = {}
    for route in sorted(routes, key=lambda route: not route.exact):  # stable: the older one still comes first
        if route.exact:
            found.setdefault(("=", route.path), route.backend)
            continue
        base = route.path.rstrip("/")
        if base:
            found.setdefault(("=", base), route.backend)
        found.setdefault(("", f"{base}/"), route.backend)
    return found
