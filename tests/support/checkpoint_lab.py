"""A lab whose machines are files, for checkpoints: what a killed command left is what the next one finds.

machines/<domain>   "running", "paused" or "shut off", and what the machine has in its memory
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hoplab import image as images
from hoplab.cluster import readiness
from hoplab.cluster.control_plane import HostedControlPlane
from hoplab.core.console import PlainProgress
from hoplab.core.paths import LabPaths
from hoplab.host import connections, freeze, machines
from hoplab.host.freeze import Hypervisor, Woken
from hoplab.host.libvirtd import PrivateLibvirt
from hoplab.image import NodeImage
from hoplab.lab import clocks, power, state
from hoplab.lab.checkpoint import create, usable
from hoplab.lab.clocks import Skew
from hoplab.lab.state import LabState
from hoplab.observe.script import Output
from hoplab.observe.ssh import Hosts, NodeUnreachable
from tests.support.labs import MADE

HERE = Hypervisor("9.0.0", "7.2.22", "tcg", "emulated")
DIGEST = "09a70d5604b94d4e2d6f"
KILLED = 9


def certificate(ends: datetime) -> str:
    """A certificate that ends then, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    number, begins = x509.random_serial_number(), ends - timedelta(days=365)
    made = x509.CertificateBuilder(name, name, key.public_key(), number, begins, ends).sign(key, SHA256())
    return made.public_bytes(Encoding.PEM).decode()


