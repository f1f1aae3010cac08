"""What the manifest of every ingress controller has in common with its module of hoplab/expectations/ingress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hoplab.expectations.ingress import Controller
from hoplab.verify import workload


def controller_container(seen: Mapping[str, Any], module: Controller) -> dict[str, Any]:
    """Return the one container of a manifest, by kind, whose names are those of the controller's module."""
    assert seen["Namespace"]["metadata"]["name"] == module.NAMESPACE
    assert seen["IngressClass"]["spec"]["controller"] == module.CONTROLLER
    assert seen["IngressClass"]["metadata"]["name"] == workload.INGRESS_CLASS
    pod = seen["DaemonSet"]["spec"]["template"]
    assert pod["metadata"]["labels"] == seen["DaemonSet"]["spec"]["selector"]["matchLabels"] == module.LABELS
    container: dict[str, Any]
    (container,) = pod["spec"]["containers"]
    assert container["name"] == module.CONTAINER
    return container
