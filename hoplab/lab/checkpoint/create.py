"""Write a checkpoint of a running lab, which goes on running.

1. guests: write their disks' caches out and drop clean ones, which makes their memory smaller.
2. cut: the hosted control plane is ended, and all machines are suspended; libvirt writes their memory while the lab's
   folder is copied. Then everything runs again.
3. digests: while the lab runs, every file is digested and written out, and the checkpoint gets its name.

The control plane is ended first, by a kill: the machines see their connections to its API end, and resume without any
that nobody knows of. etcd reads its log at the next start, as after any kill.

A command that is killed in step 2 leaves suspended machines, which `./lab start` resumes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from hoplab.cluster import readiness
from hoplab.cluster.control_plane import HostedControlPlane
from hoplab.cluster.inventory import roles_digest
from hoplab.core import fs
from hoplab.core.errors import UnavailableError
from hoplab.core.lock import locked
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.host import agent, connections, freeze, machines
from hoplab.host.agent import AgentError
from hoplab.lab import clocks, power, state
from hoplab.lab.checkpoint import copying, manifest
from hoplab.lab.checkpoint.manifest import CheckpointError, Expiry, Manifest
from hoplab.lab.checkpoint.store import INVENTORY, LAB, MEMORY, Store, is_kept, mib, refuse_full_disk
from hoplab.lab.state import LabState
from hoplab.observe.ssh import Hosts, NodeUnreachable
from hoplab.pki.certificates import describe

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
PEM_CERTIFICATES = "sed -n '/BEGIN CERTIFICATE/,/END CERTIFICATE/p'"  # kubelet's file has its key too
SETTLE = "sync; echo 3 >/proc/sys/vm/drop_caches; echo 1 >/proc/sys/vm/compact_memory"
SETTLE_S = 60.0  # for all of it by the agent; scaled
MARK = "==> hoplab <==\n"
ON_NODES = ("/var/lib/kubelet/pki/kubelet-client-current.pem", "/etc/kubernetes/pki/apiserver.crt")
BY_AGENT = SETTLE + "".join(f"\nprintf '{MARK[:-1]}\\n'; {PEM_CERTIFICATES} {file} 2>/dev/null" for file in ON_NODES)


def create(paths: LabPaths, name: str, progress: Progress) -> Manifest:
    """Write a checkpoint of the running lab; raise a LabError without one, with the lab running as before."""
    store = Store(paths)
    lab = state.load(paths)
    if is_kept(name):
        raise CheckpointError(f"{name} is the name of a checkpoint that `up` keeps", remedy="take another name")
    with locked(paths.lock, f"lab checkpoint create --lab {paths.lab}"):
        return write(lab, paths, store, name, progress)


def write(lab: LabState, paths: LabPaths, store: Store, name: str, progress: Progress) -> Manifest:
    """Write a checkpoint; the caller holds the lab's lock."""
    for left in store.clean():
        progress.note(f"removed what a killed command left of checkpoint {left}")
    store.refuse_taken(name)
    refuse_system_libvirt(lab)
    domains = {node.name: machines.domain_name(lab.id, node.name) for node in lab.nodes}
    _refuse_stopped(lab, domains)
    memory_mib = freeze.memory_mib(lab.libvirt_uri, list(domains.values()))
    files = copying.size_of(paths, lab.image)
    refuse_full_disk({store.folder: memory_mib * 2**20 + files}, name)
    progress.note(f"up to {mib(memory_mib * 2**20)} of memory and {mib(files)} of files")
    with progress.phase("guests"):
        expiries = [*_settle(lab, paths, progress), *certificates_below(paths.root)]
    draft = store.draft(name)
    try:
        with progress.phase("cut"), _asleep(lab, paths, progress):
            made = manifest.utc_now()
            _write_all(lab, paths, domains, draft, progress)
        with ThreadPoolExecutor(1) as pool, progress.phase("digests"):
            digested = pool.submit(manifest.digested, draft)
            clocks.mend(lab, paths, progress)
            written = Manifest(
                format=manifest.FORMAT,
                name=name,
                made=made,
                lab=paths.lab,
                id=lab.id,
                image=lab.image,
                spec=lab.spec_digest,
                roles=roles_digest(paths.project),
                hypervisor=freeze.hypervisor(lab.accel),
                machines=domains,
                memory_mib=memory_mib,
                files=digested.result(),
                expiries=tuple(sorted(expiries, key=lambda expiry: expiry.when)),
            ).sealed()
            fs.write(draft / manifest.FILE, written.text(), mode=0o600)
            store.keep(draft, name)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    with progress.phase("usable"):
        names = [node.name for node in lab.nodes]
        readiness.wait_usable_nodes(names, paths, lab.netns, progress, readiness.PATIENCE_S[lab.accel])
    return written


