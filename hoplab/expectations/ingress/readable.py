"""readable: hoplab's own controller around Debian's nginx, in hoplab/image/readable/."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hoplab.expectations.ingress import Access, Served, Ways, nginx_conf
from hoplab.spec.parts import IngressPart

PART = IngressPart(name="readable", order=10, auto_rank=2, gateway_api=True)
NAMESPACE = "ingress-readable"
LABELS = {"app": "ingress"}
CONTAINER = "ingress"
CONTROLLER = "hoplab.local/readable"
ANNOTATIONS: Mapping[str, str] = {}  # it never redirects
CONFIGURATION = "/run/nginx/nginx.conf"
ENDPOINTS = ""
BY_ELEMENTS = True
EVENTS = True
WAYS = Ways(
    proxy="nginx, beside the controller",
    evidence=f"`{CONFIGURATION}`: hosts, paths and pods",
    running="nothing",
    reloads="every change, pods too",
)

# 192.168.77.1 http://app1.yash.com "GET /login HTTP/1.1" 200 -> hoplab-verify.app1-service.80 10.244.1.3:8080 200
_LINE = re.compile(
    r'(?P<client>\S+) \w+://(?P<host>\S+) "\S+ (?P<path>\S+)[^"]*" (?P<status>\d{3}) '
    r"-> \S+ (?P<asked>\S+(?:, \S+)*) \S+(?:, \S+)*$"
)


def served(configuration: str) -> tuple[Served, ...]:
    return nginx_conf.served(configuration)


def access(line: str) -> Access | None:
    if not (found := _LINE.search(line.rstrip())):
        return None
    last = found["asked"].split(", ")[-1]  # "10.244.1.3:8080, 10.244.0.3:8080" when the first did not answer
    upstream = "" if last == "-" else last
    return Access(found["client"], found["host"], found["path"], int(found["status"]), upstream, line.strip())
