"""The lab made by hand with virsh, qemu-img, ssh, kubeadm and kubectl alone: the lower bound of `./lab up` in pair.

Each step is a command that a person would type, and runs at the earliest possible moment. While the machines boot,
kubeadm makes the hosted control plane; each machine joins as soon as it accepts a login. Files that a person would
prepare (keys, configurations, manifests: see sheets.py) exist before. The clock runs from nothing, not even a network
namespace, until the cluster is usable by the same check as in `./lab up`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click

from benchmarks.labs import BenchLab, Report, bench_lab, last_line, results_folder, settings, spec_options
from benchmarks.sheets import Sheets, sheets
from hoplab.cluster import readiness
from hoplab.cluster.api import connect
from hoplab.cluster.control_plane import INSIDE, ORDER, read_manifest
from hoplab.cluster.inventory import write_inventory
from hoplab.core.console import PlainProgress
from hoplab.core.errors import ClusterError, LabError
from hoplab.core.paths import LabPaths
from hoplab.core.wait import Expired, NotYet, until
from hoplab.devtools.programs import main
from hoplab.engine import libvirt_xml, schema
from hoplab.expectations.parts import known_parts
from hoplab.host import machines
from hoplab.host.libvirtd import PrivateLibvirt
from hoplab.image import NodeImage
from hoplab.lab import state
from hoplab.lab.context import node_image
from hoplab.lab.spec_file import load_spec
from hoplab.pki.keys import ensure_keys
from hoplab.spec.plan import LabPlan

STEP_S = 1200.0  # deadline of one step, far above the time of a healthy lab
AGAIN_S = 1.0  # until ssh worker1 true; do sleep 1; done


class Laps:
    """A stopwatch: seconds from the start to the end of each step."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.times: dict[str, float] = {}
        self._lock = threading.Lock()

    def lap(self, step: str) -> None:
        """Record the end of a step; where several machines take it, the last one counts."""
        with self._lock:
            self.times.pop(step, None)  # sorted by the last end
            self.times[step] = round(time.monotonic() - self.began, 1)

    @property
    def total(self) -> float:
        return max(self.times.values(), default=0.0)


