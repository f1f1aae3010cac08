"""The cluster as its API tells it: whether it is usable, and what to show of it. Always asked from the host side.

with api(paths, netns) as k8s:
    read(k8s, "/api/v1/nodes")
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.core.wait import HOST, Expired, NotYet, Timing
from hoplab.host import netns as namespaces
from hoplab.spec.plan import LabPlan

if TYPE_CHECKING:
    from kubernetes import client

POLL_S = 1.0
ESSENTIAL = ("kube-proxy", "coredns")
ADDONS = {"metallb": ("metallb-controller", "metallb-speaker")}  # what a cluster also needs, by setting
CRITICAL = {"system-node-critical", "system-cluster-critical"}  # priorities of what is not people's own
PATIENCE_S = {"kvm": 300.0, "tcg": 1200.0}  # from joined to usable, on an unloaded host a fifth of it


@dataclass(frozen=True)
class NodeRow:
    """One node, for people."""

    name: str
    ready: bool
    version: str  # "v1.37.2"
    runtime: str  # "containerd://2.4.2"
    address: str
    pod_cidr: str


@dataclass(frozen=True)
class Snapshot:
    """What decides whether a cluster is usable, as the API's own JSON."""

    nodes: list[dict[str, Any]]
    daemon_sets: list[dict[str, Any]]
    deployments: list[dict[str, Any]]
    pods: list[dict[str, Any]]


@contextmanager
def api(paths: LabPaths, netns: str) -> Iterator[client.ApiClient]:
    """A client of the lab's API server, in the lab's namespace: use it within the body only."""
    from kubernetes import client, config  # noqa: PLC0415 -- takes a second to load, and not every verb needs it

    if not paths.kubeconfig.exists():
        raise ClusterError(
            f"lab {paths.lab!r} has no kubeconfig yet", remedy=f"bring the cluster up: ./lab up --lab {paths.lab}"
        )
    with namespaces.entered(netns):
        settings = client.Configuration()
        config.load_kube_config(config_file=str(paths.kubeconfig), client_configuration=settings)
        settings.retries = False  # whoever waits does so with a deadline and says why
        with client.ApiClient(settings) as k8s:
            yield k8s


def read(k8s: client.ApiClient, path: str) -> dict[str, Any]:
    """The JSON of one GET; ClusterError says why there is none."""
    import urllib3  # noqa: PLC0415 -- as in ``api``
    from kubernetes.client import ApiException  # noqa: PLC0415

    try:
        url = f"{k8s.configuration.host}{path}"
        answer = k8s.call_api("GET", url, {"Accept": "application/json"}, _request_timeout=10)
        found: dict[str, Any] = json.loads(answer.read())
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise ClusterError(
            f"the API server does not answer: {error}", remedy="see `./lab status`; ./lab start brings a lab back"
        ) from None
    except ApiException as error:
        raise ClusterError(
            f"the API server answers {path} with {error.status} {error.reason}", remedy="see `./lab status`"
        ) from None
    return found


def wait_usable(
    plan: LabPlan, paths: LabPaths, netns: str, progress: Progress, deadline_s: float | None = None
) -> None:
    """Wait until pods can be used: nodes Ready with a pod range, kube-proxy and pod network on each, DNS answering.

    A lab with a load balancer waits for that too.
    """
    names = [node.name for node in plan.nodes]
    patience = PATIENCE_S[plan.accel] if deadline_s is None else deadline_s
    wanted = ESSENTIAL + ADDONS.get(plan.load_balancer, ())
    wait_usable_nodes(names, paths, netns, progress, patience, essential=wanted)


def wait_usable_nodes(
    names: Iterable[str],
    paths: LabPaths,
    netns: str,
    progress: Progress,
    deadline_s: float = PATIENCE_S["tcg"],
    *,
    essential: Iterable[str] = ESSENTIAL,
    started: Mapping[str, datetime] | None = None,
    timing: Timing = HOST,
) -> None:
    """``wait_usable`` for nodes known by name only; ``started`` says when some of them were just switched on.

    What is of critical priority has to be ready where it is installed; ``essential`` is what has to be installed.

    For minutes after a power cut the API still tells of a machine what was true before it.
    """
    wanted, needed = tuple(names), tuple(essential)
    with api(paths, netns) as k8s:

        def usable() -> NotYet | None:
            reasons = _reasons(k8s, wanted, needed, started or {})
            if not reasons:
                return None
            progress.task(reasons[0])
            return NotYet("; ".join(reasons))

        try:
            timing.until(usable, deadline_s, poll_s=POLL_S)
        except Expired as expired:
            raise ClusterError(
                f"the cluster is not usable after {expired.seconds:.0f} s: {expired.reason}",
                remedy=f"look with `./lab kubectl --lab {paths.lab} get pods -A -o wide`; `./lab up` waits again",
                log=str(paths.console),
            ) from None


def _reasons(
    k8s: client.ApiClient, names: tuple[str, ...], essential: tuple[str, ...], started: Mapping[str, datetime]
) -> list[str]:
    try:
        seen = take(k8s)
        return missing(seen, names, essential) + outdated(seen, started)
    except ClusterError as error:
        return [error.message]