def refuse_system_libvirt(lab: LabState) -> None:
    """Raise CheckpointError for a lab in the system's libvirt, whose definitions are not in the lab's folder."""
    if not lab.netns:
        raise CheckpointError(
            f"lab {lab.lab!r} is in the system's libvirt, and checkpoints are of labs with a libvirt of their own",
            remedy="lab:libvirt: private, the default, makes such a lab: ./lab destroy, then ./lab up",
        )


def _refuse_stopped(lab: LabState, domains: Mapping[str, str]) -> None:
    for node, name in domains.items():
        found = machines.domain_state(lab.libvirt_uri, name)
        if found != "running":
            raise _not_running(lab, f"{node} is {found}" if found else "its libvirt does not answer")


def _not_running(lab: LabState, why: str) -> CheckpointError:
    return CheckpointError(
        f"a checkpoint is made of a running lab, and {why}", remedy=f"start it: ./lab start --lab {lab.lab}"
    )


def _settle(lab: LabState, paths: LabPaths, progress: Progress) -> list[Expiry]:
    """Let all guests write out and drop their caches; return when certificates on them expire."""
    names = [node.name for node in lab.nodes]
    with ThreadPoolExecutor(max(1, len(names))) as pool:
        answers = dict(zip(names, pool.map(lambda name: _settled(lab, paths, name), names), strict=True))
    found: list[Expiry] = []
    for name, answer in answers.items():
        if isinstance(answer, UnavailableError):  # its memory is saved as it is, so nothing is lost
            progress.note(f"{name} could not write its caches out: {answer.message}")
            continue
        for file in ON_NODES:
            found += expiries(f"{name}: {Path(file).name}", answer[file])
    return found


def _settled(lab: LabState, paths: LabPaths, node: str) -> dict[str, str] | UnavailableError:
    """Let one guest do so by its agent, or over SSH where no agent answers; return the certificates in its files."""
    try:
        with agent.opened(lab.libvirt_uri, machines.domain_name(lab.id, node)) as guest:
            done = guest.run(BY_AGENT, limit_s=SETTLE_S)
        texts = done.out.split(MARK)
        return dict(zip(ON_NODES, texts[1:], strict=True))
    except (AgentError, ValueError):
        pass
    commands = {"settle": SETTLE, **{file: f"{PEM_CERTIFICATES} {file} 2>/dev/null" for file in ON_NODES}}
    answer = Hosts([node], paths.ssh_config).answers(commands, in_pods={})[node]
    return answer if isinstance(answer, NodeUnreachable) else {file: answer[file].out for file in ON_NODES}


def certificates_below(folder: Path) -> list[Expiry]:
    """Return when the certificates in a lab's folder expire: the hosted control plane's and those of its sites."""
    return [
        expiry
        for file in sorted(folder.rglob("*.crt"))
        for expiry in expiries(str(file.relative_to(folder)), _text(file))
    ]


def expiries(what: str, text: str) -> list[Expiry]:
    """Return when the certificates in a text expire."""
    found = []
    for certificate in CERTIFICATE.findall(text):
        try:
            found.append(Expiry(what, describe(certificate).ends))
        except ValueError:
            continue  # not ours to judge
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


@contextmanager
def _asleep(lab: LabState, paths: LabPaths, progress: Progress) -> Iterator[None]:
    """Run the body while all machines are suspended and the control plane is ended; then let everything run again."""
    names = [machines.domain_name(lab.id, node.name) for node in lab.nodes]
    try:
        progress.task("suspending the machines")
        if lab.hosted:
            HostedControlPlane(paths, lab.netns).stop(at_once=True)
            connections.wait_until_ended(lab.netns, power.API_PORT)
        freeze.suspend(lab.libvirt_uri, names)
        yield
    finally:
        progress.task("resuming the machines")
        power.wake(lab, paths, progress)


def _write_all(lab: LabState, paths: LabPaths, domains: Mapping[str, str], draft: Path, progress: Progress) -> None:
    """Write the machines' memory, the lab's folder and its inventory; then start the control plane beside the rest."""
    (draft / MEMORY).mkdir(mode=0o700)
    files = {name: draft / MEMORY / f"{name}.save" for name in domains.values()}
    progress.task("writing memory and disks")
    with ThreadPoolExecutor(1) as pool:
        memory = pool.submit(freeze.save, lab.libvirt_uri, files)
        copying.copy_lab(paths, lab.image, draft / LAB)
        (draft / INVENTORY).mkdir(mode=0o700)
        for source, target in ((paths.inventory, "inventory.yml"), (paths.ssh_config, "ssh_config")):
            copying.copy(source, draft / INVENTORY / target)
        if lab.hosted:
            HostedControlPlane(paths, lab.netns).start()
        memory.result()
