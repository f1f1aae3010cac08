"""Fleets: several labs of one spec, for example one for every student of a course.

    Pulumi.course.yaml, --count 3  ->  course-s1, course-s2, course-s3

The first member is made, the others are forks of it: restored from its checkpoint, with keys of their own (see
checkpoint/fork.py). A member's spec is a generated file, so every verb works on it, as ``./lab ssh --lab course-s2``.

    fleet_members.py  names, folders and specs
    fleet_run.py      a verb on many labs, each as a process with its log
    fleet_sheets.py   what a student needs to reach a lab
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hoplab.core.errors import LabError, StateError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.host import ksm
from hoplab.host.info import HostFacts
from hoplab.lab import libvirt_host, state
from hoplab.lab import status as lab_status
from hoplab.lab.context import node_image
from hoplab.lab.doctor import LAB_GIB
from hoplab.lab.fleet_members import Fleet, FleetError, chosen, has_forks, write_specs
from hoplab.lab.fleet_run import run_all
from hoplab.lab.fleet_sheets import write_sheets
from hoplab.lab.spec_file import load_spec
from hoplab.spec.changes import changed_settings
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import LabPlan

HOSTED_MIB = 1024  # memory of a busy hosted control plane


@dataclass(frozen=True)
class Row:
    """The present state of one lab of a fleet."""

    lab: str
    network: str
    machines: str  # "2 of 2 running"
    kubernetes: str  # "2 of 2 Ready"
    healthy: bool


def need_mib(plan: LabPlan) -> int:
    """Return the memory of a lab in MiB when all of its machines use their full memory."""
    return sum(node.memory_mib for node in plan.nodes) + (HOSTED_MIB if plan.placement == "hosted" else 0)


def check_host(fleet: Fleet, plans: Mapping[LabPaths, LabPlan], host: HostFacts) -> list[str]:
    """Return warnings; raise HostError where the machines' host is too small for the members to be made."""
    new = {member: plan for member, plan in plans.items() if not member.state.exists()}
    host.require_memory(sum(need_mib(plan) for plan in new.values()))
    if not host.name:  # of another host each `up` looks at the space
        host.require_disk(fleet.project, LAB_GIB * len(new))
    emulated = sum(len(plan.nodes) for plan in plans.values() if plan.accel == "tcg")
    if emulated > host.cpus:
        return [f"{emulated} emulated machines share {host.cpus} processors: everything takes longer"]
    return []


def up(fleet: Fleet, count: int, parallel: int, progress: Progress, *, fresh: bool = False) -> tuple[LabPaths, ...]:
    """Bring up every member, some at a time; when all have ended, raise FleetError naming the failed ones.

    The first one is made before the others, which are forks of it; with ``fresh`` each new one is made from nothing.
    """
    with progress.phase("specs"):
        members = write_specs(fleet, count)
    with progress.phase("node image"):  # once, before all members need it
        plans = {member: node_image(load_spec(member), member, progress)[0] for member in members}
    for warning in check_host(fleet, plans, libvirt_host.facts_of(load_spec(members[0]), members[0])):
        progress.note(f"warning: {warning}")
    for extra in (member for member in fleet.made() if member not in members):
        progress.note(f"{extra.lab} is beyond --count {count} and stays")
    new = {member for member in members if not member.state.exists()}
    alike = has_forks(load_spec(LabPaths(fleet.spec, fleet.project))) and not fresh
    with progress.phase("labs"):
        anew = {member: ("--fresh",) for member in new} if fresh else {}
        run_all(fleet, members, "up", parallel, progress, options=anew, first_alone=alike)
    with progress.phase("sheets"):
        write_sheets(fleet, plans)
    if alike and new and len(members) > 1:
        share_memory(progress)
    return members


def share_memory(progress: Progress) -> None:
    """Let the kernel keep equal pages of forks once; a note says how much that is, or why it is not done."""
    with progress.phase("memory"):
        try:
            merged = ksm.merge(progress.task)
            progress.note(f"{merged.saved >> 20} MiB of the machines' memory are kept once instead of several times")
        except LabError as error:
            progress.note(f"the labs share no memory: {error.message}")


