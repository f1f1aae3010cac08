"""A cluster that hoplab did not make, without one: its API and its nodes answer with what was recorded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from hoplab.cluster.api import KubernetesApi
from hoplab.core.wait import Deadline, Timing
from hoplab.observe.facts import discover as facts_of
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import Hosts, NodeUnreachable
from hoplab.observe.ssh_hosts import HostUnreachable
from hoplab.verify import foreign, foreign_workload
from hoplab.verify.documents import PATHS
from hoplab.verify.foreign import Target
from tests.support.foreign_clusters import documents_of, renamed, without_workload
from tests.support.kubeconfigs import kubeconfig
from tests.support.recordings import recording as recorded

LAB = renamed(without_workload(recorded("flannel-vxlan")))
CONFIG = kubeconfig("https://127.0.0.1:9")


class Clock:
    """Time passes only in pauses."""

    def __init__(self) -> None:
        self.now = 0.0

    def timing(self) -> Timing:
        def pause(seconds: float) -> None:
            self.now += seconds

        return Timing(lambda: self.now, pause, lambda: 1.0)


class FakeApi:
    """The API of a cluster: what its facts and documents are read from, and a namespace that can be made in it."""

    remedy = "kubectl get nodes shows why not"

    def within(self, _timeout_s: float) -> FakeApi:
        return self

    def __init__(self, **answers: Output) -> None:
        documents = {**documents_of(recorded("flannel-vxlan")), **answers}
        self.texts = {PATHS[name]: output for name, output in documents.items() if name in PATHS}
        known = {**LAB.api.outputs, **answers}
        facts = facts_of("api")
        self.texts |= {fact.command: known[fact.name] for fact in facts if fact.name in known}
        for fact in facts:  # several can share an answer
            self.texts.setdefault(fact.command, Output(0, '{"items": []}'))
        self.namespace: dict[str, Any] | None = None
        self.made: list[dict[str, Any]] = []
        self.refuse = ""
        self.ready = True
        self.stays = False
        self.log: list[str] = []

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        if output := self.texts.get(path):
            return output.code or 200, output.out or output.err
        status, found = self(method, path, body)
        return status, json.dumps(found)

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        if method != "GET":
            self.log.append(f"{method} {path}")
        if output := self.texts.get(path):
            return output.code or 200, json.loads(output.out) if output.out else {"message": output.err}
        if method == "POST" and body:
            if body["kind"] == self.refuse:
                return 403, {"message": "not you"}
            if body["kind"] == "Namespace":
                self.namespace = body
            self.made.append(body)
            return 201, body
        if method == "DELETE":
            if self.namespace is None:
                return 404, {}
            if self.refuse == "DELETE":
                return 403, {"message": "not you"}
            self.namespace = self.namespace if self.stays else None
            return 200, {}
        if path == foreign_workload.CORE:
            return (200, self.namespace) if self.namespace else (404, {})
        if "pods?" in path:
            waiting = {"reason": "ErrImagePull", "message": "no such image"}
            return 200, {
                "items": [
                    {"metadata": {"name": "echo-x"}, "status": {"containerStatuses": [{"state": {"waiting": waiting}}]}}
                ]
            }
        if path.startswith(foreign_workload.APPS):
            ready = 2 if self.ready else 0
            return 200, {
                "status": {
                    "observedGeneration": 1,
                    "desiredNumberScheduled": 2,
                    "numberReady": ready,
                    "replicas": 2,
                    "readyReplicas": ready,
                }
            }
        return 404, {}


class FakeHosts:
    """Nodes that answer with what was recorded of them; other commands succeed unless they are lacking."""

    def __init__(
        self, lab: Snapshot = LAB, lacking: tuple[str, ...] = (), names: Iterable[str] = (), lost: Iterable[str] = ()
    ) -> None:
        self.lab, self.lacking, self.lost = lab, lacking, tuple(lost)
        self.names = tuple(names) or tuple(lab.node_facts)

    def only(self, names: Iterable[str]) -> FakeHosts:
        return FakeHosts(self.lab, self.lacking, names, self.lost)

    def answers(
        self, commands: Mapping[str, str], *, in_pods: Mapping[str, str], deadline: Deadline
    ) -> dict[str, dict[str, Output] | NodeUnreachable]:
        assert deadline.seconds > 0
        return {
            name: NodeUnreachable(f"{name} is off", remedy=f"ssh -v {name}")
            if name in self.lost
            else self._batch(name, commands, in_pods)
            for name in self.names
        }

    def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]:
        return {name: self._batch(name, commands, in_pods) for name in self.names}

    def _batch(self, name: str, commands: Mapping[str, str], in_pods: Mapping[str, str]) -> dict[str, Output]:
        known = self.lab.node_facts[name].outputs
        younger = {fact.name for fact in facts_of("node")} - known.keys()
        wanted = [key for key in commands if key not in younger]
        found = {key: known.get(key, Output(1 if key in self.lacking else 0, "")) for key in wanted}
        for netns, facts in self.lab.netns_facts[name].items():
            found |= {f"{netns}/{key}": facts.outputs[key] for key in in_pods if key in facts.outputs}
        return found


def connected(
    monkeypatch: pytest.MonkeyPatch,
    api: FakeApi,
    hosts: FakeHosts,
    lost: dict[str, HostUnreachable] | None = None,
) -> None:
    @contextmanager
    def connect(_kubeconfig: Path, *, timeout_s: float) -> Iterator[KubernetesApi]:
        yield cast(KubernetesApi, api)

    @contextmanager
    def reached(_target: Target, _nodes: object) -> Iterator[tuple[Hosts, dict[str, HostUnreachable]]]:
        yield cast(Hosts, hosts), lost or {}

    monkeypatch.setattr(foreign, "connect_by_kubeconfig", connect)
    monkeypatch.setattr(foreign, "_reached", reached)