def take(k8s: client.ApiClient) -> Snapshot:
    """Ask the API once for everything that ``missing`` looks at."""
    return Snapshot(
        nodes=read(k8s, "/api/v1/nodes")["items"],
        daemon_sets=read(k8s, "/apis/apps/v1/daemonsets")["items"],
        deployments=read(k8s, "/apis/apps/v1/deployments")["items"],
        pods=read(k8s, "/api/v1/pods")["items"],
    )


def missing(seen: Snapshot, names: tuple[str, ...], essential: tuple[str, ...] = ESSENTIAL) -> list[str]:
    """Why the cluster can't be used yet, the deepest cause first; empty when it can.

    >>> missing(Snapshot([], [], [], []), ("worker1",))
    ['node worker1 has not joined', 'kube-proxy is not installed', 'coredns is not installed']
    """
    nodes = {node["metadata"]["name"]: node for node in seen.nodes}
    reasons = []
    for name in names:
        if name not in nodes:
            reasons.append(f"node {name} has not joined")
        elif why := _not_ready(nodes[name]):
            reasons.append(f"node {name} is not Ready: {why}")
        elif not nodes[name]["spec"].get("podCIDR"):
            reasons.append(f"node {name} has no pod range")
    daemon_sets = [each for each in seen.daemon_sets if _priority(each) in CRITICAL]
    daemon_sets.sort(key=lambda each: not _spec(each).get("hostNetwork"))  # what gives pods their network comes first
    deployments = [each for each in seen.deployments if _priority(each) in CRITICAL]
    installed = {each["metadata"]["name"] for each in (*daemon_sets, *deployments)}
    reasons += [f"{name} is not installed" for name in essential if name not in installed]
    for each in daemon_sets:
        status = each.get("status", {})
        wanted = max(status.get("desiredNumberScheduled", 0), len(names))
        reasons += _behind(each, status.get("numberReady", 0), wanted, seen.pods)
    for each in deployments:
        status = each.get("status", {})
        reasons += _behind(each, status.get("availableReplicas", 0), each["spec"].get("replicas", 1), seen.pods)
    return reasons


def outdated(seen: Snapshot, started: Mapping[str, datetime]) -> list[str]:
    """The pods whose containers, says the API, run since before their node was switched on."""
    reasons = []
    for pod in seen.pods:
        since = started.get(pod["spec"].get("nodeName", ""))
        for container in pod.get("status", {}).get("containerStatuses", []):
            running = container.get("state", {}).get("running", {}).get("startedAt")
            if since and running and datetime.fromisoformat(running) < since:
                reasons.append(f"pod {pod['metadata']['name']}{_where(pod)}: not started again yet")
    return reasons


def _behind(owner: dict[str, Any], ready: int, wanted: int, pods: list[dict[str, Any]]) -> list[str]:
    """What a DaemonSet or Deployment waits for."""
    meta, status = owner["metadata"], owner.get("status", {})
    current = status.get("observedGeneration", 0) >= meta.get("generation", 0)
    if ready >= wanted and current:
        return []
    labels = owner["spec"]["selector"].get("matchLabels", {}).items()
    reasons = [
        f"pod {pod['metadata']['name']}{_where(pod)}: {why}"
        for pod in pods
        if pod["metadata"]["namespace"] == meta["namespace"]
        and labels <= pod["metadata"].get("labels", {}).items()
        and (why := _pod_waits(pod))
    ]
    return reasons or [f"{meta['name']}: {ready} of {wanted} ready"]


def _priority(owner: dict[str, Any]) -> str:
    return str(_spec(owner).get("priorityClassName", ""))


def _spec(owner: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = owner["spec"]["template"]["spec"]
    return found


def _where(pod: dict[str, Any]) -> str:
    node = pod["spec"].get("nodeName")
    return f" on {node}" if node else ""


def _not_ready(node: dict[str, Any]) -> str:
    """The Ready condition's message, "" for a node that is Ready."""
    for condition in node.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready":
            return "" if condition["status"] == "True" else str(condition.get("message") or condition.get("reason"))
    return "its kubelet has not reported yet"


def _pod_waits(pod: dict[str, Any]) -> str:
    """Why a pod is not ready, "" for one that is."""
    status = pod.get("status", {})
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        state = container.get("state", {})
        for kind in ("waiting", "terminated"):
            why = state.get(kind)
            if why and why.get("reason") not in ("PodInitializing", "ContainerCreating", "Completed"):
                return f"{container['name']} {why.get('reason')}: {why.get('message') or '(no message)'}"
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"not scheduled: {scheduled.get('message')}"
    return "starting" if status.get("phase") != "Running" else "running, not ready"


def summary(paths: LabPaths, netns: str) -> list[NodeRow]:
    """The nodes as the cluster sees them; ClusterError when the API does not answer."""
    with api(paths, netns) as k8s:
        nodes = read(k8s, "/api/v1/nodes")["items"]
    return [node_row(node) for node in sorted(nodes, key=lambda node: str(node["metadata"]["name"]))]


def node_row(node: dict[str, Any]) -> NodeRow:
    """The row of a Node object."""
    status = node.get("status", {})
    info = status.get("nodeInfo", {})
    addresses = {each["type"]: each["address"] for each in status.get("addresses", [])}
    return NodeRow(
        name=node["metadata"]["name"],
        ready=not _not_ready(node),
        version=info.get("kubeletVersion", ""),
        runtime=info.get("containerRuntimeVersion", ""),
        address=addresses.get("InternalIP", ""),
        pod_cidr=node["spec"].get("podCIDR", ""),
    )
