"""New keys for the machines and the cluster of a fork, with agents that run the script in a folder of the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from hoplab.core import fs
from hoplab.core.errors import ClusterError, EngineError
from hoplab.host import agent, door
from hoplab.host.agent import AgentError, Done
from hoplab.lab import power, rekey, state
from hoplab.lab.rekey import Rekeying
from hoplab.lab.state import LabState
from hoplab.pki.keys import ensure_keys
from tests.support.checkpoint_lab import KILLED
from tests.support.cluster_ca import KUBECONFIG, authority
from tests.support.fleets import Heard
from tests.support.labs import MADE, ShortRun

OLD = "ssh-ed25519 AAAAold lab@dev-s1"
STAMPS = {"0123": "4567", "89ab": "cdef"}


@dataclass
class Machine:
    """A machine: its files are below a folder."""

    root: Path
    silent: int = 0  # questions without an answer
    ran: list[str] = field(default_factory=list)

    def make(self) -> None:
        for name, text in {
            "home/lab/.ssh/authorized_keys": f"{OLD}\n",
            "root/.ssh/authorized_keys": f'command="echo no" {OLD}\n',
            "etc/ssh/ssh_host_ed25519_key": "old",
            "etc/ssh/ssh_host_ed25519_key.pub": "old",
            "etc/hoplab/applied": "89ab-0011\n",
            "run/sshd.pid": "0\n",
        }.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)

    def run(self, script: str, given: str = "", limit_s: float = 60.0) -> Done:
        self.ran.append(script)
        for folder in ("/home", "/root", "/etc", "/run"):
            script = script.replace(f"{folder}/", f"{self.root}{folder}/")
        tools = self.root / "bin"
        tools.mkdir(exist_ok=True)
        for tool in ("kill", "systemctl", "kubectl"):
            (tools / tool).write_text(f'#!/bin/sh\necho {tool} "$@" >>{self.root}/called; cat >>{self.root}/input\n')
            (tools / tool).chmod(0o755)
        script = script.replace("kill -HUP", "env kill -HUP")  # not the shell's own
        done = subprocess.run(
            ["sh", "-c", script],
            input=given,
            env={"PATH": f"{tools}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def read(self, name: str) -> str:
        return (self.root / name).read_text()


class Api:
    """An API server with bindings."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.objects: dict[str, Any] = {}

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        assert body
        self.objects[body["metadata"]["name"]] = (method, path, body["roleRef"]["name"], body["subjects"][0]["name"])
        return (409 if method == "POST" else self.status), {"message": "forbidden"}