@dataclass(frozen=True)
class ByHand:
    """One lab made by hand. Every command and its output go to ``log``."""

    paths: LabPaths
    plan: LabPlan
    image: NodeImage
    sheets: Sheets
    log: IO[str]

    def up(self) -> Laps:
        """Make the lab; return the times of its steps. Raise LabError with the failed command and its output."""
        laps = Laps()
        libvirt = PrivateLibvirt(self.paths).start()
        laps.lap("libvirt")
        self._power_on(libvirt)
        laps.lap("power-on")
        invitation: Future[tuple[str, str]] = Future()
        with ThreadPoolExecutor(max_workers=len(self.plan.workers)) as pool:
            try:
                joins = [pool.submit(self._join, node.name, invitation, laps) for node in self.plan.workers]
                self._control_plane(laps)
                self._run([*self._kubectl, "apply", "-f", "-"], stdin=self.sheets.network)
                laps.lap("pod network")
                invitation.set_result(self._invite())
            except BaseException as error:
                invitation.set_exception(error)  # ends the waits of the joins
                raise
            for join in joins:
                join.result()
        self._wait_usable(laps)
        return laps

    def record(self) -> None:
        """Let `./lab verify` and `./lab ssh` find the lab, as `./lab up` would."""
        libvirt = PrivateLibvirt(self.paths).uri
        made = state.lab_state(
            self.plan,
            libvirt_uri=libvirt,
            netns=self.paths.netns,
            image=self.image.digest,
            image_bin=self.image.bin,
        )
        state.save(made, self.paths)

    def _power_on(self, libvirt: str) -> None:
        """Make network, disks and seeds, then the machines, all with the properties of the Pulumi program."""
        virsh = ["virsh", "--quiet", "--connect", libvirt]
        (pool,), (network,) = self.sheets.of(schema.POOL), self.sheets.of(schema.NETWORK)
        self._run([*virsh, "net-define", "/dev/stdin"], stdin=libvirt_xml.network(network))
        self._run([*virsh, "net-start", network["name"]])
        folder = Path(pool["target"]["path"])
        folder.mkdir(parents=True, exist_ok=True)
        for disk in self.sheets.of(schema.VOLUME):
            if "baseVolumeId" in disk:
                command = ["qemu-img", "create", "-q", "-f", disk["format"], "-b", disk["baseVolumeId"], "-F", "qcow2"]
                self._run([*command, str(folder / disk["name"]), str(disk["size"])])
        for seed in self.sheets.of(schema.SEED):
            files = folder / f"{seed['name']}.d"
            files.mkdir()
            for name, key in {
                "user-data": "userData",
                "meta-data": "metaData",
                "network-config": "networkConfig",
            }.items():
                (files / name).write_text(seed[key])
            command = ["genisoimage", "-quiet", "-output", str(folder / seed["name"]), "-volid", "cidata"]
            self._run([*command, "-joliet", "-rock", str(files)])
            shutil.rmtree(files)
        self._run([*virsh, "pool-define-as", pool["name"], "dir", "--target", str(folder)])
        self._run([*virsh, "pool-start", pool["name"]])
        formats = {disk["name"]: disk["format"] for disk in self.sheets.of(schema.VOLUME)}
        for machine in self.sheets.of(schema.DOMAIN):
            disks = [
                libvirt_xml.DiskVolume(pool["name"], disk["volumeId"], formats.get(disk["volumeId"], "raw"))
                for disk in machine["disks"]
            ]
            document = libvirt_xml.domain(machine, arch=os.uname().machine, disks=disks, networks=[network["name"]])
            self._run([*virsh, "define", "/dev/stdin"], stdin=document)
            self._run([*virsh, "start", machine["name"]])

    def _control_plane(self, laps: Laps) -> None:
        if self.plan.placement == "vm":
            self._control_plane_in_vm(laps)
        else:
            self._control_plane_here(laps)
        laps.lap("control plane")

    def _control_plane_here(self, laps: Laps) -> None:
        """Run kubeadm's phases below the lab's folder, and start the commands of its four manifests as processes."""
        root = self.paths.control_plane
        kubernetes = root / "etc/kubernetes"
        for folder in (kubernetes, root / "var/lib/etcd", root / "log"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (root / "bin").symlink_to(self.image.bin)
        (kubernetes / "kubeadm.yml").write_text(self.sheets.kubeadm)

        def phases(*names: str) -> None:
            kubeadm = [str(self.image.bin / "kubeadm"), f"--rootfs={root}", "init", "phase"]
            for name in names:
                self._run([*self._inside, *kubeadm, *name.split(), "--config=/etc/kubernetes/kubeadm.yml"])

        phases("certs all", "kubeconfig all", "etcd local", "control-plane all")
        shutil.copy(kubernetes / "admin.conf", self.paths.kubeconfig)
        for name in ORDER:
            if name == "kube-controller-manager":  # it and the scheduler exit without an API server
                self._until([*self._kubectl, "get", "--raw", "/readyz"], every=0.2)
                laps.lap("API ready")
            program = read_manifest((kubernetes / f"manifests/{name}.yaml").read_text())
            flags = [INSIDE.sub(str(root), flag) for flag in program.command[1:]]
            with (root / f"log/{name}.log").open("w") as log:
                subprocess.Popen(
                    [*self._inside, f"{root}/bin/{name}", *flags],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        phases("upload-config all", "bootstrap-token --skip-token-print", "addon all")

    def _control_plane_in_vm(self, laps: Laps) -> None:
        """Run kubeadm init on the control plane's own machine."""
        node = self.plan.nodes[0].name
        self._until_ssh(node)
        laps.lap("ssh control plane")
        for pod, patch in self.sheets.patches.items():
            file = f"/etc/kubernetes/patches/{pod}0+strategic.yaml"
            self._ssh(node, f"sudo mkdir -p /etc/kubernetes/patches && sudo tee {file}", stdin=patch)
        self._ssh(node, "sudo kubeadm init --skip-token-print --config=/dev/stdin", stdin=self.sheets.kubeadm)
        laps.lap("API ready")
        with os.fdopen(os.open(self.paths.kubeconfig, os.O_WRONLY | os.O_CREAT, 0o600), "w") as kubeconfig:
            self._ssh(node, "sudo cat /etc/kubernetes/admin.conf", out=kubeconfig)

    def _invite(self) -> tuple[str, str]:
        """Create a bootstrap token; return it with the hash by which the nodes verify the API server's CA."""
        kubeadm = [*self._inside, str(self.image.bin / "kubeadm"), f"--kubeconfig={self.paths.kubeconfig}"]
        command = [*kubeadm, "token", "create", "--ttl=1h0m0s", "--print-join-command"]
        said = subprocess.run(command, stdout=subprocess.PIPE, stderr=self.log, text=True, check=False).stdout
        found = re.search(r"--token (\S+) .*(sha256:[0-9a-f]{64})", said)
        if not found:
            raise self._failed(command)
        return found[1], found[2]

    def _join(self, node: str, invitation: Future[tuple[str, str]], laps: Laps) -> None:
        self._until_ssh(node, invitation)
        laps.lap("ssh")
        token, ca_hash = invitation.result(timeout=STEP_S)
        sheet = self.sheets.join(node, token=token, ca_hash=ca_hash)
        self._ssh(node, "sudo kubeadm join --config=/dev/stdin", stdin=sheet)
        laps.lap("joined")

    def _wait_usable(self, laps: Laps) -> None:
        """Wait until every node is Ready, then until the cluster is usable according to hoplab.cluster.readiness."""
        names = tuple(node.name for node in self.plan.nodes)
        with connect(self.paths, self.paths.netns) as api:

            def usable() -> NotYet | None:
                try:
                    reasons = readiness.missing(readiness.list_objects(api), names)
                except ClusterError as error:
                    reasons = [error.message]
                if "Ready" not in laps.times and not any(reason.startswith("node ") for reason in reasons):
                    laps.lap("Ready")
                return NotYet(reasons[0]) if reasons else None

            try:
                until(usable, STEP_S, poll_s=readiness.POLL_S)
            except Expired as expired:
                raise ClusterError(
                    f"the by-hand cluster is not usable after {expired.seconds:.0f} s: {expired.reason}",
                    remedy="see the log",
                    log=self.log.name,
                ) from None
            laps.lap("usable")

    # The commands

    @property
    def _inside(self) -> list[str]:
        """Return the prefix of a command on the host end of the lab network."""
        return ["nsenter", f"--net=/run/netns/{self.paths.netns}"]

    @property
    def _kubectl(self) -> list[str]:
        return [*self._inside, str(self.image.bin / "kubectl"), f"--kubeconfig={self.paths.kubeconfig}"]

    def _run(self, command: Sequence[str], *, stdin: str = "", out: IO[str] | None = None) -> None:
        self._say(f"$ {' '.join(command)}")
        # to files, not pipes: an ssh that stays as the connection's master would keep a pipe open
        done = subprocess.run(
            command, input=stdin, stdout=out or self.log, stderr=self.log, text=True, check=False, timeout=STEP_S
        )
        if done.returncode != 0:
            raise self._failed(command)

    def _until(self, command: Sequence[str], *, every: float) -> None:
        def done() -> NotYet | None:
            run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            return NotYet(f"it ends with {run.returncode}") if run.returncode else None

        try:
            until(done, STEP_S, poll_s=every)
        except Expired:
            raise self._failed(command) from None

    def _ssh(self, node: str, command: str, *, stdin: str = "", out: IO[str] | None = None) -> None:
        self._run(["ssh", "-F", str(self.paths.ssh_config), node, command], stdin=stdin, out=out)

    def _until_ssh(self, node: str, invitation: Future[tuple[str, str]] | None = None) -> None:
        """Wait until a machine accepts a login; a stopped machine or a failed control plane ends the wait."""
        command = ["ssh", "-F", str(self.paths.ssh_config), "-o", "ConnectTimeout=5", node, "true"]
        quiet = subprocess.DEVNULL
        refusal = LabError(f"{node} does not boot", remedy=f"see its console, {self.paths.console}/{node}.log")

        def lets_in() -> NotYet | None:
            if subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, check=False).returncode == 0:
                return None
            if invitation and invitation.done():
                invitation.result()  # raises the control plane's error
            now = machines.domain_states(PrivateLibvirt(self.paths).uri)
            if now[machines.domain_name(self.plan.id, node)] != "running":
                raise refusal
            return NotYet("ssh fails")

        try:
            until(lets_in, STEP_S, poll_s=AGAIN_S)
        except Expired:
            raise refusal from None

    def _failed(self, command: Sequence[str]) -> LabError:
        self.log.flush()
        said = last_line(Path(self.log.name).read_text(errors="replace"))
        return LabError(f"`{' '.join(command)}` failed: {said}", remedy="see the log", log=self.log.name)

    def _say(self, text: str) -> None:
        self.log.write(text + "\n")
        self.log.flush()


def prepare(paths: LabPaths) -> tuple[LabPlan, NodeImage]:
    """Prepare and return the plan and the node image, which exist before the clock starts."""
    plan, image = node_image(load_spec(paths), paths, PlainProgress())
    subprocess.run(["cat", image.disk, image.kernel, image.initrd], stdout=subprocess.DEVNULL, check=True)
    return plan, image


def make(lab: BenchLab, plan: LabPlan, image: NodeImage, title: str) -> tuple[Laps, ByHand]:
    """Make the lab by hand once."""
    written = sheets(plan, image, lab.paths)
    keys = ensure_keys(lab.paths, [node.name for node in plan.nodes])
    write_inventory(
        plan,
        lab.paths,
        netns=lab.paths.netns,
        image_bin=image.bin,
        image_digest=image.digest,
        keys=keys,
        parts=known_parts(),
    )
    shutil.rmtree(lab.paths.run)  # the folder of ssh's sockets: nothing of the lab runs yet
    with (lab.logs / f"{title}.log").open("w") as log:
        hand = ByHand(lab.paths, plan, image, written, log)
        return hand.up(), hand


def reap() -> None:
    """Collect the control plane's processes after `./lab destroy` has ended them."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@click.command()
@click.option("--lab", "name", default="byhand", show_default=True, help="Name of the lab it makes and destroys.")
@click.option("--verify", is_flag=True, help="Let `./lab verify` prove that it is the same cluster.")
@spec_options
def byhand(name: str, verify: bool, workers: int, accel: str, placement: str) -> None:
    """Make the lab by hand once, print when each step was done, and destroy it."""
    folder = results_folder("byhand")
    report = Report("byhand", folder)
    with bench_lab(name, settings(workers, accel, placement), folder) as lab:
        plan, image = prepare(lab.paths)
        try:
            laps, hand = make(lab, plan, image, "byhand")
        except BaseException:
            print(f"logs: {lab.keep_evidence('byhand')}", file=sys.stderr)
            raise
        for step, seconds in laps.times.items():
            report.say(f"{step:<20}{seconds:8.1f} s")
        report.figures = {"accel": plan.accel, "placement": plan.placement, "steps": laps.times}
        if verify:
            hand.record()
            ran = lab("verify", "verify")
            report.figures["verify"] = {"code": ran.code, "seconds": round(ran.seconds, 1)}
            report.say(f"verify: {ran.out.strip().splitlines()[-1]}")
        report.end()
    reap()


if __name__ == "__main__":
    main(byhand)
