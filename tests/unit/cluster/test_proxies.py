"""A proxy in the environment, here a dead one, is never asked for what is the lab's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import ansible_runner
import pytest

from hoplab.cluster import api, converge
from hoplab.cluster.control_plane import HostedControlPlane, Program
from hoplab.core import proxies
from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths
from tests.support.kubeconfigs import kubeconfig
from tests.support.progress import RecordingProgress

DEAD = "http://127.0.0.1:9"  # the discard port: nobody listens


@pytest.fixture(autouse=True)
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in proxies.NAMES:
        monkeypatch.setenv(name, DEAD)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"items": []}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_labs_api_is_asked_directly(tmp_path: Path, server: str) -> None:
    paths = LabPaths("dev", tmp_path)
    paths.root.mkdir(parents=True)
    paths.kubeconfig.write_text(kubeconfig(server))
    with api.connect(paths, "") as connection:
        assert connection.read("/api/v1/nodes") == {"items": []}


def test_a_loopback_is_asked_directly_and_another_cluster_through_its_proxy(tmp_path: Path, server: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(kubeconfig(server))
    with api.connect_by_kubeconfig(file) as connection:
        assert connection.read("/api/v1/nodes") == {"items": []}
    file.write_text(kubeconfig("http://192.0.2.1:6443"))
    with (
        pytest.raises(ClusterError, match=r"(?i)proxy"),
        api.connect_by_kubeconfig(file, timeout_s=5) as connection,
    ):
        connection.read("/api/v1/nodes")


def test_a_hosted_control_plane_is_probed_directly(tmp_path: Path, server: str) -> None:
    hosted = HostedControlPlane(LabPaths("dev", tmp_path), "")
    process = {"statename": "RUNNING", "spawnerr": "", "description": ""}
    supervisor = SimpleNamespace(getProcessInfo=lambda _name: process)
    hosted._wait_ready(Program("kube-apiserver", (), f"{server}/readyz"), supervisor)


def test_ansible_and_what_it_starts_have_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, str] = {}

    def run(**arguments: dict[str, str]) -> SimpleNamespace:
        given.update(arguments["envvars"])
        return SimpleNamespace(status="successful")

    monkeypatch.setattr(ansible_runner, "run", run)
    converge.play("reset.yml", LabPaths("dev", tmp_path), "", RecordingProgress(), "")
    assert {name: given[name] for name in proxies.NAMES} == dict.fromkeys(proxies.NAMES, "")
    assert given["LC_ALL"] == "C.UTF-8", "Ansible refuses to run in another encoding"


def test_hosts_are_added_to_what_bypasses_the_proxy() -> None:
    found = proxies.bypassing({"no_proxy": "a,b", "HTTPS_PROXY": DEAD}, ["192.168.77.1", "192.168.77.20"])
    assert found == {
        "HTTPS_PROXY": DEAD,
        "NO_PROXY": "a,b,192.168.77.1,192.168.77.20",
        "no_proxy": "a,b,192.168.77.1,192.168.77.20",
    }


@pytest.mark.parametrize(
    ("url", "is_loopback"),
    [("https://127.9.9.9:1", True), ("http://localhost", True), ("https://10.0.0.1", False), ("x", False)],
)
def test_loopback_urls(url: str, is_loopback: bool) -> None:
    assert proxies.is_loopback(url) == is_loopback