class CheckpointLab:
    """A running lab of two workers with a hosted control plane, below a folder of the test's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.paths = LabPaths("dev", folder / "project")
        self.screen = io.StringIO()
        self.hypervisor = HERE
        self.now = datetime.now(UTC)
        self._due = ""  # the step at which a command is killed
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        self.image = self._image()
        self.domains = [machines.domain_name(self.paths.id, node.name) for node in MADE.nodes]
        self.make()
        self._play(monkeypatch)

    @property
    def progress(self) -> PlainProgress:
        return PlainProgress(self.screen)

    def _image(self) -> NodeImage:
        folder = self.folder / "cache/hoplab/image/node"
        folder.mkdir(parents=True)
        for part in ("disk", "kernel", "initrd"):
            (folder / part).write_text(f"{part} of the image")
        return NodeImage(DIGEST, folder, folder / "disk", folder / "kernel", folder / "initrd", folder / "bin", 20, {})

    def make(self) -> None:
        """Make the lab, running, with its state before any `up` has ended."""
        paths = self.paths
        files = {
            paths.pool / "disk-09a70d5604b9": "disk of the image",
            paths.pool / "kernel-09a70d5604b9": "kernel of the image",
            paths.pool / "initrd-09a70d5604b9": "initrd of the image",
            paths.pool / "worker1.qcow2": "disk 1",
            paths.pool / "worker2.qcow2": "disk 2",
            paths.libvirt / "etc/qemu/worker1.xml": "<domain/>",
            paths.libvirt / "log/libvirtd.log": "a log",
            paths.control_plane / "var/lib/etcd/member": "etcd",
            paths.control_plane / "log/etcd.log": "a log",
            paths.control_plane / "etc/kubernetes/pki/apiserver.crt": certificate(self.now + timedelta(days=365)),
            paths.console / "worker1.log": "a console",
            paths.keys / "id_ed25519": "key",
            paths.engine_state: "{}",
            paths.inventory: "inventory",
            paths.ssh_config: "ssh_config",
        }
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        paths.engine_state.chmod(0o600)
        if not (paths.control_plane / "bin").is_symlink():
            (paths.control_plane / "bin").symlink_to(self.image.bin)
        (paths.pool / "large").write_bytes(os.urandom(1024) + bytes(2**21))
        state.save(
            replace(MADE, id=paths.id, netns=paths.netns, libvirt_uri="test", image=DIGEST, placement="hosted"), paths
        )
        (self.folder / "machines").mkdir(exist_ok=True)
        for name in self.domains:
            self.put(name, "running", "first")
        (self.folder / "control-plane").write_text("running")

    # What the machines are

    def put(self, name: str, what: str, memory: str) -> None:
        (self.folder / "machines" / name).write_text(f"{what}\n{memory}")

    def machine(self, name: str) -> tuple[str, str]:
        """State and memory of a machine."""
        what, memory = (self.folder / "machines" / name).read_text().split("\n")
        return what, memory

    def machines(self) -> set[tuple[str, str]]:
        return {self.machine(name) for name in self.domains}

    def change(self, to: str) -> None:
        """Let time pass in the lab: other memory, other disks, other data in etcd."""
        for name in self.domains:
            self.put(name, "running", to)
        (self.paths.pool / "worker1.qcow2").write_text(f"disk {to}")
        (self.paths.control_plane / "var/lib/etcd/member").write_text(f"etcd {to}")

    def content(self) -> tuple[str, str]:
        """What is on the first disk, and in etcd."""
        disk, data = self.paths.pool / "worker1.qcow2", self.paths.control_plane / "var/lib/etcd/member"
        return disk.read_text(), data.read_text()

    def destroy(self) -> None:
        """Let nothing be left of the lab but its checkpoints."""
        shutil.rmtree(self.paths.root)
        self.paths.inventory.unlink()
        self.paths.ssh_config.unlink()
        for name in self.domains:
            self.put(name, "shut off", "lost")

    # Being killed

    def killed_at(self, step: str, command: Callable[[], object]) -> None:
        """Run a command in a process that ends at a step as by kill -9: no ``finally`` of it runs."""
        child = os.fork()
        if child == 0:
            self._due = step
            try:
                command()
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED, f"the step {step!r} was not reached"

    def step(self, name: str) -> None:
        if name == self._due:
            os._exit(KILLED)

    def step_after(self, patch: pytest.MonkeyPatch, owner: object, name: str, mark: str) -> None:
        """Make the end of a function of a module or class a step."""
        original = getattr(owner, name)
        patch.setattr(owner, name, lambda *arguments: self._reached(mark, original(*arguments)))

    def _reached(self, name: str, found: Any) -> Any:
        self.step(name)
        return found

    # The parts of the host

    def _play(self, patch: pytest.MonkeyPatch) -> None:
        for module, name, fake in (
            (freeze, "suspend", self._suspend),
            (freeze, "save", self._save),
            (freeze, "load_saved", self._load),
            (freeze, "run", self._run),
            (freeze, "interrupted", lambda _uri, _names: "paused" in {what for what, _ in self.machines()}),
            (freeze, "memory_mib", lambda _uri, _names: 4),
            (freeze, "hypervisor", lambda _accel: self.hypervisor),
            (machines, "domain_state", lambda _uri, name: self.machine(name)[0]),
            (machines, "start_network", lambda _uri, _name: self.step("network")),
            (power, "wait_until_booted", lambda *_: self.step("boot")),
            (clocks, "mend", lambda *_: self._reached("mend", [])),
            (clocks, "renew", self._renew),
            (readiness, "wait_usable_nodes", lambda *_, **__: self.step("usable")),
            (connections, "wait_until_ended", self._ended),
            (usable, "prove", lambda *_: self.step("prove")),
            (create, "Hosts", Nodes),
            (images, "list_images", lambda: [self.image]),
        ):
            patch.setattr(module, name, fake)
        patch.setattr(PrivateLibvirt, "start", lambda _self: self._reached("libvirt", "test"))
        patch.setattr(PrivateLibvirt, "running", lambda _self: True)
        patch.setattr(PrivateLibvirt, "stop", lambda _private: self._end_all())
        patch.setattr(HostedControlPlane, "start", lambda _hosted: self._start_control_plane())
        patch.setattr(HostedControlPlane, "stop", lambda _hosted, at_once=False: self._stop_control_plane())

    def _memory(self, name: str) -> Path:
        return freeze.saved_memory(self.paths.libvirt, name)

    def _suspend(self, _uri: str, names: Iterable[str]) -> None:
        for name in names:
            self.put(name, "paused", self.machine(name)[1])
            self.step("suspend")

    def _save(self, _uri: str, files: Mapping[str, Path]) -> None:
        for name, file in files.items():
            what, memory = self.machine(name)
            assert what == "paused"
            file.write_text(memory)
            self.step("save")

    def _load(self, _uri: str, names: Sequence[str], _progress: object) -> set[str]:
        for name in names:
            if self._memory(name).exists():
                self.put(name, "paused", self._memory(name).read_text())
                self._memory(name).unlink()
                self.step("load")
        return set()

    def _run(self, _uri: str, names: Sequence[str]) -> dict[str, Woken]:
        woken: dict[str, Woken] = {}
        assert (self.folder / "control-plane").read_text() == "running", "machines run before the control plane"
        for name in names:
            what, memory = self.machine(name)
            woken[name] = {"running": "ran", "paused": "resumed", "shut off": "booted"}[what]  # type: ignore[assignment]
            self.put(name, "running", "booted" if what == "shut off" else memory)
            self.step("run")
        return woken

    def _end_all(self) -> list[str]:
        for name in self.domains:
            self.put(name, "shut off", "lost")
        self.step("stopped")
        return []

    def _ended(self, _namespace: str, port: int) -> bool:
        assert (port, (self.folder / "control-plane").read_text()) == (6443, "stopped")
        assert {what for what, _ in self.machines()} == {"running"}, "a machine that sleeps hears nothing"
        return True

    def _start_control_plane(self) -> list[str]:
        (self.folder / "control-plane").write_text("running")
        return []

    def _stop_control_plane(self) -> list[str]:
        (self.folder / "control-plane").write_text("stopped")
        return []

    def _renew(self, lab: LabState, _paths: LabPaths) -> list[Skew]:
        self.step("clocks")
        return [Skew(node.name, -61.0, set=True) for node in lab.nodes]


class Nodes(Hosts):
    """The nodes over SSH: each writes its caches out and shows one certificate."""

    silent: tuple[str, ...] = ()
    ends: datetime | None = None

    def batch(self, name: str, commands: Mapping[str, str], **_options: object) -> dict[str, Output]:
        if name in self.silent:
            raise NodeUnreachable(f"{name} can't be reached over SSH: Connection refused")
        text = certificate(self.ends) if self.ends else ""
        return {key: Output(0, text if key.endswith("current.pem") else "") for key in commands}


@contextmanager
def calling(module: Any, name: str, do: Callable[[], object]) -> Iterator[None]:
    """Call something before each call of a module's function."""
    original = getattr(module, name)

    def called(*arguments: Any, **options: Any) -> Any:
        do()
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, called)
        yield
