"""Looks at labs that do not answer in part: what is asked, what is waited for, and what is left out afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from hoplab.cluster.api import ApiUnreachable
from hoplab.core.errors import ClusterError, UnavailableError
from hoplab.core.wait import Deadline, Timing
from hoplab.observe.outage import API, ETCD, WORKLOAD, Outage
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import Hosts, NodeUnreachable
from hoplab.verify import partial, session, waiting, workload
from hoplab.verify.diagnosis import Diagnosis
from hoplab.verify.external import ExternalHost
from hoplab.verify.partial import LEAST, PATIENCE, PartialLook
from hoplab.verify.session import LabSession
from tests.support.hurt import refused, without_api, without_nodes
from tests.support.recordings import recording

LAB = recording("flannel-vxlan")
NO_ANSWER = "the API server does not answer"


class Clock:
    """Time passes only in pauses."""

    def __init__(self) -> None:
        self.now = 0.0

    def timing(self, slowness: float = 1.0) -> Timing:
        return Timing(lambda: self.now, self.pause, lambda: slowness)

    def pause(self, seconds: float) -> None:
        self.now += seconds


class Nodes:
    """The recorded nodes; those in ``lost`` let the whole deadline pass."""

    def __init__(
        self, clock: Clock, names: tuple[str, ...] = ("worker1", "worker2"), lost: tuple[str, ...] = ()
    ) -> None:
        self.clock, self.names, self.lost = clock, names, lost
        self.waits: list[float] = []

    def only(self, names: Any) -> Nodes:
        found = Nodes(self.clock, tuple(names), self.lost)
        found.waits = self.waits
        return found

    def answers(
        self, commands: Mapping[str, str], *, in_pods: Mapping[str, str], deadline: Deadline
    ) -> dict[str, dict[str, Output] | NodeUnreachable]:
        assert "routes" in commands and "routes" in in_pods
        self.waits.append(deadline.left())
        if set(self.names) & set(self.lost):
            self.clock.pause(deadline.left())
        return {
            name: NodeUnreachable(refused(name)) if name in self.lost else dict(LAB.node_facts[name].outputs)
            for name in self.names
        }


class Api:
    """The recorded API, as a guarded one."""

    def __init__(self, problem: str = "", *, etcd_lost: bool = False) -> None:
        self.problem, self.etcd_lost = problem, etcd_lost
        self.cached, self.failing, self.waited = etcd_lost, (), 0.0
        self.texts = {output.out: output for output in LAB.api.outputs.values()}

    def request(self, _method: str, path: str, _body: object = None) -> tuple[int, str]:
        if self.problem and not self.cached:
            raise ApiUnreachable(self.problem)
        return (200, LAB.api.outputs["nodes"].out) if path == "/api/v1/nodes" else (404, "none")


class Explained:
    """A diagnosis that only says what it was asked about."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.asked: list[str] = []

    def of_node(self, name: str, error: NodeUnreachable) -> Outage:
        self.asked.append(name)
        return Outage(name, error.message)

    def of_api(self, _hosts: object, _deadline: Deadline) -> tuple[Outage, ...]:
        place = ETCD if self.api.etcd_lost else API
        self.asked.append(place)
        return (Outage(place, self.api.problem),)

    def of_workload(self, error: ClusterError) -> Outage:
        self.asked.append(WORKLOAD)
        return Outage(WORKLOAD, error.message)


def looking(nodes: Nodes, explained: Explained, timing: Timing) -> PartialLook:
    return PartialLook(LAB.setting, {}, cast("Hosts", nodes), cast("Diagnosis", explained), timing)


def test_a_whole_lab_is_one_round_trip_without_outages() -> None:
    clock = Clock()
    nodes, explained = Nodes(clock), Explained(Api())
    seen = looking(nodes, explained, clock.timing())()
    assert seen.outages == () and seen.api.unavailable == "" and explained.asked == []
    assert list(seen.node_facts) == ["worker1", "worker2"] and nodes.waits == [PATIENCE]


