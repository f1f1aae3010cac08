"""The host's own way to a lab: a real process that forwards the API, the context, and the file for ~/.ssh/config."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml

from hoplab.cluster import readiness
from hoplab.cluster.control_plane import HostedControlPlane
from hoplab.core import fs
from hoplab.core.console import PlainProgress
from hoplab.core.errors import ClusterError, HostError, LabError
from hoplab.core.paths import LabPaths
from hoplab.host import netns
from hoplab.lab import api_forward, clocks, host_access, kubeconfig, lifecycle, power, state
from hoplab.lab.api_forward import ApiForward
from hoplab.lab.port_forward import Destination
from hoplab.lab.state import LabState
from tests.support.kubeconfigs import KUBECTLS, OWN
from tests.support.labs import MADE, SPEC, ShortRun


def fail(text: str) -> None:
    raise AssertionError(text)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabPaths]:
    """Of a lab that is made, with an own kubeconfig, and a user with another cluster."""
    paths = ShortRun("dev", tmp_path)
    file = tmp_path / "home" / "config"
    file.parent.mkdir()
    file.write_text(KUBECTLS)
    monkeypatch.setenv("KUBECONFIG", str(file))
    paths.root.mkdir(parents=True)
    paths.kubeconfig.write_text(OWN)
    yield paths
    ApiForward(paths).stop()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ports that were asked for; no process starts."""
    asked: list[int] = []

    def start(_self: ApiForward, to: Destination, namespace: str, port: int = 0) -> int:
        assert (str(to), namespace) == ("192.168.77.1:6443", "")
        asked.append(port)
        return port or 23456

    monkeypatch.setattr(ApiForward, "start", start)
    return asked


def users_file(paths: LabPaths) -> str:
    return kubeconfig.users_file(paths).read_text()


LAB = replace(MADE, spec=SPEC)


def test_a_lab_is_a_context_until_it_is_destroyed(paths: LabPaths, started: list[int]) -> None:
    lab = host_access.open_api(LAB, paths, fail)
    assert lab == state.load(paths)
    assert (lab.api_port, lab.context, lab.kubeconfig) == (23456, "hoplab-dev", str(kubeconfig.users_file(paths)))
    config = yaml.safe_load(users_file(paths))
    assert config["clusters"][1]["cluster"]["server"] == "https://127.0.0.1:23456"
    assert host_access.open_api(lab, paths, fail) == lab
    assert started == [0, 23456], "the port of the lab's first start is asked for again"
    file = kubeconfig.users_file(paths)
    assert host_access.close_api(paths, fail) == [f"context hoplab-dev of {file}"]
    assert users_file(paths) == KUBECTLS


