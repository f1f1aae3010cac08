"""The spec of a lab and what follows from it, with all parts that this installation has."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from hoplab.core.paths import LabPaths
from hoplab.expectations.parts import known_parts
from hoplab.spec import parse, plan
from hoplab.spec.model import Host, LabSpec
from hoplab.spec.parse import HostOf


def load_spec(paths: LabPaths, host: Host | HostOf | None = None) -> LabSpec:
    """Return the spec in ``Pulumi.<lab>.yaml``; with a host, also checked against what that host has."""
    return parse.load_spec(paths, known_parts(), host)


def plan_lab(
    spec: LabSpec, *, lab_id: str, accel: Literal["kvm", "tcg"], ingress_at_hand: Collection[str] = ("readable",)
) -> plan.LabPlan:
    """Return the plan of a spec on a host with this acceleration, and images of these ingress controllers."""
    return plan.plan_lab(spec, known_parts(), lab_id=lab_id, accel=accel, ingress_at_hand=ingress_at_hand)
