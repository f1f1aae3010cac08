"""readable: hoplab's own ingress controller, which serves Gateways with ``ingress.gatewayApi``.

A rule of an HTTPRoute is a location with the rule's name, which a request gets to by a ``map`` of all matches.
"""

from __future__ import annotations

from collections.abc import Mapping

from hoplab.expectations.gateway.served import HttpRoute, ServedMatch
from hoplab.expectations.ingress import readable

CLASS = "readable"
CONFIGURATION = readable.CONFIGURATION
ENDPOINTS = ""
LABELS: Mapping[str, str] | None = None  # the pods of the ingress controller serve every Gateway
WORKLOADS: Mapping[str, str] = {}


def served(configuration: str, route: HttpRoute) -> tuple[ServedMatch, ...]:
    blocks = {block.host: block for block in readable.served(configuration)}
    if route.host not in blocks:
        return ()
    paths, names = blocks[route.host].paths, [route.rule_name(number) for number in range(len(route.rules))]
    return tuple(
        ServedMatch(number, name, f"location = {name}", paths.get(name, ())) for number, name in enumerate(names)
    )
