"""What Ingresses ask for, and the nginx.conf that serves it; pure: objects of the API go in, text comes out.

Ingress, IngressClass, Secret -> wishes()        -> Site, one for each Ingress      what was asked for
Service, EndpointSlice        -> configuration() -> the text of nginx.conf          where it is to be had now
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hoplab.image.readable.api import Object, key

CONTROLLER = "hoplab.local/readable"  # what an IngressClass names to be ours
HTTP, HTTPS, HEALTH = 8080, 8443, 8081  # in the pod; the node's ports 80 and 443 lead here (hostPort)
TEMPLATE = Path(__file__).with_name("nginx.conf.in")  # all but upstreams and servers

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
class Route:
    """One path of one rule."""

    host: str  # "app1.yash.com", "*.yash.com", "" for every host that nobody names
    path: str
    exact: bool
    backend: Backend


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, as a TLS secret holds them."""

    secret: str  # "namespace/name"
    pem: str = field(repr=False)

    @property
    def file(self) -> str:
        """Named after what is in it: the file of an older configuration is not overwritten."""
        return f"{self.secret.replace('/', '.')}.{hashlib.sha256(self.pem.encode()).hexdigest()[:12]}.pem"


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
        data = seen["Secret"].get(name, {}).get("data", {})
        if not data.get("tls.crt") or not data.get("tls.key"):
            problems.append(("NoSecret", f"there is no secret {name} of type kubernetes.io/tls"))
            continue
        pem = "".join(b64decode(data[part]).decode(errors="replace").strip() + "\n" for part in ("tls.crt", "tls.key"))
        for host in entry.get("hosts") or {route.host for route in routes}:
            certificates.setdefault(host, Certificate(name, pem))
    given = spec.get("defaultBackend", {})
    default = backend(given) if "service" in given else None
    return Site(key(ingress), tuple(routes), tuple(sorted(certificates.items())), default), problems


# --- Where it is to be had


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


# --- The text of nginx.conf


def quoted(text: str) -> str:
    """A word of nginx.conf; what somebody wrote into a path stays a path."""
    if re.fullmatch(r"[\w/.~-]+", text, re.ASCII):
        return text
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


def block(head: str, lines: Iterable[str]) -> Iterator[str]:
    """The lines of a block with those lines in it."""
    yield f"{head} {{"
    yield from (f"    {line}" for line in lines)
    yield "}"


def upstream_lines(name: str, pods: Iterable[str]) -> Iterator[str]:
    yield f"zone {name} 64k;"
    yield from (f"server {pod};" for pod in pods)
    yield "keepalive 16;"


def server_lines(server: Server, upstreams: Mapping[str, list[str]]) -> Iterator[str]:
    last = "" if server.host else " default_server"
    yield f"listen {HTTP}{last};"
    if server.certificate:
        yield f"listen {HTTPS} ssl{last};"
        yield f"ssl_certificate tls/{server.certificate.file};"
        yield f"ssl_certificate_key tls/{server.certificate.file};"
    elif not server.host:
        yield f"listen {HTTPS} ssl default_server;"
        yield "ssl_reject_handshake on;  # there is no certificate for a host that nobody names"
    yield f"server_name {quoted(server.name or '_')};"
    for modifier, path, to in server.locations:
        action = f"proxy_pass http://{to.upstream};" if to.upstream in upstreams else "return 503;"
        yield f"location {'= ' if modifier else ''}{quoted(path)} {{ {action} }}"
    if not server.whole:
        yield "location / { return 404; }"


def configuration(sites: Iterable[Site], seen: Objects) -> str:
    """The text of nginx.conf."""
    found = servers(sites)
    backends = {to.upstream: to for server in found for _, _, to in server.locations}
    upstreams = {name: pods for name, to in sorted(backends.items()) if (pods := endpoints(to, seen))}
    blocks = [block(f"upstream {name}", upstream_lines(name, pods)) for name, pods in upstreams.items()]
    blocks += [block("server", server_lines(server, upstreams)) for server in found]
    text = "".join("\n" + "".join(f"    {line}\n" for line in lines) for lines in blocks)
    return TEMPLATE.read_text().replace("@HEALTH@", str(HEALTH)).replace("    @BLOCKS@\n", text)
