"""Traefik: one program that keeps its routes in memory. There is no file: its API shows routers and their servers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from hoplab.expectations.ingress import Access, Served, Ways
from hoplab.spec.parts import IngressPart

PART = IngressPart(name="traefik", order=40)
NAMESPACE = "traefik"
LABELS = {"app": "traefik"}
CONTAINER = "traefik"
CONTROLLER = "traefik.io/ingress-controller"
ANNOTATIONS: Mapping[str, str] = {}  # the role's entry point `websecure` is beside `web`, and nothing is redirected
CONFIGURATION = ""
ENDPOINTS = "http://127.0.0.1:8080/api/rawdata"  # its API, which the role binds to the pod's loopback
BY_ELEMENTS = True  # by the role's strictPrefixMatching; Traefik's own PathPrefix fits by characters
EVENTS = False
WAYS = Ways(
    proxy="Traefik itself",
    evidence=f"`{ENDPOINTS}`: routers, and the servers of their services",
    running="everything, at most every two seconds",
    reloads="nothing",
)

# Host("app1.yash.com") && (Path("/login") || PathPrefix("/login/"))
_HOST = re.compile(r'\bHost\(["`]([^"`]+)["`]\)')
_PREFIX = re.compile(r'\bPathPrefix\(["`]([^"`]+)["`]\)')
_EXACT = re.compile(r'\bPath\(["`]([^"`]+)["`]\)')


def served(configuration: str) -> tuple[Served, ...]:
    """Return hosts and paths of its routers, with the servers of their services; () where its API did not answer."""
    found: dict[str, Any] = json.loads(configuration.strip() or "{}")
    servers = {
        name: tuple(
            server["url"].partition("://")[2] for server in service.get("loadBalancer", {}).get("servers") or ()
        )
        for name, service in found.get("services", {}).items()
    }
    hosts: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, router in found.get("routers", {}).items():
        service, rule = router.get("service", ""), router.get("rule", "")
        provider = name.partition("@")[2]
        if provider == "internal":  # of its own API
            continue
        to = servers.get(service if "@" in service else f"{service}@{provider}", ())
        paths = _PREFIX.findall(rule) or _EXACT.findall(rule) or ["/"]
        for host in _HOST.findall(rule) or [""]:
            hosts.setdefault(host, {}).update({path.rstrip("/") or "/": to for path in paths})
    return tuple(Served(host, paths) for host, paths in hosts.items())


def access(line: str) -> Access | None:
    """Return a line of the access log, which the role asks for in JSON; None for other lines."""
    try:
        found = json.loads(line)
        return Access(
            client=found["ClientHost"],
            host=found["RequestHost"],
            path=found["RequestPath"],
            status=found["DownstreamStatus"],
            upstream=found.get("ServiceAddr", ""),
            line=line.strip(),
        )
    except (ValueError, KeyError, TypeError):
        return None