def destroy(fleet: Fleet, parallel: int, progress: Progress) -> list[str]:
    """Remove every member with its spec, log and sheets; return the removed ones. A failed removal keeps the spec."""
    members = fleet.made()
    with progress.phase("labs"):
        run_all(fleet, members, "destroy", parallel, progress)
    for member in members:
        member.spec.unlink()
    removed = [f"lab {member.lab}" for member in members]
    if fleet.folder.exists():
        shutil.rmtree(fleet.folder)
        with contextlib.suppress(OSError):
            fleet.folder.parent.rmdir()  # with the last fleet
        removed.append(f"folder {fleet.folder}")
    return removed


def reset(
    fleet: Fleet, names: Sequence[str], parallel: int, progress: Progress, *, yes: bool = False
) -> tuple[LabPaths, ...]:
    """Make members anew: from their own kept checkpoint, as forks of the first one, or from nothing.

    Raise FleetError without ``yes``, as what is in them is lost; and at the end, naming the failed ones.
    """
    members = chosen(fleet, names)
    if not yes:
        labs = ", ".join(member.lab for member in members)
        raise FleetError(
            f"the present state of {labs} would be lost",
            remedy=f"if that is what you want: ./lab fleet reset {fleet.spec} {' '.join(names)} --yes",
        )
    for member in members:
        if load_spec(member).checkpoint == "off":
            progress.note(
                f"{member.lab} has no checkpoint and is made from nothing: without lab:checkpoint: off in "
                f"Pulumi.{fleet.spec}.yaml, new labs of it are forks of the first one"
            )
    with progress.phase("old labs"):
        run_all(fleet, members, "destroy", parallel, progress)
    with progress.phase("labs"):
        run_all(fleet, members, "up", parallel, progress)
    if any(load_spec(member).family for member in members):
        share_memory(progress)
    return members


def status(fleet: Fleet) -> list[Row]:
    """Return a row for every lab, including those not made yet."""
    rows = []
    for member in fleet.made():
        try:
            network = str(state.built_setting(state.load(member), member).network)
            seen = lab_status.status(member)
        except StateError as error:
            network = str(load_spec(member).network)
            rows.append(Row(member.lab, network, error.message, "-", healthy=False))
            continue
        nodes = seen["nodes"]
        running = f"{sum(node['machine'] == 'running' for node in nodes)} of {len(nodes)} running"
        ready = f"{sum(bool(node['ready']) for node in nodes)} of {len(nodes)} Ready"
        rows.append(Row(member.lab, network, running, ready, healthy=seen["healthy"]))
    return rows


def notices(fleet: Fleet) -> list[str]:
    """Return a line for each spec that was edited after ``fleet up``: a member's own, and the fleet's."""
    found = []
    changed: dict[str, None] = {}
    with contextlib.suppress(LabError):
        base = load_spec(LabPaths(fleet.spec, fleet.project))
        for made in _made_from(fleet):
            changed |= dict.fromkeys(changed_settings(made, _as_of(made, base)))
    if changed:
        found.append(f"Pulumi.{fleet.spec}.yaml has changed since `fleet up`: {', '.join(changed)}")
    for member in fleet.made():
        with contextlib.suppress(StateError):
            found.append(state.spec_notice(state.load(member), member))
    return list(filter(None, found))


def _as_of(member: LabSpec, base: LabSpec) -> LabSpec:
    """Return the fleet's spec with what a member has of its own."""
    return replace(base, lab=member.lab, network=member.network, checkpoint=member.checkpoint, family=member.family)


def _made_from(fleet: Fleet) -> Iterator[LabSpec]:
    """Yield the spec that each member was made from, where known."""
    for member in fleet.made():
        lab = state.made_before(member)
        if lab and lab.spec:
            yield lab.spec