@pytest.mark.usefixtures("started")
def test_the_context_is_removed_where_it_was_added(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    host_access.open_api(LAB, paths, fail)
    added = kubeconfig.users_file(paths)
    monkeypatch.setenv("KUBECONFIG", str(paths.project / "another"))
    host_access.close_api(paths, fail)
    assert added.read_text() == KUBECTLS
    assert host_access.open_api(LAB, paths, fail).kubeconfig == str(paths.project / "another")
    paths.state.write_text("{")  # a lab whose state is lost: the file of now
    assert host_access.close_api(paths, fail) == [f"context hoplab-dev of {paths.project}/another"]


@pytest.mark.usefixtures("started")
def test_a_user_can_opt_out(paths: LabPaths) -> None:
    off = replace(LAB, spec=replace(SPEC, kubeconfig="off"))
    lab = host_access.open_api(off, paths, fail)
    assert (lab.api_port, lab.context, lab.kubeconfig) == (23456, "", "")
    assert users_file(paths) == KUBECTLS
    merged = host_access.open_api(LAB, paths, fail)
    assert users_file(paths) != KUBECTLS
    host_access.open_api(replace(merged, spec=off.spec), paths, fail)
    assert users_file(paths) == KUBECTLS
    host_access.open_api(replace(LAB, spec=None), paths, fail)  # of a version without the setting
    assert users_file(paths) == KUBECTLS


@pytest.mark.usefixtures("started")
def test_a_kubeconfig_that_cannot_be_edited_is_a_note(paths: LabPaths) -> None:
    file = kubeconfig.users_file(paths)
    file.write_text("a: [")
    notes: list[str] = []
    assert host_access.open_api(LAB, paths, notes.append).context == ""
    file.write_text(f"a: [{paths.id}")
    assert host_access.close_api(paths, notes.append) == []
    assert [note.split(f" {file}")[0] for note in notes] == [
        "no context for kubectl:",
        "the context of this lab stays there:",
    ]
    assert "lab:kubeconfig off" in notes[0]


def test_a_forward_that_does_not_start_is_a_note(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> int:
        raise HostError("no port", remedy="end one")

    monkeypatch.setattr(ApiForward, "start", start)
    notes: list[str] = []
    assert host_access.open_api(LAB, paths, notes.append) == LAB
    assert notes == ["kubectl of this host does not reach the lab, ./lab kubectl does: no port (end one)"]
    assert users_file(paths) == KUBECTLS


def test_a_lab_without_a_cluster_has_no_context(paths: LabPaths) -> None:
    paths.kubeconfig.unlink()
    assert host_access.open_api(LAB, paths, fail) is LAB


@pytest.mark.parametrize("own", ["", "{", "clusters: [{cluster: {server: 5}}]", OWN.replace("192.168.77.1", "here")])
def test_a_kubeconfig_without_an_api_server_is_refused(own: str) -> None:
    with pytest.raises(ClusterError, match="names no API server"):
        host_access.api_server(own)


def test_machines_have_names_for_ssh_that_no_other_host_has(paths: LabPaths) -> None:
    paths.ssh_config.parent.mkdir()
    paths.ssh_config.write_text("# x\nHost worker1\n  HostName 192.168.77.20\nHost worker2\nHost *\n  User lab\n")
    paths.kubeconfig.unlink()
    host_access.open_host(LAB, paths, fail)
    assert paths.ssh_include.read_text() == (
        "# x\nHost hoplab-dev-worker1\n  HostName 192.168.77.20\nHost hoplab-dev-worker2\n"
        "Host hoplab-dev-worker1 hoplab-dev-worker2\n  User lab\n"
    )
    assert paths.ssh_include.stat().st_mode & 0o022 == 0 and paths.ssh_include.stat().st_mode & 0o004
    removed = lifecycle.leave_host(paths)
    assert "file inventory/dev.ssh_include" in removed and not paths.ssh_include.exists()


def test_a_reset_lab_has_no_context(paths: LabPaths, started: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    lab = host_access.open_api(LAB, paths, fail)
    for name in ("wait_until_booted", "refresh_reset_facts", "reset_cluster"):
        monkeypatch.setattr(lifecycle, name, lambda *_: None)
    lifecycle.remove_cluster(lab, paths, PlainProgress())
    after = state.load(paths)
    assert users_file(paths) == KUBECTLS and (after.context, after.kubeconfig) == ("", "")
    assert after.api_port == lab.api_port and started


# The process


@contextmanager
def server(namespace: str = "") -> Iterator[Destination]:
    """An echo for one connection after another, on a loopback."""
    with netns.entered(namespace):
        listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(connection.recv(100).upper())

    with listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Destination(IPv4Address("127.0.0.1"), listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def asked(port: int, text: bytes = b"hello") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(text)
        return client.recv(100)


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"hoplab-unit-{os.getpid()}"
    if os.geteuid() == 0:
        netns.create(name)
    yield name if os.geteuid() == 0 else ""
    netns.delete(name)


def test_the_forward_lives_until_it_is_stopped(paths: LabPaths, namespace: str) -> None:
    forward = ApiForward(paths)
    assert forward.stop() == [] and forward.port() == 0
    with pytest.raises(ClusterError, match="the API of lab 'dev' is not forwarded to this host"):
        state.save(LAB, paths)
        host_access.kubeconfig_text(paths)
    with server(namespace) as api:
        port = forward.start(api, namespace)
        assert port in api_forward.PORTS and asked(port) == b"HELLO"
        there = forward._found()
        assert there and forward.start(api, namespace, 1) == port and forward._found() == there, "one that runs stays"
        assert f"https://127.0.0.1:{port}" in host_access.kubeconfig_text(paths)
        assert Path(f"/proc/{there.pid}/cwd").resolve() == Path("/")
        assert os.getsid(there.pid) != os.getsid(0), "Ctrl-C in the lab command is not for it"
    for _ in range(2):  # nobody there any more: reset, and said once
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            asked(port)
    assert forward.stop() == [f"forward of the API on 127.0.0.1:{port}"]
    assert (paths.run / "api-forward.log").read_text().count("does not answer: Connection refused") == 1
    assert forward.port() == 0
    with pytest.raises(ConnectionRefusedError):
        asked(port)


def test_a_taken_port_is_not_used(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = ApiForward(paths)
    with forward._listen(0) as first:
        taken = first.getsockname()[1]
        with forward._listen(taken) as second:
            assert second.getsockname()[1] == (taken + 1 if taken + 1 in api_forward.PORTS else api_forward.PORTS[0])
        monkeypatch.setattr(api_forward, "TRIES", 1)
        with pytest.raises(HostError, match=rf"no port of 127.0.0.1 from {taken} on is free"):
            forward._listen(0)


def test_the_forward_of_another_lab_goes_on(paths: LabPaths, tmp_path: Path) -> None:
    """Also where all files of the lab, and its namespace, are lost: a process is found by its command line."""
    other = ApiForward(ShortRun("dev", tmp_path / "clone"))
    with server() as api:
        ports = [ApiForward(paths).start(api, ""), other.start(api, "")]
        try:
            fs.remove_folder(paths.run)
            assert ApiForward(paths).stop() == [f"forward of the API on 127.0.0.1:{ports[0]}"]
            assert asked(ports[1]) == b"HELLO"
        finally:
            assert len(other.stop()) == 1


def test_a_forward_without_a_loopback_names_it(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "create_server", refused)
    with pytest.raises(HostError, match="Cannot assign requested address") as caught:
        ApiForward(paths).start(Destination(IPv4Address("127.0.0.1"), 1), "")
    assert caught.value.remedy == "set the loopback up: ip link set lo up"


def test_a_process_that_does_not_start_has_a_log(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_forward, "MODULE", "hoplab.no_such_module")
    with pytest.raises(HostError, match="did not start") as caught:
        ApiForward(paths).start(Destination(IPv4Address("127.0.0.1"), 1), "")
    assert "No module named hoplab.no_such_module" in Path(caught.value.log).read_text()


def test_stop_and_start_end_and_begin_it(paths: LabPaths, started: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def noted(name: str, found: object = None) -> Callable[..., object]:
        def step(*_: object, **__: object) -> object:
            steps.append(name)
            return found

        return step

    state.save(replace(LAB, nodes=(), netns=""), paths)
    monkeypatch.setattr(HostedControlPlane, "stop", noted("control plane", []))
    monkeypatch.setattr(ApiForward, "stop", noted("forward", ["forward of the API"]))
    assert "forward of the API" in power.stop(paths, PlainProgress())
    assert steps[0] == "forward"
    monkeypatch.setattr(power, "switch_on", noted("machines", {}))
    monkeypatch.setattr(clocks, "mend", noted("clocks"))
    monkeypatch.setattr(readiness, "wait_usable_nodes", noted("usable"))
    lab: LabState = power.start(paths, PlainProgress())
    assert lab.context == "hoplab-dev" and started == [0]
    assert "hoplab-dev" in users_file(paths)


def test_the_api_of_no_lab_is_not_forwarded(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there is no lab 'dev' here"):
        host_access.kubeconfig_text(LabPaths("dev", tmp_path))
