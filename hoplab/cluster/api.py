"""The client of a lab's Kubernetes API, which connects from the host with the lab's own kubeconfig.

with connect(paths, netns) as api:
    api.read("/api/v1/nodes")["items"]
    status, answer = api("POST", "/api/v1/namespaces", body)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hoplab.core import proxies
from hoplab.core.errors import ClusterError, UnavailableError
from hoplab.core.paths import LabPaths
from hoplab.host import netns as namespaces

if TYPE_CHECKING:
    from kubernetes import client

TIMEOUT_S = 10.0  # for one answer
LAB_REMEDY = "see `./lab status`; ./lab start brings a lab back"


class Api(Protocol):
    """One request to the Kubernetes API: the status and the object of its answer."""

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]: ...


class ApiUnreachable(ClusterError, UnavailableError):
    """The API server did not answer a request."""


class Requests:
    """Requests of which each is an answer's status and text."""

    remedy = LAB_REMEDY  # where the API server does not answer

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """Return status and text of the answer; raise ApiUnreachable where there is none."""
        raise NotImplementedError

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Return status and object of the answer; a text that is none, as a container's log, is its ``message``."""
        status, text = self.request(method, path, body)
        is_log = status == 200 and path.partition("?")[0].endswith("/log")  # its lines may be JSON
        return status, json.loads(text) if text.startswith("{") and not is_log else {"message": text}

    def read(self, path: str) -> dict[str, Any]:
        """Return the object of a GET; raise ClusterError where the answer is another than 200."""
        status, found = self("GET", path)
        if status != 200:
            raise ClusterError(
                f"the API server answers {path} with {status}: {found.get('message', '')}", remedy=self.remedy
            )
        return found


class KubernetesApi(Requests):
    """Requests with plain JSON bodies, through the connection of the client library."""

    def __init__(self, connection: client.ApiClient, timeout_s: float = TIMEOUT_S, remedy: str = LAB_REMEDY) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self.remedy = remedy

    def within(self, timeout_s: float) -> KubernetesApi:
        """Return the same API with another bound for one answer, in seconds."""
        return KubernetesApi(self._connection, timeout_s, self.remedy)

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """Return status and text of the answer; raise ApiUnreachable where there is none."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        url = f"{self._connection.configuration.host}{path}"
        try:
            answer = self._connection.call_api(method, url, headers, body, _request_timeout=self._timeout_s)
            return answer.status, (answer.read() or b"").decode()
        except Exception as error:  # urllib3's, ssl's, the client's own: all mean the same here
            raise ApiUnreachable(
                f"the API server does not answer {method} {path}: {error}",
                remedy=self.remedy,
            ) from error


@contextmanager
def connect(paths: LabPaths, netns: str, *, timeout_s: float = TIMEOUT_S) -> Iterator[KubernetesApi]:
    """Connect to the lab's API server, in the lab's namespace: use the client within the body only."""
    from kubernetes import client, config  # noqa: PLC0415 -- takes a second to load, and not every verb needs it

    if not paths.kubeconfig.exists():
        raise ClusterError(
            f"lab {paths.lab!r} has no kubeconfig yet", remedy=f"bring the cluster up: ./lab up --lab {paths.lab}"
        )
    with namespaces.entered(netns):
        settings = client.Configuration()
        config.load_kube_config(config_file=str(paths.kubeconfig), client_configuration=settings)
        settings.proxy = None
        settings.retries = False  # no retries here: callers wait with a deadline and a reason
        with client.ApiClient(settings) as connection:
            yield KubernetesApi(connection, timeout_s)


@contextmanager
def _kubeconfig_errors(kubeconfig: Path) -> Iterator[None]:
    """Raise ClusterError where the body cannot use a kubeconfig."""
    import yaml  # noqa: PLC0415 -- as above
    from kubernetes import config  # noqa: PLC0415

    try:
        kubeconfig.read_bytes()
        yield
    except (
        OSError,
        UnicodeError,
        ValueError,
        TypeError,
        AttributeError,
        yaml.YAMLError,
        config.ConfigException,
    ) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise ClusterError(
            f"{kubeconfig} can't be used as a kubeconfig: {' '.join(reason.split())}",
            remedy=f"kubectl --kubeconfig {kubeconfig} get nodes has to work",
        ) from None


@contextmanager
def connect_by_kubeconfig(kubeconfig: Path, *, timeout_s: float = TIMEOUT_S) -> Iterator[KubernetesApi]:
    """Connect to the API server of a kubeconfig's current context; raise ClusterError for a file that names none."""
    from kubernetes import client, config  # noqa: PLC0415

    settings = client.Configuration()
    with _kubeconfig_errors(kubeconfig):
        config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
    settings.retries = False
    if proxies.is_loopback(settings.host):
        settings.proxy = None  # as kubectl does: it may be the forward of a lab
    remedy = f"kubectl --kubeconfig {kubeconfig} get nodes shows why not; it has to work on this machine"
    with client.ApiClient(settings) as connection:
        yield KubernetesApi(connection, timeout_s, remedy)


def cluster_name(kubeconfig: Path) -> str:
    """Return the name of the cluster of a kubeconfig's current context, as far as it is fit for a file's name."""
    from kubernetes import config  # noqa: PLC0415

    with _kubeconfig_errors(kubeconfig):
        _, active = config.list_kube_config_contexts(str(kubeconfig))
        name = str(active["context"].get("cluster", ""))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "cluster"
