"""The verbs that make, change and remove a lab; power.py has ``stop`` and ``start``."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hoplab import engine
from hoplab.cluster import pod_routes, readiness
from hoplab.cluster.api import connect
from hoplab.cluster.control_plane import HostedControlPlane
from hoplab.cluster.converge import ConvergeResult, converge, leave
from hoplab.cluster.converge import reset as reset_cluster
from hoplab.cluster.inventory import refresh_reset_facts, write_inventory
from hoplab.core import fs
from hoplab.core.console import ConsoleProgress
from hoplab.core.errors import LabError, ProtectedError
from hoplab.core.lock import locked
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.engine import Changes, Engine, choose_engine
from hoplab.expectations.parts import known_parts
from hoplab.host import machines, netns
from hoplab.host.libvirtd import PrivateLibvirt
from hoplab.infra.context import LabContext
from hoplab.lab import doctor, host_access, libvirt_host, power, state
from hoplab.lab.checkpoint import journal, kept
from hoplab.lab.checkpoint.manifest import Manifest
from hoplab.lab.context import node_image, resolve
from hoplab.lab.pod_ways import ways_to_pods
from hoplab.lab.power import wait_until_booted
from hoplab.lab.protection import refuse_protected
from hoplab.lab.spec_file import load_spec
from hoplab.lab.state import LabState
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import LabPlan


@dataclass(frozen=True)
class UpResult:
    """The changes of a ``lab up``."""

    state: LabState
    changes: Changes
    converged: ConvergeResult
    checkpoint: Manifest | None = None  # the one that the lab was restored from


def up(
    paths: LabPaths, progress: ConsoleProgress, *, full: bool = False, recreate: bool = False, fresh: bool = False
) -> UpResult:
    """Apply the spec to the lab and wait until the cluster is usable; after an interruption, continue.

    With ``recreate`` remove the cluster of existing machines first. A lab from nothing starts from its kept
    checkpoint, unless ``fresh``.
    """
    spec = load_spec(paths, libvirt_host.host_for(paths))
    with locked(paths.lock, f"lab up --lab {paths.lab}"):
        if power.interrupted(paths):
            progress.note("finishing what a killed command began")
            power.run(paths, progress)
        before = state.made_before(paths)
        state.refuse_another_family(spec, before)
        if not recreate:
            state.refuse_another_dataplane(spec, before)
        first = not (before and before.phases)  # no ``up`` of this lab has come to its end
        if fresh and not first:
            raise LabError(
                f"--fresh makes a new lab, and lab {paths.lab!r} exists",
                remedy=f"remove it first, if that is what you want: ./lab destroy --lab {paths.lab}",
            )
        doctor.preflight(spec, paths)
        chosen = choose_engine(spec, paths)
        keeps = kept.keeps(spec, chosen)
        nothing = not (paths.state.exists() or paths.engine_state.exists())
        if (
            kept.takes(spec, chosen)
            and nothing
            and not fresh
            and (restored := restore_kept(spec, chosen, paths, progress))
        ):
            return restored
        with progress.phase("node image"):
            context = resolve(spec, paths, progress)
        for warning in context.plan.warnings:
            progress.note(f"warning: {warning}")
        if context.plan.ingress_why:
            progress.note(f"ingress controller: {context.plan.ingress_controller} ({context.plan.ingress_why})")
        drain_removed(context, paths, progress)
        if before and recreate and chosen.makes_clusters:
            remove_cluster(before, paths, progress)
        with progress.phase("machines"):
            applied = chosen.up(progress)
        if before and recreate and not chosen.makes_clusters:
            remove_cluster(before, paths, progress)
        lab, converged = make_cluster(context, paths, progress, full=full)
        chosen.converged()
        if keeps and first:
            kept.keep(lab, kept.Recipe(context.plan, context.image.digest, chosen, spec.family), paths, progress)
    return UpResult(lab, applied.changes, converged)


def restore_kept(spec: LabSpec, engine: Engine, paths: LabPaths, progress: ConsoleProgress) -> UpResult | None:
    """Restore the lab from the checkpoint of an earlier ``up`` of it or of its family; None where there is none.

    The caller holds the lock.
    """
    with progress.phase("node image"):
        plan, built = node_image(spec, paths, progress)
    restored = kept.take(kept.Recipe(plan, built.digest, engine, spec.family), paths, progress)
    if restored is None:
        return None
    digest = state.digest_of_spec(spec, paths)
    lab = replace(restored.state, spec=spec, spec_digest=digest, phases=_phases(progress))
    state.save(lab, paths)
    lab = host_access.open_host(lab, paths, progress.note)  # again: the spec of now may have another lab:kubeconfig
    return UpResult(lab, (), ConvergeResult(changed=0, tasks=0, seconds=0.0), restored.manifest)


def reset(paths: LabPaths, progress: ConsoleProgress) -> ConvergeResult:
    """Remove the cluster and restore the machines to their state before they joined; ``up`` makes a new cluster."""
    lab = state.load(paths)
    with locked(paths.lock, f"lab reset --lab {paths.lab}"):
        return remove_cluster(lab, paths, progress)


def remove_cluster(lab: LabState, paths: LabPaths, progress: ConsoleProgress) -> ConvergeResult:
    """Remove the cluster; the caller holds the lab's lock. The next cluster may have another dataplane."""
    with progress.phase("reset"):
        wait_until_booted(lab, paths, progress)
        refresh_reset_facts(paths, known_parts())
        removed = reset_cluster(paths, lab.netns, progress)
    host_access.close_api(paths, progress.note)
    state.save(replace(lab, dataplane="", kubeconfig="", context=""), paths)
    return removed


