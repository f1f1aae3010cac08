"""Badly hurt labs: a part that does not answer or does not run, and what `verify` says of it first.

These are no faults of ``FAULTS``: no lesson fails for them. `verify` names the part as an outage, checks what can be
checked, and ends with 1. What cannot be repaired from the hurt node itself is repaired from the host.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hoplab.core.paths import LabPaths
from hoplab.host import machines
from hoplab.lab import state
from hoplab.lab.state import LabSummary
from hoplab.observe.ssh import Hosts

BIG_FILE = "/var/tmp/hoplab-full"
FILL = f"fallocate -l $(df --output=avail -B1 / | tail -n 1) {BIG_FILE} && sync {BIG_FILE}"


@dataclass(frozen=True)
class Place:
    """A running lab, and the worker that is hurt: the last one."""

    paths: LabPaths

    @property
    def lab(self) -> LabSummary:
        return state.load_summary(self.paths)

    @property
    def node(self) -> str:
        return [node.name for node in self.lab.nodes if node.role == "worker"][-1]

    @property
    def address(self) -> str:
        return next(node.address for node in self.lab.nodes if node.name == self.node)

    def run(self, command: str, node: str = "") -> None:
        """A shell command on the worker, or another node, as root; it has to end well."""
        name = node or self.node
        found = Hosts([name], self.paths.ssh_config).batch(name, {"it": command})["it"]
        assert found.code == 0, f"`{command}` on {name} ended with {found.code}: {found.out}{found.err}"

    def on_host(self, *words: str) -> None:
        """A command in the lab's network namespace."""
        entered = ("ip", "netns", "exec", self.lab.netns) if self.lab.netns else ()
        subprocess.run([*entered, *words], check=True, capture_output=True, text=True)

    def disconnect(self) -> None:
        """End the shared SSH connection, as after a pause: a new login is needed."""
        subprocess.run(
            ["ssh", "-F", str(self.paths.ssh_config), "-O", "exit", self.node], capture_output=True, check=False
        )

    def signal(self, program: str, number: signal.Signals) -> None:
        """A signal to a program of the control plane, hosted or a static pod."""
        if not self.lab.hosted:
            for node in self.lab.nodes:
                if node.role == "control-plane":
                    self.run(f"kill -{number.value} $(pidof {program})", node.name)
            return
        found = [file for file in Path("/proc").glob("[0-9]*/cmdline") if self._is(program, file)]
        assert found, f"{program} does not run"
        for file in found:
            os.kill(int(file.parent.name), number)

    def _is(self, program: str, file: Path) -> bool:
        try:
            return file.read_bytes().startswith(f"{self.paths.control_plane}/bin/{program}\0".encode())
        except OSError:
            return False  # it has just ended


Hurting = Callable[[Place], AbstractContextManager[None]]


@dataclass(frozen=True)
class Hurt:
    """One way to hurt a lab."""

    name: str
    broken: Hurting  # the lab is hurt while the context is open
    place: str  # of the outage that is named first; "{node}" is the worker
    says: str  # a part of its problem
    evidence: str = ""  # a part of its evidence


def on_worker(broken: str, repaired: str) -> Hurting:
    """Two commands on the worker."""

    @contextmanager
    def hurt(place: Place) -> Iterator[None]:
        try:
            place.run(broken)
            yield
        finally:
            place.run(repaired)

    return hurt


def standing_still(program: str) -> Hurting:
    """A program of the control plane that stands still."""

    @contextmanager
    def hurt(place: Place) -> Iterator[None]:
        place.signal(program, signal.SIGSTOP)
        try:
            yield
        finally:
            place.signal(program, signal.SIGCONT)

    return hurt


@contextmanager
def login_refused(place: Place) -> Iterator[None]:
    """The worker's port 22 refuses the host, as where sshd is stopped; all else of it works."""
    rule = ("-p", "tcp", "-d", place.address, "--dport", "22", "-j", "REJECT", "--reject-with", "tcp-reset")
    place.disconnect()
    place.on_host("iptables", "-I", "OUTPUT", *rule)
    try:
        yield
    finally:
        place.on_host("iptables", "-D", "OUTPUT", *rule)


@contextmanager
def paused(place: Place) -> Iterator[None]:
    """The worker's machine is paused."""
    domain = machines.domain_name(place.lab.id, place.node)
    virsh = ("virsh", "-c", place.lab.libvirt_uri)
    subprocess.run([*virsh, "suspend", domain], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run([*virsh, "resume", domain], check=True, capture_output=True)


HURTS = (
    Hurt(
        "the kubelet is stopped",
        on_worker("systemctl stop kubelet", "systemctl start kubelet"),
        "kubelet of {node}",
        "kubelet of {node} does not run: it is inactive",
        "the last lines of its journal on {node}:",
    ),
    Hurt(
        "the kubelet stands still",
        on_worker("kill -STOP $(pidof kubelet)", "kill -CONT $(pidof kubelet)"),
        "kubelet of {node}",
        "kubelet of {node} stands still: it is active, but its health check says",
    ),
    Hurt(
        "a node refuses logins",
        login_refused,
        "{node}",
        "{node} can't be reached over SSH: Connection refused",
        "its machine is running",
    ),
    Hurt("a machine is paused", paused, "{node}", "{node} can't be reached over SSH: ", "its machine is paused"),
    Hurt(
        "the disk of a node is full",
        # its kubelet stands still meanwhile: it would remove images, and nothing in the lab can bring them back
        on_worker(f"kill -STOP $(pidof kubelet); {FILL}", f"rm -f {BIG_FILE}; kill -CONT $(pidof kubelet)"),
        "disk / of {node}",
        "the disk of {node} at / has no space left: ",
        " on /: ",
    ),
    Hurt(
        "etcd stands still",
        standing_still("etcd"),
        "etcd",
        "etcd does not answer: the API server says so",
        "[-]etcd",
    ),
    Hurt(
        "the API server stands still",
        standing_still("kube-apiserver"),
        "api",
        "the API server does not answer GET ",
        "kube-apiserver",
    ),
)
