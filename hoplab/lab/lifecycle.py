"""What can be done with a lab. Each function is the table of contents of one verb; the modules it names do the work."""

from __future__ import annotations

import contextlib
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from hoplab import engine
from hoplab.cluster import readiness
from hoplab.cluster.control_plane import HostedControlPlane
from hoplab.cluster.converge import ConvergeResult, converge, leave
from hoplab.cluster.converge import reset as take_away
from hoplab.cluster.inventory import refresh_reset_facts, write_inventory
from hoplab.core import fs
from hoplab.core.console import ScreenProgress
from hoplab.core.errors import LabError, ProtectedError, SpecError
from hoplab.core.lock import locked
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.core.wait import Timing, slowness
from hoplab.engine import Changes, choose_engine
from hoplab.expectations.parts import known_parts
from hoplab.host import boot, machines
from hoplab.host.info import host_facts
from hoplab.host.libvirtd import PrivateLibvirt
from hoplab.infra.context import LabContext
from hoplab.lab import doctor, state
from hoplab.lab.context import resolve
from hoplab.lab.spec_file import load_spec
from hoplab.lab.state import LabState, NodeState
from hoplab.spec.plan import LabPlan

SYSTEM_QEMU_LOGS = Path("/var/log/libvirt/qemu")
SHUTDOWN_S = 15.0  # an idle machine with KVM needs a third of it; scaled by the measured speed


@dataclass(frozen=True)
class UpResult:
    """What ``lab up`` did."""

    state: LabState
    changes: Changes
    converged: ConvergeResult


def up(paths: LabPaths, progress: ScreenProgress, *, full: bool = False, recreate: bool = False) -> UpResult:
    """Make the lab what its spec says, and wait until the cluster is really usable. Running it again continues.

    With ``recreate`` machines that are there lose their cluster first.
    """
    spec = load_spec(paths, host_facts())
    with locked(paths.lock, f"lab up --lab {paths.lab}"):
        before = state.made_before(paths)
        state.refuse_another_family(spec, before)
        if not recreate:
            state.refuse_another_dataplane(spec, before)
        doctor.preflight(spec, paths)
        with progress.phase("node image"):
            context = resolve(spec, paths, progress)
        for warning in context.plan.warnings:
            progress.note(f"warning: {warning}")
        if context.plan.ingress_why:
            progress.note(f"ingress controller: {context.plan.ingress_controller} ({context.plan.ingress_why})")
        see_off(context, paths, progress)
        chosen = choose_engine(spec, paths)
        if before and recreate and chosen.makes_clusters:
            remove_cluster(before, paths, progress)
        with progress.phase("machines"):
            applied = chosen.up(progress)
        if before and recreate and not chosen.makes_clusters:
            remove_cluster(before, paths, progress)
        lab, converged = make_cluster(context, paths, progress, full=full)
        chosen.converged()
    return UpResult(lab, applied.changes, converged)


def reset(paths: LabPaths, progress: ScreenProgress) -> ConvergeResult:
    """Take the cluster away and leave the machines as they were before they joined; ``up`` makes a new one."""
    lab = state.load(paths)
    with locked(paths.lock, f"lab reset --lab {paths.lab}"):
        return remove_cluster(lab, paths, progress)


def remove_cluster(lab: LabState, paths: LabPaths, progress: ScreenProgress) -> ConvergeResult:
    """What ``reset`` does, for who holds the lab's lock; the next cluster may have another dataplane."""
    with progress.phase("reset"):
        _wait_until_up(lab, paths, progress)
        refresh_reset_facts(paths, known_parts())
        removed = take_away(paths, lab.netns, progress)
    state.save(replace(lab, dataplane=""), paths)
    return removed


def see_off(context: LabContext, paths: LabPaths, progress: Progress) -> None:
    """Drain, delete and reset the nodes that are no longer asked for, while their machines are still there."""
    planned = {node.name for node in context.plan.nodes}
    before = state.made_before(paths)
    present = {node.name for node in before.nodes} if before else set()
    if leaving := sorted(present - planned):
        with progress.phase("leaving"):
            try:
                leave(leaving, paths, context.netns, progress)
            except LabError as error:  # the cluster forgets them anyway when it is made
                progress.note(f"{', '.join(leaving)} could not be drained: {error.message.splitlines()[0]}")


def is_member(paths: LabPaths, node: str) -> bool:
    """Whether a node is in the cluster, which has to answer."""
    return paths.kubeconfig.exists() and node in (members(paths) or ())


