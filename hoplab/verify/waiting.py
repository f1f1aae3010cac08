"""Waits for pods: what a pod or a node waits for, and whether a wait has come to a standstill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hoplab.cluster import readiness
from hoplab.cluster.api import Api
from hoplab.core.wait import Timing

NOT_READY_S = 20.0  # seconds that a node that is not Ready is waited for, on an idle host


class Stall:
    """How long the reason of a wait has been the same."""

    def __init__(self, timing: Timing, stall_s: float | None) -> None:
        self._timing, self._stall_s = timing, stall_s
        self._reason = ""
        self._soon = self._late = timing.deadline(0)

    def quiet(self, reason: str) -> float:
        """Return the seconds of NOT_READY_S, scaled, once the reason has been the same for so long; otherwise 0."""
        if self._stall_s is None:
            return 0.0
        if reason != self._reason:
            self._reason = reason
            self._soon, self._late = self._timing.deadline(NOT_READY_S), self._timing.deadline(self._stall_s)
        if self._soon.left():
            return 0.0
        return self._late.seconds if self.over else self._soon.seconds

    @property
    def over(self) -> bool:
        """Return whether the reason has been the same for the whole time."""
        return not self._late.left()


def why_waiting(pod: Mapping[str, Any]) -> str:
    """Return what a pod's status says it waits for; "" where it says nothing."""
    status = pod.get("status", {})
    for container in status.get("containerStatuses", []):
        if found := container.get("state", {}).get("waiting"):
            return f"{found.get('reason')} {found.get('message', '')}".strip()
    for condition in status.get("conditions", []):
        if condition.get("status") == "False" and condition.get("message"):
            return str(condition["message"])
    return ""


def is_ready(found: Mapping[str, Any]) -> bool:
    """Return whether a pod has the condition Ready."""
    conditions = found.get("status", {}).get("conditions", ())
    return any((condition["type"], condition["status"]) == ("Ready", "True") for condition in conditions)


def not_ready(node: Mapping[str, Any]) -> str:
    """Return why a node is not Ready; "" where it is."""
    return readiness.not_ready(node, "it never reported")


def node_not_ready(api: Api) -> str:
    """Return the first node that is not Ready, with the reason; "" where all are."""
    _, nodes = api("GET", "/api/v1/nodes")
    for node in nodes.get("items", ()):
        if "conditions" in node.get("status", {}) and (why := not_ready(node)):
            return f"{node['metadata']['name']} is not Ready: {why}"
    return ""
