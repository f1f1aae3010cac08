"""What the Pulumi program needs beyond the spec, with all parts that this installation has."""

from __future__ import annotations

from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.expectations.parts import known_parts
from hoplab.host import rootless
from hoplab.image import NodeImage
from hoplab.infra import context
from hoplab.lab import state
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import LabPlan


def resolve(spec: LabSpec, paths: LabPaths, progress: Progress) -> context.LabContext:
    """Build or find the node image, choose the acceleration, start libvirt, make the keys; once per process.

    Raise LabError where the lab exists with another minor of Kubernetes, before an image of that is built.
    """
    before = state.made_before(paths)
    state.refuse_another_kubernetes(spec, before)
    rootless.enter_network()  # Pulumi starts the program in the host's
    return context.resolve(spec, known_parts(), paths, progress, first=before is None)


def node_image(spec: LabSpec, paths: LabPaths, progress: Progress) -> tuple[LabPlan, NodeImage]:
    """Return the plan of a spec on this host, and its node image, built or found."""
    return context.node_image(spec, known_parts(), paths, progress, first=state.made_before(paths) is None)
