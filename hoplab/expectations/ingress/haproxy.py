"""haproxy: HAProxy Technologies' controller. Maps lead from host and path to a backend, whose servers are in memory.

The controller changes both over HAProxy's runtime socket and writes files when it reloads, so what counts is what the
running HAProxy says: its page of statistics has a line for each server of each backend.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import replace

from hoplab.expectations.ingress import Access, Limits, Served, Ways, nginx_conf
from hoplab.spec.parts import IngressPart

PART = IngressPart(name="haproxy", order=50, note="HAProxy Technologies'")
NAMESPACE = "haproxy-controller"
LABELS = {"app": "haproxy"}
CONTAINER = "haproxy"
CONTROLLER = "haproxy.org/ingress-controller/nginx"  # with the name of the class, as it requires
ANNOTATIONS: Mapping[str, str] = {}  # the role's ConfigMap has ssl-redirect off
_MAPS = "/usr/local/etc/haproxy/maps/*.map"
CONFIGURATION = f"/usr/local/etc/haproxy/haproxy.cfg {_MAPS}"
ENDPOINTS = "http://127.0.0.1:1024/;csv"
BY_ELEMENTS = True
EVENTS = False
WAYS = Ways(
    proxy="HAProxy, beside the controller",
    evidence=f"`{_MAPS}`: hosts and paths; `{ENDPOINTS}`: servers of each backend",
    running="pods, up to 42 of a service; paths and hosts that lead to services which others lead to",
    reloads="a service that nothing led to before, a new certificate, another default backend",
)

# What it sends to where no rule fits: a server of the controller itself, which answers with 404.
_NOBODY = "127.0.0.1:6061"
_SILENCE = re.compile(r"^\s+timeout server (\d+)$", re.MULTILINE)  # milliseconds
_DOWN = ("MAINT", "DOWN")  # of slots for servers that are not there: it keeps more of them than a service has pods


def served(configuration: str) -> tuple[Served, ...]:
    """Return hosts and paths of the maps, with the servers of their backends that are up, from the statistics."""
    files, _, statistics = configuration.partition("# pxname")
    endpoints: dict[str, tuple[str, ...]] = {}
    for row in csv.DictReader(io.StringIO(f"pxname{statistics}")):
        name, address = row["pxname"], row.get("addr") or ""
        if row["svname"] not in ("FRONTEND", "BACKEND") and address and not row["status"].startswith(_DOWN):
            endpoints[name] = (*endpoints.get(name, ()), address)
    limits = _limits(files)
    hosts: dict[str, dict[str, tuple[str, ...]]] = {}
    for line in files.splitlines():
        key, tab, value = line.partition("\t")
        host, slash, path = key.partition("/")
        if not tab or not slash:  # of haproxy.cfg; host.map leads from a host to itself
            continue
        backend = value.strip().partition(".")[0]  # what follows are numbers of rules
        hosts.setdefault(host, {})[f"/{path}".rstrip("/") or "/"] = endpoints.get(backend, ())
    return tuple(
        Served(f"*{host}" if host.startswith(".") else host, paths, dict.fromkeys(paths, limits))
        for host, paths in hosts.items()
    )


def _limits(files: str) -> Limits:
    """Return the limits of its defaults; bodies have none."""
    found = _SILENCE.search(files)
    where = f"timeout server {found[1]} ms (defaults of its configuration)" if found else "no limit"
    return Limits(None, int(found[1]) / 1000 if found else None, "no limit", where)


def access(line: str) -> Access | None:
    found = nginx_conf.access(line)
    return replace(found, upstream="") if found and found.upstream in (_NOBODY, "-:-") else found
