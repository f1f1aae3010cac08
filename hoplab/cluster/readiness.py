"""Conditions for a usable cluster, read from the API of the lab, and the wait for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hoplab.cluster.api import KubernetesApi, connect
from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.core.wait import HOST, Expired, NotYet, Timing
from hoplab.spec.parts import Parts
from hoplab.spec.plan import LabPlan

POLL_S = 1.0
ESSENTIAL = ("coredns",)
KUBE_PROXY = "kube-proxy"  # in every lab in which no CNI does its work
CRITICAL = {"system-node-critical", "system-cluster-critical"}  # priority classes of system pods
PATIENCE_S = {"kvm": 300.0, "tcg": 1200.0}  # from joined to usable, on an unloaded host a fifth of it


@dataclass(frozen=True)
class NodeRow:
    """One node, as `lab status` shows it."""

    name: str
    ready: bool
    version: str  # "v1.37.2"
    runtime: str  # "containerd://2.4.2"
    address: str
    pod_cidr: str


@dataclass(frozen=True)
class ClusterObjects:
    """The objects that decide whether a cluster is usable, as the API's JSON."""

    nodes: list[dict[str, Any]]
    daemon_sets: list[dict[str, Any]]
    deployments: list[dict[str, Any]]
    pods: list[dict[str, Any]]


def wait_usable(
    plan: LabPlan, paths: LabPaths, netns: str, progress: Progress, parts: Parts, deadline_s: float | None = None
) -> None:
    """Wait until pods can be used: nodes Ready with a pod range, kube-proxy and pod network on each, DNS ready.

    The workloads of the lab's CNI, of its load balancer, of what serves the Gateway API and of what enforces policies
    must be ready too.
    """
    names = [node.name for node in plan.nodes]
    patience = PATIENCE_S[plan.accel] if deadline_s is None else deadline_s
    wait_usable_nodes(names, paths, netns, progress, patience, essential=essential(plan, parts))


def essential(plan: LabPlan, parts: Parts) -> tuple[str, ...]:
    """Return the names of the workloads that pods need in such a lab."""
    chosen = (
        parts.cni.get(plan.cni.name),
        parts.load_balancer.get(plan.load_balancer),
        parts.gateway.get(plan.gateway_controller),
        parts.policy.get(plan.network_policy),
    )
    proxy = parts.proxy.get(plan.proxy_mode)
    replaced = proxy is not None and proxy.cni != ""
    of_parts = tuple(daemon for part in chosen if part for daemon in part.daemons)
    return (*([] if replaced else [KUBE_PROXY]), *ESSENTIAL, *of_parts)


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
    """Wait as ``wait_usable`` does, for nodes known by name only.

    DaemonSets and Deployments of critical priority must be ready; those of ``essential`` must also be installed.
    ``started`` maps nodes to the time they were switched on: after a power cut the API serves stale pod status for
    minutes, so older containers do not count.
    """
    wanted, needed = tuple(names), tuple(essential)
    with connect(paths, netns) as api:

        def usable() -> NotYet | None:
            reasons = _reasons(api, wanted, needed, started or {})
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
    api: KubernetesApi, names: tuple[str, ...], essential: tuple[str, ...], started: Mapping[str, datetime]
) -> list[str]:
    try:
        found = list_objects(api)
        return missing(found, names, essential) + outdated(found, started)
    except ClusterError as error:
        return [error.message]


def list_objects(api: KubernetesApi) -> ClusterObjects:
    """Return everything that ``missing`` looks at."""
    return ClusterObjects(
        nodes=api.read("/api/v1/nodes")["items"],
        daemon_sets=api.read("/apis/apps/v1/daemonsets")["items"],
        deployments=api.read("/apis/apps/v1/deployments")["items"],
        pods=api.read("/api/v1/pods")["items"],
    )