def drain_removed(context: LabContext, paths: LabPaths, progress: Progress) -> None:
    """Drain, delete and reset the nodes that the plan no longer contains, while their machines still run."""
    planned = {node.name for node in context.plan.nodes}
    before = state.made_before(paths)
    present = {node.name for node in before.nodes} if before else set()
    if leaving := sorted(present - planned):
        with progress.phase("leaving"):
            try:
                leave(leaving, paths, context.netns, progress)
            except LabError as error:  # converge deletes their Node objects later
                progress.note(f"{', '.join(leaving)} could not be drained: {error.message.splitlines()[0]}")


def is_member(paths: LabPaths, node: str) -> bool:
    """Return whether a node is in the cluster; False where the API does not answer."""
    return paths.kubeconfig.exists() and node in (members(paths) or ())


def drain_node(paths: LabPaths, node: str, machine: str, progress: Progress) -> None:
    """Drain a node before its machine is replaced; do nothing where the machine no longer exists."""
    lab = state.load(paths)
    try:
        if machines.has_domain(lab.libvirt_uri, machine):
            progress.task(f"draining {node}")
            leave([node], paths, lab.netns, progress, comes_back=True)
    except LabError as error:
        progress.note(f"{node} could not be drained: {error.message.splitlines()[0]}")


def admit_node(context: LabContext, paths: LabPaths, node: str, progress: Progress) -> None:
    """Let a node with a new machine join, and wait until it is Ready."""
    lab = state.load(paths)
    _write_inventory(context, paths, lab)
    wait_until_booted(replace(lab, nodes=tuple(found for found in lab.nodes if found.name == node)), paths, progress)
    converge(context.plan, paths, lab.netns, progress, only=node)
    readiness.wait_usable_nodes([node], paths, lab.netns, progress, readiness.PATIENCE_S[lab.accel])
    _lead_to_pods(lab, paths)


def members(paths: LabPaths) -> set[str] | None:
    """Return the names of the cluster's nodes; None where no API answers."""
    try:
        return {row.name for row in readiness.summary(paths, state.load(paths).netns)}
    except LabError:
        return None


