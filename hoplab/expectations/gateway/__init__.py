"""What serves the Gateway API, so that lessons are the same for all: GatewayClass, pods, configuration.

What serves nothing else is a part of its own: one module of this folder with a ``PART``, and the role gateway_<name>.
An ingress controller that serves Gateways, too, has its module here without a ``PART``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

from hoplab.expectations.gateway import readable
from hoplab.expectations.gateway.served import HttpRoute, ServedMatch
from hoplab.expectations.ingress import Ways
from hoplab.expectations.registry import get_module
from hoplab.observe.setting import Setting

__all__ = ["GatewayController", "GatewayServer", "HttpRoute", "ServedMatch", "get_controller", "of"]


class GatewayServer(Protocol):
    """The shape of the module of what serves the Gateway API."""

    CLASS: str  # the GatewayClass
    CONFIGURATION: str  # files below the root of its pod, as of an ingress controller
    ENDPOINTS: str
    LABELS: Mapping[str, str] | None  # of pods in a Gateway's namespace that serve it; None: the ingress controller's
    WORKLOADS: Mapping[str, str]  # made for each Gateway: name with {gateway} -> kind ("deployments")

    def served(self, configuration: str, route: HttpRoute) -> tuple[ServedMatch, ...]:
        """Return where each match of a route's rules leads; () without the route's host, in the order of the rules."""


class GatewayController(GatewayServer, Protocol):
    """The shape of a module with a ``PART``."""

    WAYS: Ways


def get_controller(name: str) -> GatewayController:
    """Return the module of the gateway controller of that name; LabError when there is none."""
    return cast("GatewayController", get_module(__name__, name, "gateway controller"))


def of(setting: Setting) -> GatewayServer | None:
    """Return what serves the Gateway API in a lab; None where nothing does."""
    if setting.gateway_controller != "none":
        return get_controller(setting.gateway_controller)
    return cast("GatewayServer", readable) if setting.gateway_api else None