def missing(found: ClusterObjects, names: tuple[str, ...], essential: tuple[str, ...] = ESSENTIAL) -> list[str]:
    """Return why the cluster is not usable yet, the deepest cause first; empty when it is.

    >>> missing(ClusterObjects([], [], [], []), ("worker1",))
    ['node worker1 has not joined', 'coredns is not installed']
    """
    nodes = {node["metadata"]["name"]: node for node in found.nodes}
    reasons = []
    for name in names:
        if name not in nodes:
            reasons.append(f"node {name} has not joined")
        elif why := not_ready(nodes[name]):
            reasons.append(f"node {name} is not Ready: {why}")
        elif not nodes[name]["spec"].get("podCIDR"):
            reasons.append(f"node {name} has no pod range")
    daemon_sets = [owner for owner in found.daemon_sets if _priority(owner) in CRITICAL]
    daemon_sets.sort(key=lambda owner: not _spec(owner).get("hostNetwork"))  # what gives pods their network comes first
    deployments = [owner for owner in found.deployments if _priority(owner) in CRITICAL]
    installed = {owner["metadata"]["name"] for owner in (*daemon_sets, *deployments)}
    reasons += [f"{name} is not installed" for name in essential if name not in installed]
    for owner in daemon_sets:
        status = owner.get("status", {})
        wanted = max(status.get("desiredNumberScheduled", 0), len(names))
        reasons += _behind(owner, status.get("numberReady", 0), wanted, found.pods)
    for owner in deployments:
        status = owner.get("status", {})
        reasons += _behind(owner, status.get("availableReplicas", 0), owner["spec"].get("replicas", 1), found.pods)
    return reasons


def outdated(found: ClusterObjects, started: Mapping[str, datetime]) -> list[str]:
    """Return the pods whose containers, by the API, started before their node was switched on."""
    reasons = []
    for pod in found.pods:
        since = started.get(pod["spec"].get("nodeName", ""))
        for container in pod.get("status", {}).get("containerStatuses", []):
            running = container.get("state", {}).get("running", {}).get("startedAt")
            if since and running and datetime.fromisoformat(running) < since:
                reasons.append(f"pod {pod['metadata']['name']}{_where(pod)}: not started again yet")
    return reasons


def _behind(owner: dict[str, Any], ready: int, wanted: int, pods: list[dict[str, Any]]) -> list[str]:
    """Return what a DaemonSet or Deployment waits for."""
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
    pod_spec: dict[str, Any] = owner["spec"]["template"]["spec"]
    return pod_spec


def _where(pod: dict[str, Any]) -> str:
    node = pod["spec"].get("nodeName")
    return f" on {node}" if node else ""


def not_ready(node: Mapping[str, Any], never: str = "its kubelet has not reported yet") -> str:
    """Return the Ready condition's message, "" for a node that is Ready, ``never`` for one without the condition."""
    for condition in node.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready":
            return "" if condition["status"] == "True" else str(condition.get("message") or condition.get("reason"))
    return never


def _pod_waits(pod: dict[str, Any]) -> str:
    """Return why a pod is not ready, "" for one that is."""
    status = pod.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
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
    """Return the nodes as the API has them; raise ClusterError when it does not answer."""
    with connect(paths, netns) as api:
        nodes = api.read("/api/v1/nodes")["items"]
    return [node_row(node) for node in sorted(nodes, key=lambda node: str(node["metadata"]["name"]))]


def node_row(node: dict[str, Any]) -> NodeRow:
    """Return the row of a Node object."""
    status = node.get("status", {})
    info = status.get("nodeInfo", {})
    addresses = {address["type"]: address["address"] for address in status.get("addresses", [])}
    return NodeRow(
        name=node["metadata"]["name"],
        ready=not not_ready(node),
        version=info.get("kubeletVersion", ""),
        runtime=info.get("containerRuntimeVersion", ""),
        address=addresses.get("InternalIP", ""),
        pod_cidr=node["spec"].get("podCIDR", ""),
    )