class Fork:
    """A fork of a lab whose machines have just resumed."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.paths = ShortRun("dev", folder / "project")
        self.lab: LabState = replace(MADE, id=self.paths.id, placement="hosted", netns="ns")
        self.machines = {node.name: Machine(folder / node.name) for node in self.lab.nodes}
        self.door: list[str] = []
        self.api = Api()
        for machine in self.machines.values():
            machine.make()
        state.save(self.lab, self.paths)
        self.keys = ensure_keys(self.paths, list(self.machines))
        ca = authority(ec.generate_private_key(ec.SECP256R1()))
        self.kubernetes = self.paths.control_plane / "etc/kubernetes"
        (self.kubernetes / "pki").mkdir(parents=True)
        (self.kubernetes / "admin.conf").write_text(yaml.safe_dump(KUBECONFIG))
        (self.kubernetes / "pki/ca.crt").write_text(ca.certificate)
        (self.kubernetes / "pki/ca.key").write_text(ca.key)
        rekey.plan(self.paths.root, Rekeying(OLD, STAMPS))
        patch.setattr(agent, "opened", self._opened)
        patch.setattr(door, "close", lambda name: self.door.append(f"closed {name}"))
        patch.setattr(door, "open", lambda name: self.door.append(f"opened {name}"))
        patch.setattr(rekey, "DirectConnection", lambda _file: None)
        patch.setattr(rekey, "KubernetesApi", lambda _connection: self.api)
        patch.setattr("hoplab.host.netns.entered", _entered)
        patch.setattr(rekey, "AGENT_S", 0.05)
        patch.setattr(rekey, "slowness", lambda _accel: 1.0)
        patch.setattr("time.sleep", lambda _seconds: None)

    @contextmanager
    def _opened(self, _uri: str, name: str) -> Iterator[Machine]:
        machine = next(machine for node, machine in self.machines.items() if name.endswith(node))
        if machine.silent:
            machine.silent -= 1
            raise AgentError("the guest agent does not answer: not connected")
        yield machine

    def finish(self) -> None:
        rekey.finish(self.lab, self.paths, Heard())


@contextmanager
def _entered(_name: str) -> Iterator[None]:
    yield


@pytest.fixture
def fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fork:
    return Fork(tmp_path, monkeypatch)


def test_machines_get_the_keys_of_the_fork(fork: Fork) -> None:
    fork.finish()
    for node, machine in fork.machines.items():
        assert machine.read("home/lab/.ssh/authorized_keys").strip() == fork.keys.user_public
        new = fork.keys.user_public.split()[1]
        assert new in machine.read("root/.ssh/authorized_keys") and "AAAAold" not in machine.read(
            "root/.ssh/authorized_keys"
        )
        assert machine.read("etc/ssh/ssh_host_ed25519_key") == fork.keys.host[node].private
        assert machine.read("etc/ssh/ssh_host_ed25519_key.pub").strip() == fork.keys.host[node].public
        assert machine.read("etc/hoplab/applied") == "cdef-0011\n", "the next `up` would converge it again"
        assert machine.read("called") == "kill -HUP 0\n"
    assert not rekey.pending(fork.paths)


def test_the_door_opens_last(fork: Fork) -> None:
    rekey.close_door(fork.lab, fork.paths)
    assert fork.door == ["closed ns"]
    fork.finish()
    assert fork.door == ["closed ns", "opened ns"]
    rekey.close_door(fork.lab, fork.paths)
    fork.finish()
    assert fork.door == ["closed ns", "opened ns"], "a lab with its own keys has no door"


def test_the_origins_administrator_loses_its_rights(fork: Fork) -> None:
    fork.finish()
    own = yaml.safe_load(fork.paths.kubeconfig.read_text())
    assert own["users"] != KUBECONFIG["users"]
    assert fork.paths.kubeconfig.read_text() == (fork.kubernetes / "admin.conf").read_text()
    assert fork.paths.kubeconfig.stat().st_mode & 0o777 == 0o600
    group = f"hoplab:cluster-admins:{fork.paths.id}"
    assert fork.api.objects["kubeadm:cluster-admins"] == (
        "PUT",
        f"{rekey.BINDINGS}/kubeadm:cluster-admins",
        "cluster-admin",
        group,
    )
    assert fork.api.objects["hoplab:apiserver-kubelet-client"][2:] == (
        "system:kubelet-api-admin",
        "kube-apiserver-kubelet-client",
    )


def test_a_control_plane_in_a_machine(fork: Fork) -> None:
    node = replace(fork.lab.nodes[0], role="control-plane")
    fork.lab = replace(fork.lab, placement="vm", nodes=(node, *fork.lab.nodes[1:]))
    machine = fork.machines[node.name]
    (machine.root / "etc/kubernetes").mkdir()
    subprocess.run(["cp", "-r", f"{fork.kubernetes}/.", machine.root / "etc/kubernetes"], check=True)
    fork.finish()
    assert machine.read("etc/kubernetes/admin.conf") == fork.paths.kubeconfig.read_text()
    called = machine.read("called")
    assert "kubectl --kubeconfig" in called and "create -f -" in called and "replace -f -" in called
    assert f"hoplab:cluster-admins:{fork.paths.id}" in machine.read("input")


def test_an_agent_that_answers_later(fork: Fork) -> None:
    fork.machines["worker2"].silent = 2
    rekey.AGENT_S = 60.0
    fork.finish()
    assert fork.machines["worker2"].read("etc/ssh/ssh_host_ed25519_key") != "old"


def test_an_agent_that_never_answers(fork: Fork) -> None:
    """Nobody can log in, and the next start tries again."""
    fork.machines["worker2"].silent = 10**9
    rekey.close_door(fork.lab, fork.paths)
    with pytest.raises(
        EngineError, match="worker2 could not get keys of its own: the guest agent does not answer"
    ) as no:
        fork.finish()
    assert "./lab start tries again" in no.value.remedy and "./lab up --fresh" in no.value.remedy
    assert fork.door == ["closed ns"] and rekey.pending(fork.paths)
    assert power.interrupted(fork.paths)
    fork.machines["worker2"].silent = 0
    fork.finish()
    assert fork.door[-1] == "opened ns"


def test_a_script_that_fails(fork: Fork) -> None:
    (fork.machines["worker1"].root / "etc/ssh/ssh_host_ed25519_key").unlink()
    (fork.machines["worker1"].root / "etc/ssh/ssh_host_ed25519_key").mkdir()
    with pytest.raises(EngineError, match="worker1 could not get keys of its own: "):
        fork.finish()
    assert "opened ns" not in fork.door


def test_an_api_server_that_refuses(fork: Fork) -> None:
    fork.api.status = 403
    with pytest.raises(ClusterError, match="the origin's administrator could not be taken away: forbidden") as refused:
        fork.finish()
    assert refused.value.remedy == "nobody can log in; ./lab start tries again"
    assert "opened ns" not in fork.door and rekey.pending(fork.paths)


def test_finishing_twice_changes_nothing_more(fork: Fork) -> None:
    fork.finish()
    before = {node: machine.read("etc/hoplab/applied") for node, machine in fork.machines.items()}
    rekey.plan(fork.paths.root, Rekeying(OLD, STAMPS))  # killed before it was done
    fork.finish()
    assert {node: machine.read("etc/hoplab/applied") for node, machine in fork.machines.items()} == before


def test_the_hosts_own_stamp(fork: Fork) -> None:
    stamp = fork.paths.control_plane / "applied"
    for text, expected in (("0123\n", "4567\n"), ("other\n", "other\n")):
        stamp.write_text(text)
        rekey.plan(fork.paths.root, Rekeying(OLD, STAMPS))
        assert stamp.read_text() == expected


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Machine, "run"), (rekey, "with_own_admin"), (fs, "write"), (rekey, "bind"), (door, "open")],
    ids=["a machine has its keys", "a certificate is made", "it is written", "rights are changed", "the door is open"],
)
def test_killed_at_any_step(fork: Fork, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """As by kill -9, right after the first of such steps: logins are refused, until the next start has finished it."""
    original = getattr(owner, name)

    def and_no_further(*given: Any, **more: Any) -> None:
        original(*given, **more)
        os._exit(KILLED)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, and_no_further)
        child = os.fork()
        if child == 0:
            try:
                fork.finish()
            finally:
                os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED
    assert rekey.pending(fork.paths) and power.interrupted(fork.paths)
    rekey.close_door(fork.lab, fork.paths)
    fork.finish()
    assert fork.door == ["closed ns", "opened ns"] and not rekey.pending(fork.paths)
    for node, machine in fork.machines.items():
        assert machine.read("home/lab/.ssh/authorized_keys").strip() == fork.keys.user_public
        assert machine.read("etc/ssh/ssh_host_ed25519_key") == fork.keys.host[node].private
        assert machine.read("etc/hoplab/applied") == "cdef-0011\n"
    assert fork.paths.kubeconfig.read_text() == (fork.kubernetes / "admin.conf").read_text()
