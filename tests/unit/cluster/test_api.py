"""The client of the Kubernetes API: every answer is a status and a body, and no answer is a ClusterError."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from kubernetes.client import ApiClient

from hoplab.cluster import api
from hoplab.cluster.api import KubernetesApi
from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths
from tests.support.kubeconfigs import kubeconfig


class Connection:
    """The part of the client library's connection that requests go through."""

    def __init__(self, *, status: int = 200, body: bytes = b"{}", broken: bool = False) -> None:
        self.configuration = SimpleNamespace(host="https://192.0.2.1:6443")
        self.status, self.body, self.broken = status, body, broken
        self.requests: list[tuple[str, str]] = []

    def call_api(self, method: str, url: str, *_rest: object, **_options: object) -> SimpleNamespace:
        self.requests.append((method, url))
        if self.broken:
            raise ConnectionRefusedError("connection refused")
        return SimpleNamespace(status=self.status, read=lambda: self.body)


def client(connection: Connection) -> KubernetesApi:
    return KubernetesApi(cast("ApiClient", connection))


def test_requests_go_through_the_client_library() -> None:
    connection = Connection(status=201, body=b'{"kind": "Pod"}')
    assert client(connection)("POST", "/api/v1/pods", {}) == (201, {"kind": "Pod"})
    assert connection.requests == [("POST", "https://192.0.2.1:6443/api/v1/pods")]


def test_an_answer_that_is_no_object_is_a_message() -> None:
    assert client(Connection(status=503, body=b"busy"))("GET", "/x") == (503, {"message": "busy"})


@pytest.mark.parametrize("log", ['{"msg": "one"}\n{"msg": "two"}\n', '{"msg": "the only line"}\n', "words\n"])
def test_a_containers_log_is_a_message_also_where_its_lines_are_json(log: str) -> None:
    path = "/api/v1/namespaces/traefik/pods/x/log?tailLines=2"
    assert client(Connection(body=log.encode()))("GET", path) == (200, {"message": log})
    refused = Connection(status=400, body=b'{"message": "container is waiting to start"}')
    assert client(refused)("GET", path) == (400, {"message": "container is waiting to start"})


def test_an_api_server_that_does_not_answer_is_a_cluster_error() -> None:
    with pytest.raises(ClusterError, match="does not answer GET /api/v1/nodes: connection refused") as caught:
        client(Connection(broken=True)).read("/api/v1/nodes")
    assert "lab status" in caught.value.remedy


def test_a_read_needs_status_200() -> None:
    assert client(Connection(body=b'{"items": []}')).read("/api/v1/nodes") == {"items": []}
    forbidden = Connection(status=403, body=b'{"message": "no"}')
    with pytest.raises(ClusterError, match=r"^the API server answers /api/v1/nodes with 403: no$"):
        client(forbidden).read("/api/v1/nodes")


def test_a_lab_without_kubeconfig_has_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no kubeconfig yet") as caught, api.connect(LabPaths("dev", tmp_path), ""):
        pass
    assert caught.value.remedy == "bring the cluster up: ./lab up --lab dev"


CONFIG = kubeconfig("http://127.0.0.1:9")


def test_a_cluster_by_its_kubeconfig(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(CONFIG)
    assert api.cluster_name(file) == "prod-eu-1"
    with (
        pytest.raises(ClusterError, match="the API server does not answer GET /api/v1/nodes: ") as caught,
        api.connect_by_kubeconfig(file, timeout_s=5) as found,
    ):
        found.read("/api/v1/nodes")
    assert caught.value.remedy.startswith(f"kubectl --kubeconfig {file} get nodes")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file or directory"),
        ("", "Invalid kube-config"),
        ("{ not yaml", "while parsing"),
        ("[]", ""),
        (CONFIG.replace("current-context: mine", "current-context: other"), "Expected object with name other"),
        ("\x00\x01", ""),
    ],
)
def test_a_file_that_is_no_kubeconfig(tmp_path: Path, text: str | None, why: str) -> None:
    file = tmp_path / "kubeconfig"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ClusterError) as caught, api.connect_by_kubeconfig(file):
        pass
    assert caught.value.message.startswith(f"{file} can't be used as a kubeconfig: ") and why in caught.value.message
    assert caught.value.remedy == f"kubectl --kubeconfig {file} get nodes has to work"
    with pytest.raises(ClusterError, match="can't be used as a kubeconfig"):
        api.cluster_name(file)


def test_a_kubeconfig_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_file: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with (
        pytest.raises(ClusterError, match="can't be used as a kubeconfig: Permission denied"),
        api.connect_by_kubeconfig(tmp_path / "kubeconfig"),
    ):
        pass
