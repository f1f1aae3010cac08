"""The verbs that stop and start a lab from its files alone, without engine and Ansible."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from hoplab.cluster import readiness
from hoplab.cluster.control_plane import HostedControlPlane
from hoplab.core.console import ConsoleProgress
from hoplab.core.lock import locked
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.core.wait import Timing, slowness
from hoplab.host import boot, freeze, machines
from hoplab.host.libvirtd import PrivateLibvirt
from hoplab.lab import clocks, host_access, rekey, state
from hoplab.lab.checkpoint import journal
from hoplab.lab.state import LabState, NodeState

SYSTEM_QEMU_LOGS = Path("/var/log/libvirt/qemu")
API_PORT = 6443
SHUTDOWN_S = 15.0  # three times the need of an idle machine with KVM; scaled by the measured speed


def stop(paths: LabPaths, progress: Progress) -> list[str]:
    """Shut the machines down and free the host; everything stays on disk. Return the stopped objects."""
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
        stopped += host_access.end_forward(paths)
        if lab.hosted:
            stopped += HostedControlPlane(paths, lab.netns).stop()
        if lab.netns:
            stopped += private.stop()
    return stopped


def start(paths: LabPaths, progress: ConsoleProgress) -> LabState:
    """Start a stopped lab (also after a reboot of the host) from its files alone, without engine and Ansible.

    Finish a checkpoint or a restore that was killed, and set clocks that stood still while the host slept.
    """
    if not journal.pending(paths):
        state.load(paths)
    with locked(paths.lock, f"lab start --lab {paths.lab}"):
        return run(paths, progress)


def run(paths: LabPaths, progress: ConsoleProgress) -> LabState:
    """Start the lab as ``start`` does; the caller holds the lab's lock."""
    restored = journal.place(paths)
    lab = state.load(paths)
    names = [node.name for node in lab.nodes]
    with progress.phase("machines"):
        started = switch_on(lab, paths, progress, resumed_are_up=restored)
        if restored:
            clocks.renew(lab, paths)
        else:
            clocks.mend(lab, paths, progress)
    with progress.phase("usable"):
        readiness.wait_usable_nodes(names, paths, lab.netns, progress, started=started)
    lab = host_access.open_host(state.load(paths), paths, progress.note)
    if restored:
        journal.done(paths)
    return lab


def switch_on(
    lab: LabState, paths: LabPaths, progress: Progress, *, resumed_are_up: bool = False
) -> dict[str, datetime]:
    """Start everything that a lab has on this host, up to its machines' SSH servers; return what ``wake`` does.

    With ``resumed_are_up`` only the servers of machines that had to boot are waited for: a login takes ten seconds
    and more on an emulated machine, and what comes next is done by its agent.
    """
    if lab.netns:
        PrivateLibvirt(paths).start()
    machines.start_network(lab.libvirt_uri, lab.network)
    host_access.open_way(lab, paths)
    rekey.close_door(lab, paths)
    started = wake(lab, paths, progress)
    rekey.finish(lab, paths, progress)
    waited = [node for node in lab.nodes if node.name in started or not resumed_are_up]
    if waited:
        wait_until_booted(replace(lab, nodes=tuple(waited)), paths, progress)
    return started


def wake(lab: LabState, paths: LabPaths, progress: Progress) -> dict[str, datetime]:
    """Start the hosted control plane and all machines; return when each node that booted was switched on.

    Saved memory is loaded beside the control plane's start. Then all machines run from one moment on, so that none
    meets an API server that it knew, or neighbours that are not there yet.
    """
    nodes = {machines.domain_name(lab.id, node.name): node.name for node in lab.nodes}
    with ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(freeze.load_saved, lab.libvirt_uri, list(nodes), progress)
        if lab.hosted:
            HostedControlPlane(paths, lab.netns).start()
        loaded.result()
    now = datetime.now(UTC)
    woken = freeze.run(lab.libvirt_uri, list(nodes))
    return {nodes[name]: now for name, how in woken.items() if how == "booted"}


def interrupted(paths: LabPaths) -> bool:
    """Return whether a killed command left machines saved or suspended, or a restore half done."""
    if journal.pending(paths) or rekey.pending(paths):
        return True
    lab = state.made_before(paths)
    if lab is None or not lab.netns:
        return False
    names = [machines.domain_name(lab.id, node.name) for node in lab.nodes]
    if any(freeze.saved_memory(paths.libvirt, name).exists() for name in names):
        return True
    return PrivateLibvirt(paths).running() and freeze.interrupted(lab.libvirt_uri, names)


def wait_until_booted(lab: LabState, paths: LabPaths, progress: Progress) -> None:
    """Wait until every machine's SSH server answers; raise BootError when one does not boot."""
    boot.wait_until_up(
        lab.libvirt_uri,
        {machines.domain_name(lab.id, node.name): node.address for node in lab.nodes},
        progress,
        namespace=lab.netns,
        accel=lab.accel,
        qemu_logs=PrivateLibvirt(paths).qemu_logs if lab.netns else SYSTEM_QEMU_LOGS,
    )
