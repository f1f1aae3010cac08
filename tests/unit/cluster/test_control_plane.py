"""A hosted control plane: from kubeadm's manifests to supervised processes (of harmless programs, here)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from hoplab.cluster import control_plane, pod_routes
from hoplab.cluster.control_plane import ORDER, HostedControlPlane, read_manifest, supervisord_conf
from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths
from hoplab.core.wait import NotYet, until
from hoplab.host import processes
from tests.support.files import GOLDEN
from tests.support.labs import ShortRun

MANIFESTS = GOLDEN / "manifests"  # kubeadm 1.37's own


def test_a_manifest_has_the_command_and_the_readiness_probe() -> None:
    program = read_manifest((MANIFESTS / "kube-apiserver.yaml").read_text())
    assert program.name == "kube-apiserver"
    assert program.command[:2] == ("kube-apiserver", "--advertise-address=192.168.77.1")
    assert program.ready_url == "https://192.168.77.1:6443/readyz"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("etcd", "http://127.0.0.1:2381/readyz"),
        ("kube-controller-manager", "https://127.0.0.1:10257/healthz"),
        ("kube-scheduler", "https://127.0.0.1:10259/readyz"),
    ],
)
def test_readiness_is_the_manifests_own_probe(name: str, url: str) -> None:
    assert read_manifest((MANIFESTS / f"{name}.yaml").read_text()).ready_url == url


def test_supervisord_conf(golden: Callable[[str, str], None]) -> None:
    programs = [read_manifest((MANIFESTS / f"{name}.yaml").read_text()) for name in ORDER]
    golden("supervisord.conf", supervisord_conf(programs, Path("/lab/50%/control-plane"), Path("/run/hoplab/dev")))


def test_an_incomplete_control_plane_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="not complete on disk: FileNotFoundError") as caught:
        HostedControlPlane(LabPaths("dev", tmp_path), "").start()
    assert caught.value.remedy == "`./lab up --lab dev` completes it"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_manifest(paths: LabPaths, name: str, port: int, module: str = "http.server") -> None:
    """A static pod whose program is Python's little web server, under the name of the real one."""
    container = {
        "name": name,
        "command": [name, "-m", module, "--bind=127.0.0.1", "--directory=/etc/kubernetes/", str(port)],
        "startupProbe": {"httpGet": {"host": "127.0.0.1", "path": "/", "port": "probe", "scheme": "HTTP"}},
        "ports": [{"name": "probe", "containerPort": port}],
    }
    manifest = paths.control_plane / f"etc/kubernetes/manifests/{name}.yaml"
    manifest.write_text(yaml.safe_dump({"spec": {"containers": [container]}}))


@pytest.fixture
def paths() -> Iterator[LabPaths]:
    folder = Path(f"/tmp/hoplab-test-{os.getpid()}")  # short: a socket's path has at most 107 bytes
    paths = ShortRun("dev", folder)
    (paths.control_plane / "etc/kubernetes/manifests").mkdir(parents=True)
    (paths.control_plane / "bin").mkdir()
    for name in ORDER:
        (paths.control_plane / "bin" / name).symlink_to(sys.executable)
        write_manifest(paths, name, free_port())
    yield paths
    HostedControlPlane(paths, "").stop()
    shutil.rmtree(folder)


def pids(paths: LabPaths) -> dict[str, int]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            first = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
        except OSError:
            continue
        if first.startswith(f"{paths.control_plane}/bin/"):
            found[Path(first).name] = int(folder.name)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    until(lambda: True if condition() else NotYet("not so"), 20, poll_s=0.05)


def test_a_hosted_control_plane_starts_restarts_and_stops(paths: LabPaths) -> None:
    hosted = HostedControlPlane(paths, "")
    assert not hosted.running()
    assert hosted.start() == list(ORDER)
    assert hosted.running()
    before = pids(paths)
    assert hosted.start() == []
    assert pids(paths) == before

    # one that dies comes back
    os.kill(before["etcd"], signal.SIGKILL)
    wait_for(lambda: pids(paths).get("etcd") not in (None, before["etcd"]))

    # another configuration restarts what it concerns and nothing else
    write_manifest(paths, "kube-scheduler", free_port())
    running = pids(paths)
    assert hosted.start() == ["kube-scheduler"]
    assert {name for name, pid in pids(paths).items() if running[name] != pid} == {"kube-scheduler"}

    # without their supervisord (killed, nobody to stop them) they are found all the same
    supervisord = int((paths.run / "control-plane.pid").read_text())
    os.kill(supervisord, signal.SIGKILL)
    wait_for(lambda: not hosted.running())
    assert hosted.start() == list(ORDER)

    assert hosted.stop() == [f"control plane: {name}" for name in sorted(ORDER)]
    assert pids(paths) == {}
    assert hosted.stop() == []


def test_the_routes_to_the_pods_come_and_go_with_it(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[object, ...]] = []
    monkeypatch.setattr(pod_routes, "apply", lambda *given: done.append(("set", *given)))
    monkeypatch.setattr(pod_routes, "remove", lambda *given: done.append(("removed", *given)))
    hosted = HostedControlPlane(paths, "")
    hosted.start()
    assert done == [("set", paths.control_plane / "routes", "")]
    hosted.stop()
    assert done[1:] == [("removed", "")]


def test_a_stop_without_the_namespace_is_no_error(tmp_path: Path) -> None:
    assert HostedControlPlane(LabPaths("dev", tmp_path), "hoplab-gone").stop() == []


def test_a_control_plane_whose_data_nobody_needs_is_killed(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[bool] = []

    def end(pids: Iterable[int], *, grace_s: float, at_once: bool) -> list[str]:
        ends.append(at_once)
        return ended(pids, grace_s=grace_s, at_once=at_once)

    ended = processes.end
    hosted = HostedControlPlane(paths, "")
    hosted.start()
    monkeypatch.setattr(processes, "end", end)
    assert hosted.stop(at_once=True) == [f"control plane: {name}" for name in sorted(ORDER)]
    assert pids(paths) == {} and ends == [True, True]


def test_a_program_that_cannot_start_shows_the_end_of_its_log(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_plane, "READY_S", 1.0)
    write_manifest(paths, "kube-apiserver", free_port(), module="no_such_module")
    with pytest.raises(ClusterError, match="kube-apiserver of the hosted control plane is not ready") as caught:
        HostedControlPlane(paths, "").start()
    assert "No module named no_such_module" in caught.value.message
    assert caught.value.log.endswith("/log/kube-apiserver.log")
    assert not {"kube-controller-manager", "kube-scheduler"} & set(pids(paths))  # the next in the row were not tried
