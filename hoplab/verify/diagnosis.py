"""Why a part of a lab does not answer: what the hypervisor, the console, logs and Kubernetes say of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hoplab.cluster.control_plane import HostedControlPlane
from hoplab.cluster.guarded_api import GuardedApi
from hoplab.core.errors import ClusterError, UnavailableError
from hoplab.core.paths import LabPaths
from hoplab.core.wait import Deadline
from hoplab.host import machines
from hoplab.host.console import Console
from hoplab.lab.state import LabSummary
from hoplab.observe.facts.units import LAST_WORDS, LINE
from hoplab.observe.outage import API, ETCD, WORKLOAD, Outage
from hoplab.observe.script import Output
from hoplab.observe.ssh import Hosts, NodeUnreachable
from hoplab.verify import waiting, workload

PODS = 5  # pods of the workload that are explained
SERVER = "kube-apiserver"


@dataclass(frozen=True)
class Component:
    """A program of the control plane."""

    runs: bool | None  # None where that is not known
    lines: tuple[str, ...]  # evidence


class Evidence:
    """What Kubernetes itself and the nodes say of outages, in every cluster."""

    api: GuardedApi

    def of_node(self, name: str, error: NodeUnreachable) -> Outage:
        """Return the outage of a node that did not answer."""
        return Outage(name, error.message, tuple(self.seen_by_kubernetes(name)), error.remedy)

    def seen_by_kubernetes(self, name: str) -> Iterator[str]:
        try:
            status, node = self.api("GET", f"/api/v1/nodes/{name}")
        except UnavailableError:
            return
        if status != 200:
            yield "Kubernetes has no such node"
        elif why := waiting.not_ready(node):
            yield f"for Kubernetes it is not Ready: {why}"
        else:
            yield "for Kubernetes it is Ready"

    # The control plane

    @property
    def control_plane_remedy(self) -> str:
        """Return how to mend an API server or etcd that does not run."""
        return self.api.remedy

    def component(self, name: str, hosts: Hosts, deadline: Deadline) -> Component:
        """Return whether a program of the control plane runs, with the last lines of its log."""
        raise NotImplementedError

    def of_api(self, hosts: Hosts, deadline: Deadline) -> tuple[Outage, ...]:
        """Return the outages of etcd and the API server, with the last lines of their logs."""
        etcd, server = self.component(ETCD, hosts, deadline), self.component(SERVER, hosts, deadline)
        remedy = self.control_plane_remedy
        if self.api.etcd_lost:
            problem = "etcd does not answer: the API server says so, and serves reads from its cache at most"
            return (Outage(ETCD, problem, (*self.api.failing, self.api.problem, *etcd.lines), remedy),)
        lost = Outage(API, self.api.problem, (*self.api.failing, *server.lines), remedy)
        if etcd.runs is False:
            return Outage(ETCD, "etcd does not run", etcd.lines, remedy), lost
        return (lost,)

    # The verification workload

    def of_workload(self, error: ClusterError) -> Outage:
        """Return the outage of the workload: of each pod that is not ready, why, with its last event and log."""
        evidence: list[str] = []
        try:
            _, pods = self.api("GET", f"/api/v1/namespaces/{workload.NAMESPACE}/pods")
            unready = [pod for pod in pods.get("items", ()) if not waiting.is_ready(pod)]
            for pod in unready[:PODS]:
                evidence += self._of_pod(pod)
            if len(unready) > PODS:
                evidence.append(f"and {len(unready) - PODS} more pods that are not ready")
        except UnavailableError as lost:
            evidence.append(lost.message)
        return Outage(WORKLOAD, error.message, tuple(shortened(evidence)), error.remedy)

    def _of_pod(self, pod: dict[str, Any]) -> Iterator[str]:
        name = pod["metadata"]["name"]
        where = pod.get("spec", {}).get("nodeName")
        yield f"{name} on {where or 'no node'}: {waiting.why_waiting(pod) or 'no reason given'}"
        for container in pod.get("status", {}).get("containerStatuses", ()):
            ended = container.get("lastState", {}).get("terminated") or container.get("state", {}).get("terminated")
            if ended:
                code, said = ended.get("exitCode"), ended.get("message") or self._log(name) or "no message"
                yield f"  its container ended with {code} ({ended.get('reason')}): {said}"
        selector = f"fieldSelector=involvedObject.name%3D{name}"
        _, events = self.api("GET", f"/api/v1/namespaces/{workload.NAMESPACE}/events?{selector}")
        if found := events.get("items"):
            last = max(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
            yield f"  its last event: {last.get('reason')}: {last.get('message')}"

    def _log(self, pod: str) -> str:
        path = f"/api/v1/namespaces/{workload.NAMESPACE}/pods/{pod}/log?previous=true&tailLines=1"
        status, found = self.api("GET", path)
        return str(found.get("message", "")).strip() if status == 200 else ""


@dataclass(frozen=True)
class Diagnosis(Evidence):
    """The sources of evidence of one lab."""

    lab: LabSummary
    paths: LabPaths
    api: GuardedApi

    def of_node(self, name: str, error: NodeUnreachable) -> Outage:
        """Return the outage of a node that did not answer, with its machine's state and its console's last lines."""
        state = machines.domain_state(self.lab.libvirt_uri, machines.domain_name(self.lab.id, name))
        evidence = [f"its machine is {state}" if state else "libvirt does not answer", *self.seen_by_kubernetes(name)]
        log = self.paths.console / f"{name}.log"
        console = Console(log)
        if console.read() and (words := [line for line in console.last_words() if line.strip()]):
            crashed = console.crash()
            evidence += [f"its console, {log}, ends with:", *shortened(words if crashed else words[-LAST_WORDS:])]
        remedy = error.remedy if state in ("running", "") else f"./lab start --lab {self.paths.lab}"
        return Outage(name, error.message, tuple(evidence), remedy)

    @property
    def control_plane_remedy(self) -> str:
        return f"./lab status --lab {self.paths.lab}; ./lab start --lab {self.paths.lab} starts what does not run"

    def component(self, name: str, hosts: Hosts, deadline: Deadline) -> Component:
        if self.lab.hosted:
            hosted = HostedControlPlane(self.paths, self.lab.netns)
            state, words = hosted.states().get(name, "not started"), hosted.last_words(name)
            log = f"its log, {hosted.root}/log/{name}.log, ends with:"
            return Component(
                state == "RUNNING",
                (f"{name} is {state}, says supervisord", *((log, *shortened(words)) if words else ())),
            )
        homes = [node.name for node in self.lab.nodes if node.role == "control-plane"]
        for home in homes:
            if home in hosts.names:
                try:
                    found = hosts.batch(home, static_pod(name), deadline=deadline)
                except NodeUnreachable as error:
                    return Component(None, (error.message,))
                return Component(found["process"].code == 0, tuple(of_static_pod(name, home, found)))
        return Component(None, tuple(f"{home}, where it runs, could not be looked at" for home in homes))


def static_pod(name: str) -> dict[str, str]:
    """Return the commands that look at a static pod of the control plane, on its node."""
    return {
        "manifest": f"ls /etc/kubernetes/manifests/{name}.yaml",
        "process": f"pidof {name}",
        "log": f"tail -n {LAST_WORDS} $(ls -t /var/log/pods/kube-system_{name}-*/{name}/*.log | head -n 1) </dev/null",
    }


def of_static_pod(name: str, home: str, found: dict[str, Output]) -> Iterator[str]:
    if found["manifest"].code:
        yield f"{home} has no manifest of {name} in /etc/kubernetes/manifests"
    yield f"{name} {'does not run' if found['process'].code else 'runs'} on {home}"
    if words := found["log"].out.splitlines():
        yield f"its log on {home} ends with:"
        yield from shortened(line.split(" ", 3)[-1] for line in words)  # the CRI's time, stream and tag come first


def shortened(lines: Iterable[str]) -> list[str]:
    """Return lines without their ends, where they are longer than LINE characters."""
    return [line if len(line) <= LINE else f"{line[:LINE]}..." for line in lines]