def clear(paths: LabPaths, node: str, machine: str, progress: Progress) -> None:
    """Move the pods of a node away: its machine is about to be replaced. Where it is gone already they are as well."""
    lab = state.load(paths)
    try:
        if machines.has_domain(lab.libvirt_uri, machine):
            progress.task(f"draining {node}")
            leave([node], paths, lab.netns, progress, comes_back=True)
    except LabError as error:
        progress.note(f"{node} could not be drained: {error.message.splitlines()[0]}")


def let_in(context: LabContext, paths: LabPaths, node: str, progress: Progress) -> None:
    """A node whose machine is new joins, and is Ready, before another's turn comes."""
    lab = state.load(paths)
    _write_inventory(context, paths)
    _wait_until_up(replace(lab, nodes=tuple(each for each in lab.nodes if each.name == node)), paths, progress)
    converge(context.plan, paths, lab.netns, progress, only=node)
    readiness.wait_usable_nodes([node], paths, lab.netns, progress, readiness.PATIENCE_S[lab.accel])


def members(paths: LabPaths) -> set[str] | None:
    """The nodes that are in the cluster; None where there is no cluster that answers."""
    try:
        return {row.name for row in readiness.summary(paths, state.load(paths).netns)}
    except LabError:
        return None


def make_cluster(
    context: LabContext, paths: LabPaths, progress: ScreenProgress, *, full: bool = False
) -> tuple[LabState, ConvergeResult]:
    """From machines that boot to a cluster that is really usable. Both engines end here: see resources.py."""
    lab = _record(context, paths)
    with progress.phase("cluster"):
        converged = _converge_while_booting(context.plan, lab, paths, progress, full=full)
    with progress.phase("usable"):
        readiness.wait_usable(context.plan, paths, lab.netns, progress)
    lab = replace(lab, phases=tuple((ended.title, ended.seconds) for ended in progress.ended))
    state.save(lab, paths)
    return lab, converged


def preview(paths: LabPaths, progress: ScreenProgress) -> Changes:
    """What ``up`` would do to machines, networks, volumes and the cluster; nothing is touched."""
    spec = load_spec(paths, host_facts())
    with locked(paths.lock, f"lab preview --lab {paths.lab}"):
        doctor.preflight(spec, paths)
        return choose_engine(spec, paths).preview(progress)


def reconverge(paths: LabPaths, progress: ScreenProgress, *, full: bool = False) -> ConvergeResult:
    """Run the roles again on the machines that exist, as the last ``up`` was asked for them."""
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
    state.save(lab, paths)
    _write_inventory(context, paths)
    return lab


def _write_inventory(context: LabContext, paths: LabPaths) -> None:
    write_inventory(
        context.plan,
        paths,
        netns=context.netns,
        image_bin=context.image.bin,
        image_digest=context.image.digest,
        keys=context.keys,
        parts=known_parts(),
    )


def _converge_while_booting(
    plan: LabPlan, lab: LabState, paths: LabPaths, progress: Progress, *, full: bool
) -> ConvergeResult:
    """Converge starts at once (a hosted control plane needs no machine) while another thread watches the boots.

    A machine that can't be booted ends the converge early, and its BootError is what the user sees.
    """
    failed: list[LabError] = []

    def watch() -> None:
        try:
            _wait_until_up(lab, paths, progress)
        except LabError as error:
            failed.append(error)

    watcher = threading.Thread(target=watch, name="boot-watch", daemon=True)
    watcher.start()
    try:
        result = converge(plan, paths, lab.netns, progress, full=full, cancelled=lambda: bool(failed))
    except LabError:
        if failed:
            raise failed[0] from None
        raise
    watcher.join()
    if failed:
        raise failed[0]
    return result


def _wait_until_up(lab: LabState, paths: LabPaths, progress: Progress) -> None:
    """Wait until every machine's SSH server answers; BootError when one can't be brought that far."""
    boot.wait_until_up(
        lab.libvirt_uri,
        {machines.domain_name(lab.id, node.name): node.address for node in lab.nodes},
        progress,
        namespace=lab.netns,
        accel=lab.accel,
        qemu_logs=PrivateLibvirt(paths).qemu_logs if lab.netns else SYSTEM_QEMU_LOGS,
    )


def exported(paths: LabPaths) -> dict[str, Any]:
    """A lab of the embedded engine as `pulumi stack import` takes it; secrets in it are plain."""
    return engine.exported(paths, paths.kubeconfig.read_text() if paths.kubeconfig.exists() else "")


def adopt(paths: LabPaths) -> Path:
    """Hand a running lab of the embedded engine to the Pulumi CLI; where the engine's own state is kept now."""
    with locked(paths.lock, f"lab pulumi adopt --lab {paths.lab}"):
        engine.cli_engine(paths).adopt(exported(paths))
        return paths.engine_state.replace(paths.engine_state.with_suffix(".adopted"))