def test_a_lost_node_is_waited_for_once_and_explained_once() -> None:
    clock = Clock()
    nodes, explained = Nodes(clock, lost=("worker2",)), Explained(Api())
    look = looking(nodes, explained, clock.timing())
    seen = look()
    assert [outage.problem for outage in seen.outages] == [refused("worker2")]
    assert seen.lost_nodes == ("worker2",) and look.hosts.names == ("worker1",)
    assert look().outages == seen.outages and explained.asked == ["worker2"]
    assert nodes.waits == [PATIENCE, LEAST] and clock.now <= PATIENCE


def test_the_bound_grows_with_the_slowness_of_the_host() -> None:
    clock = Clock()
    deadline = clock.timing(slowness=3.0).deadline(PATIENCE)
    clock.pause(PATIENCE)
    assert deadline.left() == pytest.approx(2 * PATIENCE)


def test_a_lost_api_leaves_the_facts_of_nodes() -> None:
    clock = Clock()
    explained = Explained(Api(NO_ANSWER))
    seen = looking(Nodes(clock), explained, clock.timing())()
    assert [outage.place for outage in seen.outages] == [API] and seen.api.unavailable == NO_ANSWER
    assert seen.api.outputs == {} and [node.name for node in seen.nodes] == ["worker1", "worker2"]


def test_a_lost_etcd_leaves_what_the_cache_serves() -> None:
    clock = Clock()
    explained = Explained(Api("answers with 500", etcd_lost=True))
    look = looking(Nodes(clock), explained, clock.timing())
    seen = look()
    assert [outage.place for outage in seen.outages] == [ETCD] and seen.api.unavailable == ""
    assert [node.name for node in seen.nodes] == ["worker1", "worker2"]
    look()
    assert explained.asked == [ETCD]


def test_an_api_that_was_late_once_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, api, late = Clock(), Api(), [True, True]

    def request(method: str, path: str, body: object = None) -> tuple[int, str]:
        if late and path == "/api/v1/nodes":
            late.clear()
            raise ApiUnreachable(NO_ANSWER)
        return Api.request(api, method, path, body)

    monkeypatch.setattr(api, "request", request)
    seen = looking(Nodes(clock), Explained(api), clock.timing())()
    assert seen.outages == () and [node.name for node in seen.nodes] == ["worker1", "worker2"]


def test_a_workload_whose_api_was_late_once_is_ensured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def ensure(*_: object, **__: object) -> None:
        asked.append(1)
        if len(asked) == 1:
            raise ApiUnreachable(NO_ANSWER)

    monkeypatch.setattr(workload, "ensure", ensure)
    clock = Clock()
    look = looking(Nodes(clock), Explained(Api()), clock.timing())
    look.ensure_workload(workload.NO_OPTIONS, announced=False)
    assert len(asked) == 2 and look().outages == ()


def ensured(monkeypatch: pytest.MonkeyPatch, error: Exception, api: Api) -> tuple[PartialLook, Explained, Nodes]:
    def ensure(*_: object, stall_s: float, **__: object) -> None:
        assert stall_s == PATIENCE - LEAST
        raise error

    monkeypatch.setattr(workload, "ensure", ensure)
    clock = Clock()
    nodes, explained = Nodes(clock), Explained(api)
    look = looking(nodes, explained, clock.timing())
    look.ensure_workload(workload.NO_OPTIONS, announced=False)
    return look, explained, nodes


def test_pods_that_do_not_start_are_an_outage_and_use_up_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    error = workload.WorkloadNotReady("1 of 2 pods of echo are ready", 90, stalled_s=90)
    look, explained, nodes = ensured(monkeypatch, error, Api())
    assert [outage.place for outage in look().outages] == [WORKLOAD]
    assert explained.asked == [WORKLOAD] and nodes.waits == [LEAST]


def test_a_workload_that_cannot_be_made_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    look, _, _ = ensured(monkeypatch, ClusterError("Namespace can't be made: not you"), Api())
    assert [outage.problem for outage in look().outages] == ["Namespace can't be made: not you"]


def test_a_workload_without_api_is_the_apis_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    look, explained, _ = ensured(monkeypatch, ApiUnreachable(NO_ANSWER), Api(NO_ANSWER))
    assert [outage.place for outage in look().outages] == [API] and explained.asked == [API]


# The wait for the workload