def make_cluster(
    context: LabContext, paths: LabPaths, progress: ConsoleProgress, *, full: bool = False
) -> tuple[LabState, ConvergeResult]:
    """Converge booting machines and wait until the cluster is usable. Both engines call it: see resources.py."""
    lab = _record(context, paths)
    with progress.phase("cluster"):
        converged = _converge_while_booting(context.plan, lab, paths, progress, full=full)
    with progress.phase("usable"):
        readiness.wait_usable(context.plan, paths, lab.netns, progress, known_parts())
        _lead_to_pods(lab, paths)
    lab = replace(lab, phases=_phases(progress))
    state.save(lab, paths)
    return host_access.open_host(lab, paths, progress.note), converged


def _lead_to_pods(lab: LabState, paths: LabPaths) -> None:
    """Give a hosted control plane routes to the pods; not on a workstation's own network."""
    if lab.hosted and lab.netns:
        with connect(paths, lab.netns) as api:
            pod_routes.set_to(ways_to_pods(api), paths.control_plane / pod_routes.FILE, lab.netns)


def _phases(progress: ConsoleProgress) -> tuple[tuple[str, float], ...]:
    """Return the phases that have ended, each with its seconds, also of those that came twice."""
    seconds: dict[str, float] = {}
    for ended in progress.ended:
        seconds[ended.title] = seconds.get(ended.title, 0.0) + ended.seconds
    return tuple(seconds.items())


def preview(paths: LabPaths, progress: ConsoleProgress) -> Changes:
    """Return the changes that ``up`` would make to machines, networks, volumes and the cluster; change nothing.

    A private libvirt that has to be started for it ends again, and of a lab that does not exist no file stays.
    """
    spec = load_spec(paths, libvirt_host.host_for(paths))
    with locked(paths.lock, f"lab preview --lab {paths.lab}"):
        doctor.preflight(spec, paths)
        had_files, had_namespace = paths.root.exists(), netns.exists(paths.netns)
        try:
            return choose_engine(spec, paths).preview(progress)
        finally:
            if spec.libvirt == "private" and not had_namespace:
                PrivateLibvirt(paths).stop()
            if not had_files and paths.root.exists():
                fs.remove_folder(paths.root)


def reconverge(paths: LabPaths, progress: ConsoleProgress, *, full: bool = False) -> ConvergeResult:
    """Run the roles again on the existing machines, with the spec of the last ``up``."""
    with locked(paths.lock, f"lab converge --lab {paths.lab}"):
        lab = state.load(paths)
        if notice := state.spec_notice(lab, paths):
            progress.note(notice)
        with progress.phase("node image"):
            context = resolve(lab.spec or load_spec(paths), paths, progress)
        with progress.phase("cluster"):
            return _converge_while_booting(context.plan, lab, paths, progress, full=full)


def _record(context: LabContext, paths: LabPaths) -> LabState:
    lab = state.lab_state(
        context.plan,
        libvirt_uri=context.uri,
        netns=context.netns,
        image=context.image.digest,
        image_bin=context.image.bin,
        spec=context.spec,
    )
    if before := state.made_before(paths):
        lab = replace(lab, api_port=before.api_port, kubeconfig=before.kubeconfig, context=before.context)
    if context.spec:
        lab = replace(lab, spec_digest=state.digest_of_spec(context.spec, paths))
    state.save(lab, paths)
    lab = host_access.open_way(lab, paths)
    _write_inventory(context, paths, lab)
    return lab


def _write_inventory(context: LabContext, paths: LabPaths, lab: LabState) -> None:
    write_inventory(
        context.plan,
        paths,
        netns=context.netns,
        image_bin=context.image.bin,
        image_digest=context.image.digest,
        keys=context.keys,
        parts=known_parts(),
        archives=context.image.beside,
        remote=lab.remote,
        api_url=host_access.url(lab.api_port) if lab.remote else "",
    )


