"""Inputs of the Pulumi program besides the spec: the plan for this host, the node image, libvirt, keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pulumi

from hoplab.core.errors import ImageError, SpecError, SpecIssue
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.host import accel, machines
from hoplab.host.libvirtd import PrivateLibvirt
from hoplab.host.look import IMAGES
from hoplab.image import (
    NodeImage,
    ensure_boot_files,
    ensure_image,
    ingress_controllers,
    kernel_cmdline,
    offered_ingress_controllers,
    pull_images,
)
from hoplab.pki.keys import LabKeys, ensure_keys
from hoplab.spec.model import LabSpec
from hoplab.spec.parts import Parts
from hoplab.spec.plan import LabPlan, plan_lab


@dataclass(frozen=True)
class LabContext:
    """A plan with the prerequisites of its machines."""

    plan: LabPlan
    image: NodeImage
    uri: str
    netns: str  # "" unless libvirt is private
    keys: LabKeys
    cmdline: str
    spec: LabSpec | None = None  # the spec of the plan

    @property
    def private(self) -> bool:
        """Return whether libvirt is the lab's own: then QEMU is this user and may use the lab's folder."""
        return bool(self.netns)

    def pool(self, paths: LabPaths) -> Path:
        """Return the folder of the lab's volumes: its own, or one where the QEMU of another libvirt may read."""
        return paths.pool if self.private else Path(IMAGES) / self.plan.network.name


_resolved: dict[tuple[LabSpec, LabPaths], LabContext] = {}  # for `lab up` and then the program in its process


def resolve(spec: LabSpec, parts: Parts, paths: LabPaths, progress: Progress, *, first: bool = False) -> LabContext:
    """Build or find the node image, choose the acceleration, start libvirt, make the keys; once per process.

    ``first`` is for a lab that was never made: only for it ``auto`` asks a registry.
    """
    known = _resolved.get((spec, paths))
    if known is None:
        known = _resolved[spec, paths] = _resolve(spec, parts, paths, progress, first=first)
    return known


def node_image(
    spec: LabSpec, parts: Parts, paths: LabPaths, progress: Progress, *, first: bool = False
) -> tuple[LabPlan, NodeImage]:
    """Return the plan of a spec on this host, and its node image, built or cached."""
    kernel, initrd = ensure_boot_files(progress, spec.image_mirror)
    if spec.libvirt == "private":
        choice = accel.resolve(spec.accel, kernel, initrd)
    else:
        choice = accel.of_libvirt(spec.accel, machines.capabilities(spec.libvirt_uri).kvm)
    offline = first and not pull_for_auto(spec, parts, progress)
    plan = plan_lab(
        spec,
        parts,
        lab_id=paths.id,
        accel=choice.accel,
        ingress_at_hand=ingress_controllers(),
        registries_offline=offline,
    )
    needs = {*plan.components, *spec.image_components}
    return plan, ensure_image(choice.accel, progress, spec.image_mirror, needs, spec.kubernetes_version)


def pull_for_auto(spec: LabSpec, parts: Parts, progress: Progress) -> bool:
    """Pull the image of the controller that ``auto`` prefers, where a registry answers at once.

    Return False where registries were asked and gave none.
    """
    ranked = parts.auto_ingress(gateway_api=spec.gateway_api) if spec.ingress_controller == "auto" else ()
    at_hand = ingress_controllers()
    preferred = list(takewhile(lambda name: name not in at_hand, ranked))
    for name in offered_ingress_controllers(preferred):
        progress.note(f"ingress controller: the image of {name} is not at hand, its registry answers: it is pulled")
        try:
            pull_images(parts.ingress[name].role, progress)
        except ImageError as error:
            progress.note(f"warning: {error.message.splitlines()[-1]}")
        else:
            return True
    return not preferred


def _resolve(spec: LabSpec, parts: Parts, paths: LabPaths, progress: Progress, *, first: bool) -> LabContext:
    plan, image = node_image(spec, parts, paths, progress, first=first)
    _check_disks(plan, image, paths)
    if spec.libvirt == "private":
        uri, netns = PrivateLibvirt(paths).start(), paths.netns
    else:
        uri, netns = spec.libvirt_uri, ""
    keys = ensure_keys(paths, [node.name for node in plan.nodes])
    return LabContext(plan, image, uri, netns, keys, kernel_cmdline(plan.accel), spec)


def _check_disks(plan: LabPlan, image: NodeImage, paths: LabPaths) -> None:
    """Raise SpecError where a machine's disk is smaller than the image."""
    fields = {"control-plane": "nodes.controlPlane.disk", "worker": "nodes.worker.disk"}
    small = {fields[node.role]: node.disk_gib for node in plan.nodes if node.disk_gib < image.size_gib}
    if small:
        raise SpecError(
            str(paths.spec.name),
            [
                SpecIssue(path, f"is {size} GiB", f"at least {image.size_gib} GiB, the size of the node image")
                for path, size in small.items()
            ],
        )


class PulumiProgress:
    """Progress in Pulumi's log: `pulumi up` shows it beside the stack during the program's preparation."""

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        pulumi.log.info(title)
        yield

    def task(self, text: str) -> None:
        pulumi.log.info(text, ephemeral=True)

    def note(self, text: str) -> None:
        pulumi.log.info(text)
