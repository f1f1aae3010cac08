"""A connection to the API server through Python's own HTTP client.

The client library takes longer to import than all of `./lab status`, which sends one request. ``KubernetesApi`` works
with either connection.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import yaml

from hoplab.cluster.api import TIMEOUT_S, KubernetesApi
from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths
from hoplab.host import netns as namespaces

if TYPE_CHECKING:
    from kubernetes.client import ApiClient


class DirectConnection:
    """The part of the client library's connection that ``KubernetesApi`` uses, for the lab's kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.configuration = SimpleNamespace(host=cluster["server"])
        self._name = cluster.get("tls-server-name", "")  # where the API server is forwarded to another address
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile(prefix="hoplab-", suffix=".pem") as pair:  # 0600; ssl reads files only
            pair.write(base64.b64decode(user["client-certificate-data"]))
            pair.write(base64.b64decode(user["client-key-data"]))
            pair.flush()
            self._tls.load_cert_chain(pair.name)

    def call_api(
        self, method: str, url: str, headers: dict[str, str], body: Any = None, _request_timeout: float = TIMEOUT_S
    ) -> http.client.HTTPResponse:
        """Send one request and return the answer, whatever its status."""
        parts = urlsplit(url)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=_request_timeout, context=self._tls
        )
        if self._name:
            to = (parts.hostname or "", parts.port or 443)
            plain = socket.create_connection(to, _request_timeout)
            connection.sock = self._tls.wrap_socket(plain, server_hostname=self._name)
        text = None if body is None else json.dumps(body)
        connection.request(method, url.removeprefix(f"{parts.scheme}://{parts.netloc}"), text, headers)
        return connection.getresponse()  # closes the connection when it is read


@contextmanager
def connect_directly(paths: LabPaths, netns: str) -> Iterator[KubernetesApi]:
    """Connect to the lab's API server as ``hoplab.cluster.api.connect`` does; use the client within the body only."""
    if not paths.kubeconfig.exists():
        raise ClusterError(
            f"lab {paths.lab!r} has no kubeconfig yet", remedy=f"bring the cluster up: ./lab up --lab {paths.lab}"
        )
    with namespaces.entered(netns):
        yield KubernetesApi(cast("ApiClient", DirectConnection(paths.kubeconfig)))
