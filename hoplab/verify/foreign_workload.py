"""The verification workload on a cluster that hoplab did not make: fewer objects, other ports, removed at the end.

    echo            one pod on every node of Linux, behind a ClusterIP
    single          one pod on one node, behind a NodePort
    single-local    the same pod behind another one (externalTrafficPolicy: Local)
    sticky          the pods of `echo` behind another ClusterIP, with session affinity by client address
    nobody          a service without endpoints

The API server chooses the NodePorts. No service asks a load balancer for an address and no Ingress is made: on
somebody's cluster these may cost money or catch requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hoplab.cluster.api import Api
from hoplab.core.errors import ClusterError
from hoplab.core.wait import HOST, Expired, NotYet, Timing
from hoplab.verify import waiting, workload
from hoplab.verify.probe import Probe
from hoplab.verify.workload import DEADLINE, NAMESPACE

OWNER = "hoplab.local/foreign"  # label of the namespace, which tells it from one of somebody else
NAMESPACES = "/api/v1/namespaces"
CORE, APPS = f"{NAMESPACES}/{NAMESPACE}", f"/apis/apps/v1/namespaces/{NAMESPACE}"
REMOVE = f"kubectl delete namespace {NAMESPACE}"
STALL_S = 120.0  # seconds without a change of what is waited for, on an idle machine: a pull may take long
GONE_DEADLINE = 120.0  # seconds until a deleted namespace is gone, on an idle machine
CONTROLLERS = {"echo": "daemonsets", "single": "deployments"}


def manifests(probe: Probe) -> list[tuple[str, dict[str, Any]]]:
    """Return the objects in the order of their creation, each with the path of its POST request."""
    services = f"{CORE}/services"
    return [
        (f"{APPS}/daemonsets", _pods("DaemonSet", "echo", probe)),
        (f"{APPS}/deployments", _pods("Deployment", "single", probe, replicas=1)),
        (services, _service("echo", "echo", ipFamilyPolicy="PreferDualStack")),
        (services, _service("single", "single", type="NodePort")),
        (services, _service("single-local", "single", type="NodePort", externalTrafficPolicy="Local")),
        (services, _service("sticky", "echo", sessionAffinity="ClientIP")),
        (services, _service("nobody", "nobody")),
    ]


def _pods(kind: str, name: str, probe: Probe, **spec: Any) -> dict[str, Any]:
    found = workload.pods(kind, name, probe=probe, pull="IfNotPresent", **spec)
    found["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/os": "linux"}
    return found


def _service(name: str, app: str, **spec: Any) -> dict[str, Any]:
    return workload.service(name, selector={"app": app}, **spec)


class NotReady(ClusterError):
    """The pods of the workload are not ready in time."""


@contextmanager
def running(
    api: Api, probe: Probe, note: Callable[[ClusterError], None] | None = None, *, timing: Timing = HOST
) -> Iterator[None]:
    """Create the workload, wait until its pods are ready, and remove it when the body ends.

    A namespace that an earlier run left behind is replaced; one that is somebody else's is not touched. Raise
    ClusterError where the workload cannot be made, does not become ready or cannot be removed; with ``note`` pods that
    do not become ready are noted and the body runs.
    """
    status, found = api("GET", CORE)
    if status == 200:
        if OWNER not in (found.get("metadata", {}).get("labels") or {}):
            raise ClusterError(
                f"the cluster has a namespace {NAMESPACE} that is not of such a run",
                remedy=f"look what is in it; if nobody needs it: {REMOVE}",
            )
        remove(api, timing=timing)
    metadata = {"name": NAMESPACE, "labels": {OWNER: "true", "pod-security.kubernetes.io/enforce": "baseline"}}
    _create(api, NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        for path, body in manifests(probe):
            _create(api, path, body)
        try:
            _wait_ready(api, probe, timing)
        except NotReady as error:
            if not note:
                raise
            note(error)
        yield
    finally:
        remove(api, timing=timing)


def _wait_ready(api: Api, probe: Probe, timing: Timing) -> None:
    def look() -> NotYet | None:
        reason = workload.unready(api, CONTROLLERS)
        if reason and (quiet := stall.quiet(reason)) and stall.over:
            raise _not_ready(probe, quiet, "; ".join(filter(None, (reason, waiting.node_not_ready(api)))))
        return NotYet(reason) if reason else None

    stall = waiting.Stall(timing, STALL_S)
    try:
        timing.until(look, timing.deadline(DEADLINE))
    except Expired as expired:
        raise _not_ready(probe, expired.seconds, expired.reason) from None


def _not_ready(probe: Probe, seconds: float, reason: str) -> NotReady:
    return NotReady(
        f"the verification workload is not ready after {seconds:.0f} s: {reason}",
        remedy=f"its image is {probe.image}: --probe-image IMAGE names one that the nodes can pull or have",
    )


def remove(api: Api, *, timing: Timing = HOST) -> None:
    """Delete the namespace and wait until it is gone; raise ClusterError when it stays."""
    status, answer = api("DELETE", CORE)
    if status == 404:
        return
    if status >= 300:
        raise ClusterError(
            f"the namespace {NAMESPACE} can't be removed: {answer.get('message', status)}", remedy=REMOVE
        )

    def look() -> NotYet | None:
        return None if api("GET", CORE)[0] == 404 else NotYet("it is still being deleted")

    try:
        timing.until(look, timing.deadline(GONE_DEADLINE))
    except Expired as expired:
        raise ClusterError(
            f"the namespace {NAMESPACE} is not gone after {expired.seconds:.0f} s",
            remedy=f"kubectl get namespace {NAMESPACE} -o yaml says what keeps it",
        ) from None


def _create(api: Api, path: str, body: dict[str, Any]) -> None:
    status, answer = api("POST", path, body)
    if status != 201:
        raise ClusterError(
            f"{body['kind']} {body['metadata']['name']} can't be made: {answer.get('message', status)}",
            remedy="the user of the kubeconfig needs the rights to create it; without --traffic nothing is created",
        )
