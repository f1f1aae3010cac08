"""The connection of `lab status` to the API server, with a TLS server of the test's own."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from hoplab.cluster.direct import connect_directly
from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths
from hoplab.pki.certificates import ensure_certificates


class ApiServer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path == "/api/v1/nodes"
        self.send_response(200 if found else 403)
        self.end_headers()
        self.wfile.write(json.dumps({"items": []} if found else {"message": "no"}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[LabPaths]:
    """A lab whose kubeconfig leads to a server that runs."""
    paths = LabPaths("dev", tmp_path)
    pair = ensure_certificates(paths, {"api": ("localhost",)})["api"]
    file = tmp_path / "pair.pem"
    file.write_text(pair.certificate + pair.key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    server = HTTPServer(("localhost", 0), ApiServer)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    ca, certificate, key = (
        base64.b64encode(text.encode()).decode() for text in (paths.ca.read_text(), pair.certificate, pair.key)
    )
    cluster = {"server": f"https://localhost:{server.server_port}", "certificate-authority-data": ca}
    user = {"client-certificate-data": certificate, "client-key-data": key}
    paths.kubeconfig.write_text(yaml.safe_dump({"clusters": [{"cluster": cluster}], "users": [{"user": user}]}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield paths
    server.shutdown()
    thread.join()
    server.server_close()


def test_direct_connection_reads_an_object(paths: LabPaths) -> None:
    with connect_directly(paths, "") as api:
        assert api.read("/api/v1/nodes") == {"items": []}
        with pytest.raises(ClusterError, match=r"^the API server answers /api/v1/secrets with 403: no$"):
            api.read("/api/v1/secrets")


def test_direct_connection_trusts_the_lab_authority_only(paths: LabPaths) -> None:
    config = yaml.safe_load(paths.kubeconfig.read_text())
    paths.ca.unlink()
    ensure_certificates(paths, {"other": ("localhost",)})
    other = base64.b64encode(paths.ca.read_text().encode()).decode()
    config["clusters"][0]["cluster"]["certificate-authority-data"] = other
    paths.kubeconfig.write_text(yaml.safe_dump(config))
    with (
        connect_directly(paths, "") as api,
        pytest.raises(ClusterError, match=r"does not answer GET /api/v1/nodes: .*certificate verify failed"),
    ):
        api.read("/api/v1/nodes")


def test_direct_connection_without_kubeconfig_has_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no kubeconfig yet"), connect_directly(LabPaths("dev", tmp_path), ""):
        pass
