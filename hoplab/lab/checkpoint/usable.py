"""Proof that a restored lab works: what the API says of its nodes may be older than the restore.

On every node a pod is scheduled, runs, and is removed again; so scheduler, kubelet, runtime and CNI plugin work with
the restarted API server. Then the host finds the hardware address behind each LoadBalancer address.
"""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from ipaddress import IPv4Address, ip_address
from typing import Any

from hoplab.cluster import readiness
from hoplab.cluster.api import KubernetesApi
from hoplab.cluster.direct import connect_directly
from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.core.wait import HOST, Deadline, Expired, NotYet, Timing
from hoplab.host import netns
from hoplab.lab.state import LabState
from hoplab.spec.model import AddressRange

PODS = "/api/v1/namespaces/default/pods"
PAUSE = "registry.k8s.io/pause:"
POLL_S = 0.3
CONNECT_S = 1.0  # for an answer of a LoadBalancer address; any answer will do
GOOD = {"REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT"}  # states of a neighbour with a hardware address


def prove(
    lab: LabState, paths: LabPaths, progress: Progress, started: Mapping[str, datetime], timing: Timing = HOST
) -> None:
    """Wait until the restored lab is usable; raise ClusterError where it does not become so."""
    names = [node.name for node in lab.nodes]
    patience = readiness.PATIENCE_S[lab.accel]
    deadline = timing.deadline(patience)
    with connect_directly(paths, lab.netns) as api:
        progress.task("a pod on each node")
        try_pods(api, names, deadline, progress, timing)
        # afterwards: a node whose clock jumped may be Ready, not Ready and Ready again while its first pod starts
        readiness.wait_usable_nodes(names, paths, lab.netns, progress, patience, started=started)
        if lab.setting and lab.setting.pool:
            wait_announced(api, lab.netns, lab.setting.pool, deadline, progress, timing)


def try_pods(
    api: KubernetesApi, nodes: Sequence[str], deadline: Deadline, progress: Progress, timing: Timing = HOST
) -> None:
    """Run a pod on every node and remove it again; raise ClusterError where one does not run or does not go."""
    mark = secrets.token_hex(3)
    pods = {f"hoplab-usable-{node}-{mark}": node for node in nodes}
    try:
        for name, node in pods.items():
            timing.until(partial(_made, api, name, node), deadline, poll_s=POLL_S)
        timing.until(lambda: _all_run(api, pods), deadline, poll_s=POLL_S, report=progress.task)
        for name in pods:
            api("DELETE", f"{PODS}/{name}")
        timing.until(lambda: _all_gone(api, pods), deadline, poll_s=POLL_S, report=progress.task)
    except Expired as expired:
        for name in pods:
            with suppress(ClusterError):
                api("DELETE", f"{PODS}/{name}")
        raise _not_usable(expired, "./lab kubectl get events") from None


def _made(api: KubernetesApi, name: str, node: str) -> NotYet | None:
    try:
        status, answer = api("POST", PODS, pod(name, node, _pause_image(api, node)))
    except ClusterError as error:
        return NotYet(error.message)
    return None if status in (201, 409) else NotYet(f"pod {name} is refused: {answer.get('message', status)}")


def pod(name: str, node: str, image: str) -> dict[str, Any]:
    """Return a pod that does nothing, for one node, whatever taints that has."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "hoplab-usable"}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "pause", "image": image, "imagePullPolicy": "IfNotPresent"}],
        },
    }


def _pause_image(api: KubernetesApi, node: str) -> str:
    """Return the name of the pause image on a node's disk."""
    images = api.read(f"/api/v1/nodes/{node}").get("status", {}).get("images", [])
    names = (str(name) for image in images for name in image.get("names") or ())
    found = [name for name in names if name.startswith(PAUSE)]
    if not found:
        raise ClusterError(f"node {node} lists no image {PAUSE}*", remedy="./lab converge makes its images complete")
    return found[0]


def _all_run(api: KubernetesApi, pods: Mapping[str, str]) -> NotYet | None:
    for name, node in pods.items():
        try:
            _, found = api("GET", f"{PODS}/{name}")
        except ClusterError as error:
            return NotYet(error.message)
        status = found.get("status", {})
        if not (status.get("phase") == "Running" and status.get("podIP")):
            return NotYet(f"a pod on {node} is {status.get('phase', 'unknown')}")
    return None


def _all_gone(api: KubernetesApi, pods: Mapping[str, str]) -> NotYet | None:
    for name, node in pods.items():
        try:
            if api("GET", f"{PODS}/{name}")[0] != 404:
                return NotYet(f"a pod on {node} is still being removed")
        except ClusterError as error:
            return NotYet(error.message)
    return None


def wait_announced(
    api: KubernetesApi,
    namespace: str,
    pool: AddressRange,
    deadline: Deadline,
    progress: Progress,
    timing: Timing = HOST,
) -> None:
    """Wait until the host end of the lab network finds a hardware address for each address of the lab's pool."""

    def announced() -> NotYet | None:
        for name, address, port in balanced(api.read("/api/v1/services")["items"], pool):
            if not _answers(namespace, address, port):
                return NotYet(f"nobody announces {address} of service {name}")
        return None

    try:
        timing.until(announced, deadline, poll_s=POLL_S, report=progress.task)
    except Expired as expired:
        raise _not_usable(expired, "./lab kubectl get services -A") from None


def balanced(services: Sequence[Mapping[str, Any]], pool: AddressRange) -> list[tuple[str, str, int]]:
    """Return service, address and first port of every address that the lab's load balancer has given."""
    return [
        (service["metadata"]["name"], point["ip"], service["spec"]["ports"][0]["port"])
        for service in services
        if service["spec"].get("type") == "LoadBalancer"
        for point in service.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
        if _is_of(pool, point.get("ip", ""))
    ]


def _is_of(pool: AddressRange, address: str) -> bool:
    with suppress(ValueError):  # a name, or none
        found = ip_address(address)
        return isinstance(found, IPv4Address) and pool.first <= found <= pool.last
    return False


def _answers(namespace: str, address: str, port: int) -> bool:
    """Return whether something in the lab answers for an address: by TCP, or with its hardware address."""
    with netns.entered(namespace):
        try:
            socket.create_connection((address, port), CONNECT_S).close()
            return True
        except ConnectionRefusedError:
            return True
        except OSError:
            shown = subprocess.run(
                ["ip", "-j", "neigh", "show", address], capture_output=True, text=True, check=False
            ).stdout
    return known_neighbour(shown)


def known_neighbour(shown: str) -> bool:
    """Return whether the output of `ip -j neigh show ADDRESS` has a hardware address.

    >>> known_neighbour('[{"dst": "192.0.2.9", "lladdr": "02:00:00:00:00:01", "state": ["STALE"]}]')
    True
    >>> known_neighbour('[{"dst": "192.0.2.9", "state": ["FAILED"]}]')
    False
    """
    return any("lladdr" in row and GOOD & set(row.get("state", ())) for row in json.loads(shown or "[]"))


def _not_usable(expired: Expired, look: str) -> ClusterError:
    return ClusterError(
        f"the restored lab is not usable after {expired.seconds:.0f} s: {expired.reason}",
        remedy=f"look with `{look}`; ./lab start waits again",
    )
