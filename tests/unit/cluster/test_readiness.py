"""When a cluster is usable, and the reasons while it is not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hoplab.cluster import readiness
from hoplab.cluster.readiness import ClusterObjects, NodeRow, missing, node_row
from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths
from hoplab.expectations.parts import known_parts
from hoplab.spec.model import CniSpec
from tests.support.labs import PLAN
from tests.support.progress import RecordingProgress

NAMES = ("worker1", "worker2")


def node(name: str, ready: str = "True", pod_cidr: str = "10.244.0.0/24", message: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"podCIDR": pod_cidr},
        "status": {
            "conditions": [{"type": "Ready", "status": ready, "message": message}],
            "addresses": [{"type": "InternalIP", "address": "192.168.77.20"}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"kubeletVersion": "v1.37.2", "containerRuntimeVersion": "containerd://2.4.2"},
        },
    }


def owner(name: str, namespace: str, status: dict[str, int], replicas: int | None = None) -> dict[str, Any]:
    pods = {"spec": {"priorityClassName": "system-node-critical"}}
    spec: dict[str, Any] = {"selector": {"matchLabels": {"app": name}}, "template": pods}
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "metadata": {"name": name, "namespace": namespace, "generation": 1},
        "spec": spec,
        "status": {"observedGeneration": 1, **status},
    }


def pod(name: str, app: str, namespace: str, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": app, "pod-template": "1"}},
        "spec": {"nodeName": "worker1"},
        "status": {"phase": "Pending", **status},
    }


def usable() -> ClusterObjects:
    ready = {"desiredNumberScheduled": 2, "numberReady": 2}
    return ClusterObjects(
        nodes=[node("worker1"), node("worker2")],
        daemon_sets=[owner("kube-proxy", "kube-system", ready), owner("kube-flannel-ds", "kube-flannel", ready)],
        deployments=[owner("coredns", "kube-system", {"availableReplicas": 2}, replicas=2)],
        pods=[pod("coredns-1", "coredns", "kube-system", conditions=[{"type": "Ready", "status": "True"}])],
    )


def test_a_usable_cluster_misses_nothing() -> None:
    assert missing(usable(), NAMES) == []


def test_a_node_that_has_not_joined_is_missing() -> None:
    seen = usable()
    seen.nodes.pop()
    assert missing(seen, NAMES) == ["node worker2 has not joined"]


def test_a_node_that_is_not_ready_has_its_message() -> None:
    seen = usable()
    seen.nodes[0] = node("worker1", ready="False", message="cni plugin not initialized")
    assert missing(seen, NAMES) == ["node worker1 is not Ready: cni plugin not initialized"]


def test_a_node_without_conditions_has_not_reported() -> None:
    seen = usable()
    seen.nodes[0]["status"] = {}
    assert missing(seen, NAMES) == ["node worker1 is not Ready: its kubelet has not reported yet"]


def test_a_node_without_a_pod_range_is_not_usable() -> None:
    seen = usable()
    seen.nodes[1] = node("worker2", pod_cidr="")
    assert missing(seen, NAMES) == ["node worker2 has no pod range"]


def test_a_cluster_misses_what_is_not_installed() -> None:
    seen = ClusterObjects(usable().nodes, [], [], [])
    assert missing(seen, NAMES) == ["coredns is not installed"]


def test_a_daemon_set_must_be_on_every_node_we_planned() -> None:
    seen = usable()
    seen.daemon_sets[1]["status"].update(desiredNumberScheduled=1, numberReady=1)
    assert missing(seen, NAMES) == ["kube-flannel-ds: 1 of 2 ready"]


def test_daemon_sets_without_critical_priority_are_not_waited_for() -> None:
    seen = usable()
    seen.daemon_sets.append(owner("mine", "default", {"desiredNumberScheduled": 2, "numberReady": 0}))
    seen.daemon_sets[-1]["spec"]["template"]["spec"].clear()
    assert missing(seen, NAMES) == []


def test_the_workloads_of_the_cni_are_waited_for_before_they_exist() -> None:
    seen = usable()
    calico = replace(PLAN, cni=replace(PLAN.cni, name="calico"))
    assert missing(seen, NAMES, readiness.essential(calico, known_parts())) == [
        "calico-node is not installed",
        "calico-kube-controllers is not installed",
    ]
    assert missing(seen, NAMES, readiness.essential(PLAN, known_parts())) == []


def test_a_load_balancer_is_waited_for_where_the_lab_has_one() -> None:
    seen = usable()
    assert missing(seen, NAMES, readiness.essential(replace(PLAN, load_balancer="metallb"), known_parts())) == [
        "metallb-controller is not installed",
        "metallb-speaker is not installed",
    ]
    seen.daemon_sets.append(owner("metallb-speaker", "metallb-system", {"desiredNumberScheduled": 2, "numberReady": 1}))
    seen.deployments.append(owner("metallb-controller", "metallb-system", {"availableReplicas": 0}, replicas=1))
    assert missing(seen, NAMES) == ["metallb-speaker: 1 of 2 ready", "metallb-controller: 0 of 1 ready"]


def test_kube_proxy_is_waited_for_where_no_cni_does_its_work() -> None:
    own = replace(PLAN, cni=CniSpec("cilium", "vxlan"), proxy_mode="cilium")
    assert readiness.essential(own, known_parts()) == ("coredns", "cilium", "cilium-operator")
    assert readiness.essential(replace(own, proxy_mode="iptables"), known_parts())[0] == "kube-proxy"


def test_what_enforces_policies_is_waited_for_where_the_lab_has_it() -> None:
    asked = replace(PLAN, network_policy="kube-network-policies")
    assert missing(usable(), NAMES, readiness.essential(asked, known_parts())) == [
        "kube-network-policies is not installed"
    ]


def test_a_rollout_that_has_not_begun_is_waited_for() -> None:
    seen = usable()
    seen.daemon_sets[0]["metadata"]["generation"] = 2
    assert missing(seen, NAMES) == ["kube-proxy: 2 of 2 ready"]


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (
            {"containerStatuses": [{"name": "coredns", "state": {"waiting": {"reason": "ErrImageNeverPull"}}}]},
            "pod coredns-1 on worker1: coredns ErrImageNeverPull: (no message)",
        ),
        (
            {
                "containerStatuses": [
                    {"name": "coredns", "state": {"terminated": {"reason": "Error", "message": "bad"}}}
                ]
            },
            "pod coredns-1 on worker1: coredns Error: bad",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "no nodes available"}]},
            "pod coredns-1 on worker1: not scheduled: no nodes available",
        ),
        (
            {"containerStatuses": [{"name": "coredns", "state": {"waiting": {"reason": "ContainerCreating"}}}]},
            "pod coredns-1 on worker1: starting",
        ),
        ({"phase": "Running"}, "pod coredns-1 on worker1: running, not ready"),
    ],
)
def test_a_pod_that_is_waited_for_has_its_reason(status: dict[str, Any], why: str) -> None:
    seen = copy.deepcopy(usable())
    seen.deployments[0]["status"]["availableReplicas"] = 1
    seen.pods[0]["status"] = {"phase": "Pending", **status}
    seen.pods.append(pod("other", "coredns", "elsewhere"))
    assert missing(seen, NAMES) == [why]


def test_a_node_row_is_made_from_a_node_object() -> None:
    assert node_row(node("worker1")) == NodeRow(
        "worker1", True, "v1.37.2", "containerd://2.4.2", "192.168.77.20", "10.244.0.0/24"
    )


@contextmanager
def no_api(paths: LabPaths, netns: str) -> Iterator[None]:
    yield


def test_waiting_ends_with_the_last_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = usable()
    seen.nodes.pop()
    monkeypatch.setattr(readiness, "connect", no_api)
    monkeypatch.setattr(readiness, "list_objects", lambda _api: seen)
    with pytest.raises(ClusterError, match="not usable after 0 s: node worker2 has not joined"):
        readiness.wait_usable(PLAN, LabPaths("dev", tmp_path), "", RecordingProgress(), known_parts(), deadline_s=0)


def test_waiting_outlasts_a_silent_api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers: list[Any] = [ClusterError("the API server does not answer: refused"), usable()]

    def list_objects(_api: object) -> ClusterObjects:
        answer = answers.pop(0)
        if isinstance(answer, ClusterError):
            raise answer
        assert isinstance(answer, ClusterObjects)
        return answer

    told = RecordingProgress()
    monkeypatch.setattr(readiness, "connect", no_api)
    monkeypatch.setattr(readiness, "list_objects", list_objects)
    monkeypatch.setattr(readiness, "POLL_S", 0)
    readiness.wait_usable_nodes(NAMES, LabPaths("dev", tmp_path), "", told)
    assert told.tasks == ["the API server does not answer: refused"]


def test_containers_older_than_the_power_cut_do_not_count() -> None:
    def running(name: str, node: str, at: str) -> dict[str, Any]:
        containers = [{"state": {"running": {"startedAt": at}}}]
        return {**pod(name, "a", "kube-system", containerStatuses=containers), "spec": {"nodeName": node}}

    switched_on = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
    pods = [
        running("old", "worker1", "2026-11-23T11:59:00Z"),
        running("new", "worker1", "2026-11-23T12:01:00Z"),
        running("elsewhere", "worker2", "2026-11-23T11:00:00Z"),
        pod("waiting", "a", "kube-system", containerStatuses=[{"state": {"waiting": {}}}]),
    ]
    seen = ClusterObjects([], [], [], pods)
    assert readiness.outdated(seen, {"worker1": switched_on}) == ["pod old on worker1: not started again yet"]
    assert readiness.outdated(seen, {}) == []
