"""The workload that verification looks at and asks with: pods and services in a namespace of their own.

They are made by the first `lab verify` and stay for the next one (an emulated node needs half a minute to start a pod);
they go with the lab, or with `lab verify --cleanup`. The namespace carries a digest of what is in
it, so another version of hoplab makes its own anew.

    echo          one pod on every node, behind a ClusterIP
    single        one pod on one node, behind NodePort 30080 (Cluster) and 30081 (externalTrafficPolicy: Local)
    balanced      the same pod behind an address that a load balancer would own; verification itself plays that part
    nobody        a service without endpoints
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any, Protocol

from hoplab.errors import ClusterError

NAMESPACE = "hoplab-verify"
IMAGE = "hoplab.local/echo:1"
PORT = 8080  # the pods'
NODE_PORT = 30080
NODE_PORT_LOCAL = 30081
BALANCED_IP = "203.0.113.80"  # of a range for documentation: no host has it
BALANCER_CLASS = "hoplab.local/verify"  # so that a real load balancer in the lab leaves the service to us
DIGEST = "hoplab.local/digest"
DEADLINE = 300.0  # seconds until every pod answers


class Api(Protocol):
    """One request to the Kubernetes API: its status and its body."""

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]: ...


def manifests() -> list[tuple[str, dict[str, Any]]]:
    """What is made, in order: the path it is posted to, and the object."""
    core, apps = f"/api/v1/namespaces/{NAMESPACE}", f"/apis/apps/v1/namespaces/{NAMESPACE}"
    return [
        (f"{apps}/daemonsets", _workload("DaemonSet", "echo")),
        (f"{apps}/deployments", _workload("Deployment", "single", replicas=1)),
        (f"{core}/services", _service("echo", selector={"app": "echo"})),
        (f"{core}/services", _service("single", selector={"app": "single"}, type="NodePort", node_port=NODE_PORT)),
        (
            f"{core}/services",
            _service(
                "single-local",
                selector={"app": "single"},
                type="NodePort",
                node_port=NODE_PORT_LOCAL,
                externalTrafficPolicy="Local",
            ),
        ),
        (
            f"{core}/services",
            _service(
                "balanced",
                selector={"app": "single"},
                type="LoadBalancer",
                loadBalancerClass=BALANCER_CLASS,
                allocateLoadBalancerNodePorts=False,
            ),
        ),
        (f"{core}/services", _service("nobody", selector={"app": "nobody"})),
    ]


def _workload(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "echo",
        "image": IMAGE,
        "imagePullPolicy": "Never",  # it is baked into the nodes
        "args": ["serve", "--port", str(PORT)],
        "ports": [{"containerPort": PORT}],
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}},
    }
    pod_spec: dict[str, Any] = {
        "containers": [container],
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
    }
    if kind == "DaemonSet":
        pod_spec["tolerations"] = [{"operator": "Exists"}]  # also on a control-plane machine: it is a node too
    pod = {"metadata": {"labels": {"app": name}}, "spec": pod_spec}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {**spec, "selector": {"matchLabels": {"app": name}}, "template": pod},
    }


def _service(name: str, *, node_port: int = 0, **spec: Any) -> dict[str, Any]:
    port: dict[str, Any] = {"port": 80, "targetPort": PORT, "protocol": "TCP"}
    if node_port:
        port["nodePort"] = node_port
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {**spec, "ports": [port]}}


def digest() -> str:
    return hashlib.sha256(json.dumps(manifests(), sort_keys=True).encode()).hexdigest()[:12]


def ensure(
    api: Api, *, clock: Callable[[], float] = time.monotonic, pause: Callable[[float], None] = time.sleep
) -> bool:
    """Make the workload unless it is there, and wait until all of its pods are ready; True when it was made now."""
    deadline = clock() + DEADLINE

    def wait(ready: Callable[[], str]) -> None:
        """Until ``ready`` has no complaint any more."""
        while complaint := ready():
            if clock() > deadline:
                raise ClusterError(
                    f"the pods that verification asks with are not ready after {DEADLINE:.0f} s: {complaint}",
                    remedy=f"./lab kubectl -n {NAMESPACE} describe pods",
                )
            pause(1.0)

    status, found = api("GET", f"/api/v1/namespaces/{NAMESPACE}")
    going = "deletionTimestamp" in found.get("metadata", {})  # `verify --cleanup` was a moment ago
    if status == 200 and not going and found["metadata"].get("labels", {}).get(DIGEST) == digest():
        made = False
    else:
        remove(api)
        wait(
            lambda: (
                "the old ones are still being deleted"
                if api("GET", f"/api/v1/namespaces/{NAMESPACE}")[0] == 200
                else ""
            )
        )
        made = True
        metadata = {"name": NAMESPACE, "labels": {DIGEST: digest()}}
        _create(api, "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    for path, body in manifests():
        _create(api, path, body)
    _give_address(api)
    wait(lambda: unready(api))
    return made


def _give_address(api: Api) -> None:
    """What a load balancer's controller does: write the address it announces into the service's status."""
    path = f"/api/v1/namespaces/{NAMESPACE}/services/balanced"
    _, service = api("GET", path)
    wanted = {"ingress": [{"ip": BALANCED_IP, "ipMode": "VIP"}]}
    if service.get("status", {}).get("loadBalancer") == wanted:
        return
    status, answer = api("PUT", f"{path}/status", {**service, "status": {"loadBalancer": wanted}})
    if status != 200:
        raise ClusterError(
            f"the service `balanced` can't be given {BALANCED_IP}: {answer.get('message', status)}",
            remedy=f"remove what is left of it: ./lab kubectl delete namespace {NAMESPACE}",
        )


def unready(api: Api) -> str:
    """What is still missing, in a few words; "" when every pod is ready."""
    apps = f"/apis/apps/v1/namespaces/{NAMESPACE}"
    _, echo = api("GET", f"{apps}/daemonsets/echo")
    _, single = api("GET", f"{apps}/deployments/single")
    for name, found, key in (("echo", echo, "desiredNumberScheduled"), ("single", single, "replicas")):
        status = found.get("status", {})
        ready = status.get("numberReady", status.get("readyReplicas", 0))
        if status.get("observedGeneration", 0) < 1 or not status.get(key) or ready < status[key]:
            return f"{ready} of {status.get(key, '?')} pods of {name} are ready; {_reason(api, name)}"
    return ""


def _reason(api: Api, app: str) -> str:
    """Why a pod of the app is not ready, as Kubernetes tells it."""
    _, pods = api("GET", f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app%3D{app}")
    for pod in pods.get("items", []):
        status = pod.get("status", {})
        for container in status.get("containerStatuses", []):
            waiting = container.get("state", {}).get("waiting")
            if waiting:
                return f"{pod['metadata']['name']}: {waiting.get('reason')} {waiting.get('message', '')}".strip()
        for condition in status.get("conditions", []):
            if condition.get("status") == "False" and condition.get("message"):
                return f"{pod['metadata']['name']}: {condition['message']}"
    return "no pod says why"


def remove(api: Api) -> bool:
    """Delete the workload; True when there was one. Kubernetes finishes it in the background."""
    status, _ = api("DELETE", f"/api/v1/namespaces/{NAMESPACE}")
    return status < 300


def _create(api: Api, path: str, body: dict[str, Any]) -> None:
    """Make an object unless it is there. (Posting it again is not enough: a taken nodePort is no 409 but a 422.)"""
    name = body["metadata"]["name"]
    if api("GET", f"{path}/{name}")[0] == 200:
        return
    status, answer = api("POST", path, body)
    if status != 201:
        raise ClusterError(
            f"{body['kind']} {name} can't be made: {answer.get('message', status)}",
            remedy=f"remove what is left of it: ./lab kubectl delete namespace {NAMESPACE}",
        )