class Pods:
    """An API in which the workload exists and one pod never gets ready."""

    def __init__(self, clock: Clock, ready: str = "True", change_s: float = 1e9) -> None:
        self.clock, self.ready, self.change_s = clock, ready, change_s

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        if path.endswith(f"/namespaces/{workload.NAMESPACE}"):
            return 200, {"metadata": {"labels": {workload.DIGEST: workload.digest()}}}
        if path == "/api/v1/nodes":
            condition = {"type": "Ready", "status": self.ready, "message": "Kubelet stopped posting node status."}
            return 200, {"items": [{"metadata": {"name": "worker2"}, "status": {"conditions": [condition]}}]}
        if path.endswith("/daemonsets/echo"):
            phase = int(self.clock.now // self.change_s)
            return 200, {"status": {"observedGeneration": 1, "desiredNumberScheduled": 9, "numberReady": phase}}
        return 200, {"items": [], "status": {}}


def ensure(pods: Pods, slowness: float = 1.0) -> workload.WorkloadNotReady:
    with pytest.raises(workload.WorkloadNotReady) as caught:
        workload.ensure(pods, timing=pods.clock.timing(slowness), stall_s=90)
    return caught.value


def test_a_wait_without_any_change_ends_before_its_deadline() -> None:
    clock = Clock()
    error = ensure(Pods(clock))
    assert "is not ready after 90 s: 0 of 9 pods of echo are ready" in error.message and error.stalled_s == 90
    assert 90 <= clock.now < 100 < workload.DEADLINE
    assert "describe pods" in error.remedy


def test_a_node_that_is_not_ready_is_not_waited_for() -> None:
    clock = Clock()
    error = ensure(Pods(clock, ready="Unknown"), slowness=2.0)
    assert "worker2 is not Ready: Kubelet stopped posting node status." in error.message
    assert 2 * waiting.NOT_READY_S <= clock.now < 90


def test_a_wait_that_goes_on_has_the_whole_deadline() -> None:
    clock = Clock()
    error = ensure(Pods(clock, change_s=60))
    assert error.stalled_s == 0 and clock.now >= workload.DEADLINE


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, ""),
        ({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Broken"}]}}, "Broken"),
        ({}, "it never reported"),
    ],
)
def test_why_a_node_is_not_ready(node: dict[str, Any], why: str) -> None:
    assert waiting.not_ready(node) == why


# The session


class Changing:
    """An API whose pods have just changed."""

    def read(self, _path: str) -> dict[str, Any]:
        return {"items": []}


@pytest.mark.parametrize(
    "seen",
    [
        without_api(LAB),
        replace(LAB, outages=(Outage(ETCD, "no etcd"),)),
        without_nodes(LAB, "worker1", "worker2"),
    ],
    ids=["api", "etcd", "nodes"],
)
def test_what_cannot_settle_is_not_waited_for(seen: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "settled", lambda _seen: pytest.fail("it was evaluated"))
    look: Callable[[], Snapshot] = lambda: seen  # noqa: E731
    assert session.settled_snapshot(look(), look, cast("Any", Changing()), 1e9) is seen


def test_a_lab_with_outages_settles_within_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = Clock(), list[int]()
    monkeypatch.setattr(session, "settled", lambda _seen: False)
    monkeypatch.setattr(session, "seconds_since_change", lambda *_: 0.0)
    monkeypatch.setattr(time, "sleep", clock.pause)

    def look() -> Snapshot:
        looks.append(1)
        return without_nodes(LAB, "worker2")

    session.settled_snapshot(look(), look, cast("Any", Changing()), 1e9, clock.timing())
    assert partial.PATIENCE <= clock.now <= partial.PATIENCE + 2


def test_the_workload_of_a_hurt_lab_is_unknown_and_not_wrong() -> None:
    hurt = replace(without_nodes(LAB, "worker1", "worker2"), node_facts=LAB.node_facts)
    lab = LabSession(hurt, cast("Hosts", None), cast("ExternalHost", None), cast("Any", None), lambda: hurt)
    for look in (lambda: lab.echo_pods, lambda: lab.single, lambda: lab.controller_pods):
        with pytest.raises(UnavailableError, match="worker1 can't be reached"):
            look()