def _converge_while_booting(
    plan: LabPlan, lab: LabState, paths: LabPaths, progress: Progress, *, full: bool
) -> ConvergeResult:
    """Converge at once (a hosted control plane needs no machine) while another thread watches the boots.

    A machine that does not boot ends the converge early with its BootError.
    """
    failed: list[LabError] = []

    def watch() -> None:
        try:
            wait_until_booted(lab, paths, progress)
        except LabError as error:
            failed.append(error)

    watcher = threading.Thread(target=watch, name="boot-watch", daemon=True)
    watcher.start()
    try:
        result = converge(
            plan, paths, lab.netns, progress, uri=lab.libvirt_uri, full=full, cancelled=lambda: bool(failed)
        )
    except LabError:
        if failed:
            raise failed[0] from None
        raise
    watcher.join()
    if failed:
        raise failed[0]
    return result


def exported(paths: LabPaths) -> dict[str, Any]:
    """Return the state of the embedded engine in the format of `pulumi stack import`, with secrets in plain text."""
    return engine.exported(paths, paths.kubeconfig.read_text() if paths.kubeconfig.exists() else "")


def adopt(paths: LabPaths) -> Path:
    """Move a running lab from the embedded engine to the Pulumi CLI; return the path of the engine's kept state."""
    with locked(paths.lock, f"lab pulumi adopt --lab {paths.lab}"):
        engine.cli_engine(paths).adopt(exported(paths))
        return paths.engine_state.replace(paths.engine_state.with_suffix(".adopted"))


def destroy(paths: LabPaths, progress: Progress) -> list[str]:
    """Remove the lab in any state: healthy, half made or corrupted. Return the removed objects."""
    removed: list[str] = []
    refuse_protected(paths)
    with locked(paths.lock, f"lab destroy --lab {paths.lab}"):
        private = PrivateLibvirt(paths)
        uri = _libvirt_of(paths, private)
        removed += HostedControlPlane(paths, paths.netns).stop(at_once=True)
        if uri:
            removed += _destroy_resources(paths, uri, progress)
        removed += leave_host(paths, progress.note)
        removed += journal.discard(paths)
    return removed


def leave_host(
    paths: LabPaths, note: Callable[[str], None] = lambda _text: None, *, keep: tuple[str, ...] = ()
) -> list[str]:
    """Stop the lab's processes on this host and remove its files, except ``keep``: paths below its folder."""
    removed = host_access.close_api(paths, note)
    removed += HostedControlPlane(paths, paths.netns).stop(at_once=True) + PrivateLibvirt(paths).stop()
    for path in (paths.inventory, paths.ssh_config, paths.ssh_include):
        if path.exists():
            path.unlink()
            removed.append(f"file {path.relative_to(paths.project)}")
    if paths.root.exists():
        fs.remove_but(paths.root, [paths.root / name for name in keep])
        removed.append(f"folder {paths.root}")
    return removed


def _libvirt_of(paths: LabPaths, private: PrivateLibvirt) -> str:
    """Return the URI of the libvirt with the remaining objects of this lab; "" where none is known."""
    if paths.libvirt.exists():
        return private.start()  # its networks and machines are on disk, so it has them after a reboot too
    with contextlib.suppress(LabError):
        return state.load(paths).libvirt_uri
    with contextlib.suppress(LabError):
        return load_spec(paths).libvirt_uri
    return ""


def _destroy_resources(paths: LabPaths, uri: str, progress: Progress) -> list[str]:
    """Destroy through the engine, and by name where its state is corrupt or the spec is broken."""
    removed: list[str] = []
    private = paths.libvirt.exists()
    try:
        spec = load_spec(paths)
        for change in choose_engine(spec, paths).destroy(progress):
            if change.op == "delete":
                removed.append(f"{change.type} {change.name}")
    except ProtectedError:
        raise
    except LabError as error:
        progress.note(f"{error.message.splitlines()[0]}: removing what carries the lab's name instead")
    if private and not paths.libvirt.exists():
        return removed  # the Pulumi CLI deleted the Host resource too, which stopped libvirt
    return removed + machines.sweep(uri, paths.id)
