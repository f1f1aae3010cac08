"""Properties of ingress controllers, so that lessons are the same for all: pods, configuration, access log.

One controller is one module of this folder, which its ``PART`` describes, and the role ingress_<name>; there is no list
to edit. The behaviour that all controllers share is not described here: the lessons require it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from hoplab.expectations.registry import get_module
from hoplab.spec.parts import IngressPart


@dataclass(frozen=True)
class Limits:
    """What a controller allows on a path. A limit that it does not have is None."""

    body: int | None  # bytes of a request's body
    silence: float | None  # seconds that a pod may be silent in the middle of an answer, or a WebSocket
    body_from: str  # where it is set: "client_max_body_size 1m (nginx's default)"
    silence_from: str


@dataclass(frozen=True)
class Served:
    """A controller's configuration for one host name."""

    host: str
    paths: Mapping[str, tuple[str, ...]]  # path without its last slash ("/" for all) -> endpoints, "10.244.1.3:8080"
    limits: Mapping[str, Limits] = field(default_factory=dict)  # of these paths, for controllers that have any

    def __str__(self) -> str:
        return "; ".join([f"server {self.host}", *(f"{path} -> {', '.join(to)}" for path, to in self.paths.items())])


@dataclass(frozen=True)
class Access:
    """One line of a controller's access log. ``str()`` is the line itself."""

    client: str  # address of the client
    host: str
    path: str
    status: int
    upstream: str  # the endpoint that answered, "10.244.1.3:8080"; "" without one
    line: str

    def __str__(self) -> str:
        return self.line


@dataclass(frozen=True)
class Ways:
    """What a controller does in its own way, in words for docs/ingress-controllers.md."""

    proxy: str  # the program that answers requests
    evidence: str  # where inside of its pod is seen what it serves
    running: str  # changes that the running program takes
    reloads: str  # changes for which it starts other processes


class Controller(Protocol):
    """The shape of a controller's module."""

    PART: IngressPart
    NAMESPACE: str
    LABELS: Mapping[str, str]  # of its pods, of which one runs on every node
    CONTAINER: str  # the one of them that logs
    CONTROLLER: str  # what its IngressClass names
    ANNOTATIONS: Mapping[str, str]  # that make it serve a host with a certificate over http too
    CONFIGURATION: str  # files below the root of its pod, as shell patterns; "" without any
    ENDPOINTS: str  # URL in its pod for what is not in files, "" without; follows these on a line of its own
    WAYS: Ways
    EVENTS: bool  # whether it writes Events about Ingresses that it can't serve
    BY_ELEMENTS: bool  # whether a path of the type Prefix fits by whole elements, as Kubernetes specifies it

    def served(self, configuration: str) -> tuple[Served, ...]: ...

    def access(self, line: str) -> Access | None: ...


def get_controller(name: str) -> Controller:
    """Return the module of the ingress controller of that name; LabError when there is none."""
    return cast("Controller", get_module(__name__, name, "ingress controller"))
