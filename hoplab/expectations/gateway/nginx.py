"""nginx: F5's NGINX Gateway Fabric. It makes a Deployment of nginx for each Gateway, in the Gateway's namespace.

An agent beside nginx gets the files from the control plane and reloads nginx. http.conf has a location for each path of
an HTTPRoute. Where rules with the same path ask for more (a header, a query parameter, a method), JavaScript in nginx
compares these in the order of matches.json and redirects to the first match's own location:

    location / { set $match_key 1_2; js_content httpmatches.redirect; }
    location /_ngf-internal-rule2-route0 { internal; proxy_pass http://hoplab-verify_app2-service_80$request_uri; }
    {"1_2": [{"redirectPath": "/_ngf-internal-rule2-route0", "params": ["version=Exact=2"]}, ...]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hoplab.expectations.gateway.served import HttpRoute, ServedMatch
from hoplab.expectations.ingress import Ways, nginx_conf
from hoplab.expectations.ingress.nginx_conf import Directive
from hoplab.spec.parts import GatewayPart

PART = GatewayPart(name="nginx", note="F5's NGINX Gateway Fabric", daemons=("nginx-gateway",))
CLASS = "nginx"
CONFIGURATION = "/etc/nginx/conf.d/http.conf /etc/nginx/conf.d/matches.json"
ENDPOINTS = ""
LABELS: Mapping[str, str] | None = {"app.kubernetes.io/managed-by": "nginx-gateway-nginx"}
WORKLOADS: Mapping[str, str] = {f"{{gateway}}-{CLASS}": "deployments"}
WAYS = Ways(
    proxy="nginx in a pod of each Gateway, beside an agent; the controller is a pod of its own",
    evidence="`/etc/nginx/conf.d/http.conf`: hosts, paths and pods; `matches.json`: what else a rule asks for",
    running="nothing",
    reloads="every change, pods too",
)

NO_MATCH: Sequence[Mapping[str, Any]] = ({},)  # of a rule that is for every path
_NOBODY = "unix:"  # servers of its own: one answers 503 where a service has no pods, one 500 for a wrong reference
_JSON = re.compile(r'\{(?=["}])')
# Of a match in a route -> how matches.json has it
_JOIN = {"queryParams": ("params", "="), "headers": ("headers", ":")}


@dataclass(frozen=True)
class _Server:
    """A server block with what its locations refer to."""

    locations: Mapping[tuple[str, ...], Directive]
    matches: Mapping[str, Sequence[Mapping[str, Any]]]
    upstreams: Mapping[str, tuple[str, ...]]

    def place(self, words: tuple[str, ...], match: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
        """Return in words where requests of a match end that begin at this location, and the endpoints there."""
        said, location = f"location {' '.join(words)}", self.locations.get(words)
        if location is None:
            return f"no {said}", ()
        keys = [found.words[2] for found in location.find("set") if found.words[1:2] == ("$match_key",)]
        if keys:
            paths = [entry["redirectPath"] for entry in self.matches.get(keys[0], ()) if _asks(entry, match)]
            if not paths or (location := self.locations.get((paths[0],))) is None:
                return f"{said}, which matches.json leads nowhere", ()
            said += f", by matches.json to location {paths[0]}"
        target = "".join(location.value("proxy_pass")).partition("://")[2].partition("$")[0]
        return said, self.upstreams.get(target, ())


def served(configuration: str, route: HttpRoute) -> tuple[ServedMatch, ...]:
    conf, matches = _split(configuration)
    whole = nginx_conf.parse(conf)
    upstreams = {
        found.words[1]: tuple(
            server.words[1] for server in found.find("server") if not server.words[1].startswith(_NOBODY)
        )
        for found in whole.find("upstream")
        if len(found.words) > 1
    }
    locations = {
        location.words[1:]: location
        for block in whole.find("server")
        if route.host in block.value("server_name")
        for location in block.find("location")
    }
    if not locations:
        return ()
    server = _Server(locations, matches, upstreams)
    return tuple(
        ServedMatch(number, route.rule_name(number), *server.place(words, match))
        for number, rule in enumerate(route.rules)
        for match in rule.get("matches") or NO_MATCH
        for words in _locations(match)
    )


def _split(configuration: str) -> tuple[str, Mapping[str, Any]]:
    """Return http.conf, and the content of matches.json, which follows it."""
    for found in _JSON.finditer(configuration):
        try:
            matches: Mapping[str, Any] = json.loads(configuration[found.start() :])
        except ValueError:
            continue
        return configuration[: found.start()], matches
    return configuration, {}


def _locations(match: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the locations for the path of a match: a prefix that ends without a slash has two."""
    path = match.get("path", {})
    kind, value = path.get("type", "PathPrefix"), path.get("value", "/")
    if kind == "Exact":
        yield "=", value
    elif kind == "RegularExpression":
        yield "~", f"^{value}"
    elif value.endswith("/"):
        yield (value,)
    else:
        yield (f"{value}/",)
        yield "=", value


def _asks(entry: Mapping[str, Any], match: Mapping[str, Any]) -> bool:
    """Return whether an entry of matches.json is for what a match asks for beside the path."""
    wanted: dict[str, Any] = {
        there: [f"{one['name']}{mark}{one.get('type', 'Exact')}{mark}{one['value']}" for one in match[here]]
        for here, (there, mark) in _JOIN.items()
        if match.get(here)
    }
    if match.get("method"):
        wanted["method"] = match["method"]
    return {name: value for name, value in entry.items() if name != "redirectPath"} == (wanted or {"any": True})
