"""Why a part of a lab does not answer: the sentences that verify begins with, for each kind of hurt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import libvirt
import pytest

from hoplab.cluster.api import ApiUnreachable
from hoplab.cluster.guarded_api import GuardedApi
from hoplab.core.wait import HOST
from hoplab.host import machines
from hoplab.lab.state import NodeState
from hoplab.observe.facts.units import LINE
from hoplab.observe.outage import API, ETCD, WORKLOAD
from hoplab.observe.script import Output
from hoplab.observe.ssh import Hosts, NodeUnreachable
from hoplab.verify import workload
from hoplab.verify.diagnosis import Diagnosis, shortened, static_pod
from tests.support.labs import MADE, ShortRun

DEADLINE = HOST.deadline(30)
REFUSED = NodeUnreachable("worker2 can't be reached over SSH: Connection refused", remedy="ssh -v worker2")
PODS = f"/api/v1/namespaces/{workload.NAMESPACE}/pods"


@dataclass
class Kubernetes:
    """The API: objects by path, or no answer."""

    objects: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    failing: tuple[str, ...] = ()
    etcd_lost: bool = False

    def __call__(self, _method: str, path: str) -> tuple[int, Any]:
        if self.problem:
            raise ApiUnreachable(self.problem)
        found = self.objects.get(path.split("?", maxsplit=1)[0])
        return (404, {}) if found is None else (200, found)


@dataclass
class Nodes:
    """Control planes whose static pods are in this state."""

    names: tuple[str, ...] = ("cp1",)
    running: tuple[str, ...] = ()
    manifests: bool = True
    lost: bool = False

    def batch(self, name: str, commands: Mapping[str, str], *, deadline: object) -> dict[str, Output]:
        assert name == "cp1" and deadline is DEADLINE
        if self.lost:
            raise NodeUnreachable("cp1 can't be reached over SSH: timed out")
        component = commands["process"].split()[-1]
        log = f"2026-11-28T19:00:00.1Z stderr F {component} says: no space left\n"
        return {
            "manifest": Output(0 if self.manifests else 2, ""),
            "process": Output(0 if component in self.running else 1, ""),
            "log": Output(0, log),
        }


@pytest.fixture
def paths(tmp_path: Path) -> ShortRun:
    return ShortRun("dev", tmp_path)


@pytest.fixture(autouse=True)
def states(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found = {machines.domain_name(MADE.id, "worker2"): "running"}
    monkeypatch.setattr(machines, "domain_states", lambda _uri: found)
    return found


def diagnosis(paths: ShortRun, kubernetes: Kubernetes | None = None, placement: Any = "vm") -> Diagnosis:
    nodes = (NodeState("cp1", "control-plane", "192.0.2.10", ""), NodeState("worker2", "worker", "192.0.2.12", ""))
    lab = replace(MADE, placement=placement, nodes=nodes)
    return Diagnosis(lab, paths, cast("GuardedApi", kubernetes or Kubernetes()))


def node(ready: str, message: str = "") -> dict[str, Any]:
    return {"status": {"conditions": [{"type": "Ready", "status": ready, "message": message}]}}


# Nodes


def test_a_node_that_refuses_is_shown_with_machine_kubernetes_and_console(paths: ShortRun) -> None:
    paths.console.mkdir(parents=True)
    console = paths.console / "worker2.log"
    console.write_text("Linux version 6.12\n" + "".join(f"line {number}\n\n" for number in range(20)))
    kubernetes = Kubernetes({"/api/v1/nodes/worker2": node("Unknown", "Kubelet stopped posting node status.")})
    outage = diagnosis(paths, kubernetes).of_node("worker2", REFUSED)
    assert (outage.place, outage.problem, outage.remedy) == ("worker2", REFUSED.message, "ssh -v worker2")
    assert outage.evidence[:3] == (
        "its machine is running",
        "for Kubernetes it is not Ready: Kubelet stopped posting node status.",
        f"its console, {console}, ends with:",
    )
    assert outage.evidence[-1] == "line 19" and len(outage.evidence) <= 8


def test_a_crashed_node_shows_its_panic(paths: ShortRun) -> None:
    paths.console.mkdir(parents=True)
    (paths.console / "worker2.log").write_text("ok\nKernel panic - not syncing: Fatal exception\ntrace\n")
    outage = diagnosis(paths, Kubernetes({"/api/v1/nodes/worker2": node("True")})).of_node("worker2", REFUSED)
    assert outage.evidence[1] == "for Kubernetes it is Ready"
    assert outage.evidence[-2:] == ("Kernel panic - not syncing: Fatal exception", "trace")


@pytest.mark.parametrize("state", ["shut off", "paused", ""])
def test_a_machine_that_is_off_is_to_be_started(paths: ShortRun, states: dict[str, str], state: str) -> None:
    name = machines.domain_name(MADE.id, "worker2")
    states.pop(name)
    if state:
        states[name] = state
    outage = diagnosis(paths).of_node("worker2", REFUSED)
    assert outage.evidence == (f"its machine is {state or 'absent'}", "Kubernetes has no such node")
    assert outage.remedy == "./lab start --lab dev"


def test_a_libvirt_or_an_api_that_does_not_answer_loses_nothing_else(
    paths: ShortRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_uri: str) -> None:
        raise libvirt.libvirtError("no socket")

    monkeypatch.setattr(machines, "domain_states", fail)
    assert machines.domain_state("", "x") == ""
    outage = diagnosis(paths, Kubernetes(problem="no answer")).of_node("worker2", REFUSED)
    assert outage.evidence == ("libvirt does not answer",) and outage.remedy == "ssh -v worker2"


# The control plane


def test_an_api_server_that_is_down_says_its_last_words(paths: ShortRun) -> None:
    found = diagnosis(paths, Kubernetes(problem="the API server does not answer GET /x: refused"))
    (outage,) = found.of_api(cast("Hosts", Nodes(running=("etcd",))), DEADLINE)
    assert (outage.place, outage.problem) == (API, "the API server does not answer GET /x: refused")
    assert outage.evidence == (
        "kube-apiserver does not run on cp1",
        "its log on cp1 ends with:",
        "kube-apiserver says: no space left",
    )
    assert "./lab start --lab dev" in outage.remedy


def test_an_etcd_that_does_not_run_comes_before_the_api_server(paths: ShortRun) -> None:
    found = diagnosis(paths, Kubernetes(problem="no answer"))
    etcd, api = found.of_api(cast("Hosts", Nodes(manifests=False)), DEADLINE)
    assert (etcd.place, etcd.problem, api.place) == (ETCD, "etcd does not run", API)
    assert etcd.evidence[0] == "cp1 has no manifest of etcd in /etc/kubernetes/manifests"
    assert etcd.evidence[-1] == "etcd says: no space left"


def test_an_etcd_that_the_api_server_misses_is_the_only_outage(paths: ShortRun) -> None:
    kubernetes = Kubernetes(problem="answers with 500", failing=("[-]etcd failed",), etcd_lost=True)
    (outage,) = diagnosis(paths, kubernetes).of_api(cast("Hosts", Nodes(running=("etcd",))), DEADLINE)
    assert outage.place == ETCD and outage.problem.startswith("etcd does not answer: the API server says so")
    assert outage.evidence[:3] == ("[-]etcd failed", "answers with 500", "etcd runs on cp1")


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        (Nodes(lost=True), "cp1 can't be reached over SSH: timed out"),
        (Nodes(names=()), "cp1, where it runs, could not be looked at"),
    ],
)
def test_a_control_plane_that_cannot_be_reached_is_said(paths: ShortRun, nodes: Nodes, says: str) -> None:
    (outage,) = diagnosis(paths, Kubernetes(problem="no answer")).of_api(cast("Hosts", nodes), DEADLINE)
    assert outage.place == API and outage.evidence == (says,)


def test_a_hosted_control_plane_is_read_from_its_logs(paths: ShortRun) -> None:
    logs = paths.control_plane / "log"
    logs.mkdir(parents=True)
    (logs / "etcd.log").write_text("".join(f"etcd line {number}\n" for number in range(9)))
    found = diagnosis(paths, Kubernetes(problem="no answer"), placement="hosted")
    etcd, api = found.of_api(cast("Hosts", Nodes()), DEADLINE)
    assert etcd.evidence[:2] == (
        "etcd is not started, says supervisord",
        f"its log, {logs}/etcd.log, ends with:",
    )
    assert etcd.evidence[-1] == "etcd line 8" and len(etcd.evidence) == 7
    assert api.evidence == ("kube-apiserver is not started, says supervisord",)


def test_static_pods_are_looked_at_by_their_files() -> None:
    commands = static_pod("etcd")
    assert "/var/log/pods/kube-system_etcd-*/etcd/*.log" in commands["log"] and commands["process"] == "pidof etcd"


# The verification workload


def test_pods_that_do_not_start_say_why(paths: ShortRun) -> None:
    ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    crashing = {
        "metadata": {"name": "echo-x"},
        "spec": {"nodeName": "worker2"},
        "status": {"containerStatuses": [{"state": waiting, "lastState": ended}]},
    }
    pending = {
        "metadata": {"name": "single-y"},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}]},
    }
    well = {"metadata": {"name": "echo-z"}, **node("True")}
    events = [
        {"reason": "Pulled", "message": "already present", "lastTimestamp": "2026-11-28T19:00:00Z"},
        {"reason": "BackOff", "message": "restarting failed container", "lastTimestamp": "2026-11-28T19:01:00Z"},
    ]
    kubernetes = Kubernetes(
        {
            PODS: {"items": [crashing, pending, well]},
            f"{PODS}/echo-x/log": {"message": "listen: address in use\n"},
            PODS.replace("pods", "events"): {"items": events},
        }
    )
    error = workload.WorkloadNotReady("1 of 2 pods of echo are ready", 90)
    outage = diagnosis(paths, kubernetes).of_workload(error)
    assert outage.place == WORKLOAD and "not ready after 90 s: 1 of 2 pods of echo" in outage.problem
    assert outage.evidence == (
        "echo-x on worker2: CrashLoopBackOff back-off 10s",
        "  its container ended with 1 (Error): listen: address in use",
        "  its last event: BackOff: restarting failed container",
        "single-y on no node: 0/2 nodes are available",
        "  its last event: BackOff: restarting failed container",
    )
    assert "describe pods" in outage.remedy


def test_many_pods_are_counted_and_a_lost_api_is_said(paths: ShortRun) -> None:
    pods = [{"metadata": {"name": f"p{number}"}, "status": {}} for number in range(7)]
    error = workload.WorkloadNotReady("no pods", 90)
    outage = diagnosis(paths, Kubernetes({PODS: {"items": pods}})).of_workload(error)
    assert outage.evidence[0] == "p0 on no node: no reason given"
    assert outage.evidence[-1] == "and 2 more pods that are not ready"
    lost = diagnosis(paths, Kubernetes(problem="no answer")).of_workload(error)
    assert lost.evidence == ("no answer",)


def test_long_lines_are_shortened() -> None:
    assert shortened(["x" * (LINE + 1), "y"]) == ["x" * LINE + "...", "y"]
