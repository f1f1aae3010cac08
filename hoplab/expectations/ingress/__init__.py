"""What an ingress controller promises, so that lessons need not know which one runs: where it is, and how to read it.

One controller is one module of this folder, found by its name in the spec, and the role ingress_<name>; there is no
list to edit. What all of them do with an Ingress, they do not promise here: the lessons demand it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from hoplab.core.errors import LabError


@dataclass(frozen=True)
class Served:
    """What a controller's configuration does for one host."""

    host: str
    paths: Mapping[str, tuple[str, ...]]  # path without its last slash ("/" for all) -> endpoints, "10.244.1.3:8080"

    def __str__(self) -> str:
        return "; ".join([f"server {self.host}", *(f"{path} -> {', '.join(to)}" for path, to in self.paths.items())])


@dataclass(frozen=True)
class Access:
    """One line of a controller's access log. ``str()`` is the line itself."""

    client: str  # who asked
    host: str
    path: str
    status: int
    upstream: str  # the endpoint that answered, "10.244.1.3:8080"; "" when none was asked
    line: str

    def __str__(self) -> str:
        return self.line


class Controller(Protocol):
    """The shape of a controller's module."""

    NAMESPACE: str
    LABELS: Mapping[str, str]  # of its pods, of which one runs on every node
    CONTAINER: str  # the one of them that logs
    CONTROLLER: str  # what its IngressClass names
    ANNOTATIONS: Mapping[str, str]  # that make it serve a host with a certificate over http too
    CONFIGURATION: str  # files below the root of its pod, as a shell pattern
    ENDPOINTS: str  # URL in its pod for what is not in files; follows the configuration on a line of its own
    BY_ELEMENTS: bool  # whether a path of the type Prefix fits by whole elements, as Kubernetes specifies it

    def served(self, configuration: str) -> tuple[Served, ...]: ...

    def access(self, line: str) -> Access | None: ...


def get_controller(name: str) -> Controller:
    """The controller of that name."""
    try:
        module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    except ModuleNotFoundError:
        raise LabError(
            f"nothing is known of the ingress controller {name!r}", remedy="write hoplab/expectations/ingress/<name>.py"
        ) from None
    return cast("Controller", module)