def stop(paths: LabPaths, progress: Progress) -> list[str]:
    """Shut the machines down and free the host; everything stays on disk. Returns what was stopped."""
    lab = state.load(paths)
    stopped: list[str] = []
    with locked(paths.lock, f"lab stop --lab {paths.lab}"):
        private = PrivateLibvirt(paths)
        if not lab.netns or private.running():
            timing = Timing(slowness=partial(slowness, lab.accel))

            def shut_down(node: NodeState) -> str:
                name = machines.domain_name(lab.id, node.name)
                why = machines.shutdown_domain(lab.libvirt_uri, name, deadline_s=SHUTDOWN_S, timing=timing)
                progress.task(f"{node.name} is off")
                return f"machine {node.name}" + (f" (switched off: {why})" if why else "")

            progress.task("shutting the machines down")
            with ThreadPoolExecutor() as pool:
                stopped += pool.map(shut_down, lab.nodes)
        if lab.hosted:
            stopped += HostedControlPlane(paths, lab.netns).stop()
        if lab.netns:
            stopped += private.stop()
    return stopped


def start(paths: LabPaths, progress: ScreenProgress) -> LabState:
    """Bring a stopped lab back (also after a reboot of the host), from its files alone: no engine, no Ansible."""
    lab = state.load(paths)
    with locked(paths.lock, f"lab start --lab {paths.lab}"):
        with progress.phase("machines"):
            if lab.netns:
                PrivateLibvirt(paths).start()
            machines.start_network(lab.libvirt_uri, lab.network)
            if lab.hosted:
                HostedControlPlane(paths, lab.netns).start()
            started = {
                node.name: datetime.now(UTC)
                for node in lab.nodes
                if machines.start_domain(lab.libvirt_uri, machines.domain_name(lab.id, node.name))
            }
            _wait_until_up(lab, paths, progress)
        with progress.phase("usable"):
            names = [node.name for node in lab.nodes]
            readiness.wait_usable_nodes(names, paths, lab.netns, progress, started=started)
    return lab


def destroy(paths: LabPaths, progress: Progress) -> list[str]:
    """Remove the lab whatever its state: healthy, half made or corrupted. Returns what was removed."""
    removed: list[str] = []
    _refuse_protected(paths)
    with locked(paths.lock, f"lab destroy --lab {paths.lab}"):
        private = PrivateLibvirt(paths)
        uri = _libvirt_of(paths, private)
        removed += HostedControlPlane(paths, paths.netns).stop()
        if uri:
            removed += _destroy_resources(paths, uri, progress)
        removed += leave_host(paths)
    return removed


def _refuse_protected(paths: LabPaths) -> None:
    """A lab whose spec says so is not destroyed; a spec that can't be read protects nothing."""
    with contextlib.suppress(SpecError, FileNotFoundError):
        if paths.spec.exists() and load_spec(paths).protect:
            raise ProtectedError(
                f"lab {paths.lab} is protected: {paths.spec.name} says lab:protect",
                remedy="if it is to go: set lab:protect to false, then `lab up` and `lab destroy`",
            )


def leave_host(paths: LabPaths, *, keep: tuple[str, ...] = ()) -> list[str]:
    """End what a lab has on this host beside libvirt's objects, and remove its files; ``keep`` is below its folder."""
    removed = HostedControlPlane(paths, paths.netns).stop() + PrivateLibvirt(paths).stop()
    for path in (paths.inventory, paths.ssh_config):
        if path.exists():
            path.unlink()
            removed.append(f"file {path.relative_to(paths.project)}")
    if paths.run.exists():
        shutil.rmtree(paths.run)
        removed.append(f"folder {paths.run}")
    if paths.root.exists():
        fs.remove_but(paths.root, [paths.root / name for name in keep])
        removed.append(f"folder {paths.root}")
    return removed


def _libvirt_of(paths: LabPaths, private: PrivateLibvirt) -> str:
    """The URI of the libvirt that holds what is left of this lab; "" when there is none to ask."""
    if paths.libvirt.exists():
        return private.start()  # it knows its own network and machines also after a reboot
    with contextlib.suppress(LabError):
        return state.load(paths).libvirt_uri
    with contextlib.suppress(LabError):
        return load_spec(paths).libvirt_uri
    return ""


def _destroy_resources(paths: LabPaths, uri: str, progress: Progress) -> list[str]:
    """Through the engine, which knows what it made; by name where the engine can't (corrupt state, broken spec)."""
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
        return removed  # the Pulumi CLI's Host resource went as well, and libvirt with it
    return removed + machines.sweep(uri, paths.id)
