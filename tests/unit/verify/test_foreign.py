"""A cluster that hoplab did not make under verification: what is created on it, when, and that it is removed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest

from hoplab.cluster.api import ApiUnreachable, KubernetesApi
from hoplab.cluster.guarded_api import GuardedApi
from hoplab.core.errors import ClusterError, HostError, LabError, UnavailableError
from hoplab.core.paths import LabPaths
from hoplab.core.wait import Deadline, Timing
from hoplab.observe import ssh_hosts
from hoplab.observe.facts import discover as facts_of
from hoplab.observe.facts.api_nodes import API_NODES
from hoplab.observe.outage import WORKLOAD
from hoplab.observe.recording_format import load
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import Hosts, NodeUnreachable
from hoplab.observe.ssh_hosts import HostUnreachable
from hoplab.verify import external, foreign, foreign_workload, probe, recording, requirements, runner, workload
from hoplab.verify.documents import PATHS
from hoplab.verify.external import ExternalHost
from hoplab.verify.foreign import Target
from hoplab.verify.foreign_diagnosis import ForeignDiagnosis
from hoplab.verify.session import LabSession
from tests.support.foreign_clusters import documents_of, renamed, without_workload
from tests.support.recordings import recording as recorded

LAB = renamed(without_workload(recorded("flannel-vxlan")))
CONFIG = """
apiVersion: v1
kind: Config
current-context: mine
contexts: [{name: mine, context: {cluster: "prod/eu 1", user: me}}]
clusters: [{name: "prod/eu 1", cluster: {server: "https://127.0.0.1:9"}}]
users: [{name: me, user: {token: x}}]
"""


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


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    (tmp_path / "kubeconfig").write_text(CONFIG)
    return tmp_path / "kubeconfig"


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


def test_a_look_changes_nothing(monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> None:
    api, shown = FakeApi(), list[str]()
    connected(monkeypatch, api, FakeHosts())
    with foreign.opened(Target(kubeconfig, Path("config")), show=shown.append) as seen:
        assert isinstance(seen, Snapshot) and seen.setting.foreign
        assert seen.setting.lab == "prod-eu-1" and seen.setting.cni == "flannel"
        assert seen.versions == {"kubernetes": "1.37.2"}
    assert api.log == [] and "cluster prod-eu-1, which hoplab did not make" in shown[0]


def test_verify_shows_first_what_it_found_and_ends_with_claims(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: Path
) -> None:
    connected(monkeypatch, FakeApi(), FakeHosts())
    out = io.StringIO()
    code = runner.run(LabPaths("dev"), target=Target(kubeconfig, Path("config")), out=out)
    lines = out.getvalue().splitlines()
    assert code == 0, out.getvalue()
    assert lines[0] == "cluster prod-eu-1, which hoplab did not make" and "1 Addresses" in lines
    assert f"      skipped: {requirements.TRAFFIC}" in lines


def test_a_recording_of_it_is_one_of_a_foreign_cluster(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: Path, tmp_path: Path
) -> None:
    api = FakeApi()
    connected(monkeypatch, api, FakeHosts())
    made, found = recording.record_cluster(Target(kubeconfig, Path("config")), tmp_path / "it.json")
    assert load(made.file).setting == made.snapshot.setting and load(made.file).setting.uplinks
    assert api.log == [] and "10.9.8.20 on ens3" in found
    assert runner.run(LabPaths("dev"), recording=made.file, out=io.StringIO()) == 0
    monkeypatch.chdir(tmp_path)
    made, _ = recording.record_cluster(Target(kubeconfig, Path("config")))
    assert made.file.name.startswith("prod-eu-1-20")


def test_with_traffic_pods_are_made_and_removed(monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> None:
    api = FakeApi()
    connected(monkeypatch, api, FakeHosts())
    target = Target(kubeconfig, Path("config"), traffic=True, probe_image="mirror.example/agnhost:2")
    with pytest.raises(KeyboardInterrupt), foreign.opened(target) as lab:
        assert isinstance(lab, LabSession) and lab.probe.paths and not lab.outside
        kinds = [body["kind"] for body in api.made]
        assert kinds == ["Namespace", "DaemonSet", "Deployment", *["Service"] * 5]
        containers = [body["spec"]["template"]["spec"]["containers"][0] for body in api.made[1:3]]
        assert {container["image"] for container in containers} == {"mirror.example/agnhost:2"}
        assert not any(body["spec"].get("type") == "LoadBalancer" for body in api.made[1:])
        raise KeyboardInterrupt
    assert api.namespace is None and api.log[-1] == f"DELETE {foreign_workload.CORE}"


def test_a_machine_in_the_nodes_network_is_the_client_outside(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: Path
) -> None:
    api, address = FakeApi(), IPv4Address("10.9.8.1")
    connected(monkeypatch, api, FakeHosts())

    @contextmanager
    def serving(at: IPv4Address, namespace: str) -> Iterator[ExternalHost]:
        yield ExternalHost(at, 8000, namespace, {})

    monkeypatch.setattr(foreign, "own_address", lambda _node: address)
    monkeypatch.setattr(external, "serving", serving)
    with foreign.opened(Target(kubeconfig, Path("config"), traffic=True)) as lab:
        assert isinstance(lab, LabSession) and lab.outside
        assert lab.snapshot.setting.gateway == lab.external.address == address
        assert lab.look().setting.gateway == address


def test_hosts_without_tools(monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> None:
    api = FakeApi()
    connected(monkeypatch, api, FakeHosts(lacking=("tcpdump", "dig")))
    with (
        pytest.raises(HostError, match=r"node alpha\.example lacks tcpdump, dig") as caught,
        foreign.opened(Target(kubeconfig, Path("config"), traffic=True)),
    ):
        pass
    assert "--traffic" in caught.value.remedy and api.log == []


def test_no_nodes_and_no_rights(kubeconfig: Path) -> None:
    def refused(**answers: Output) -> LabError:
        with pytest.raises(ClusterError) as caught:
            foreign.list_nodes(cast(KubernetesApi, FakeApi(**answers)), kubeconfig)
        assert caught.value.remedy
        return caught.value

    assert refused(nodes=Output(0, '{"items": []}')).message == f"the cluster of {kubeconfig} has no nodes"
    error = refused(nodes=Output(403, "", "nodes is forbidden"))
    assert error.message == "the API server answers /api/v1/nodes with 403: nodes is forbidden"
    assert "has to be allowed to list nodes" in error.remedy


def test_no_rights_to_list_pods(monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> None:
    connected(monkeypatch, FakeApi(pods=Output(403, "", "pods is forbidden")), FakeHosts())
    with (
        pytest.raises(ClusterError, match="answers /api/v1/pods with 403: pods is forbidden"),
        foreign.opened(Target(kubeconfig, Path("config"))),
    ):
        pass


def test_nodes_are_reached_by_the_users_own_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host alpha\nHost two\n  HostName 10.9.8.21\n")
    monkeypatch.setattr(ssh_hosts, "roots", lambda aliases, *_: frozenset(aliases))
    with foreign._reached(Target(tmp_path, config), LAB.api[API_NODES]) as (hosts, lost):
        assert not lost
        assert hosts.names == ("alpha.example", "beta.example")
        assert hosts["beta.example"].backend.hostname == "two"
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("alpha\ntwo ansible_host=10.9.8.21\n")
    with foreign._reached(Target(tmp_path, None, inventory), LAB.api[API_NODES]) as (hosts, _):
        assert hosts["beta.example"].backend.hostname == "two"


def test_the_address_of_this_machine() -> None:
    assert foreign.own_address(IPv4Address("127.0.0.1")) == IPv4Address("127.0.0.1")


def test_servers_are_the_pods_of_the_workload() -> None:
    servers = foreign.servers_of(recorded("flannel-vxlan"))()
    assert servers and all(name.startswith(("echo", "single", "app")) for name in servers)
    assert {server.node for server in servers.values()} == {"worker1", "worker2"}


def test_rules_that_are_not_known_are_not_waited_for() -> None:
    lab = recorded("flannel-vxlan")
    assert foreign.applied(replace(lab, setting=replace(lab.setting, proxy_mode="ipvs")))


# Outages


def test_a_node_that_is_lost_is_named_first_and_what_can_be_checked_is(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: Path
) -> None:
    lost = {"beta.example": HostUnreachable("node beta.example can't be reached over SSH: timeout", remedy="ssh -v it")}
    connected(monkeypatch, FakeApi(), FakeHosts(names=("alpha.example",)), lost)
    out = io.StringIO()
    assert runner.run(LabPaths("dev"), target=Target(kubeconfig, Path("config")), only="addresses", out=out) == 1
    text = out.getvalue()
    assert "node beta.example   10.9.8.21 which could not be looked at" in text
    assert "✗ node beta.example can't be reached over SSH: timeout" in text and "-> ssh -v it" in text
    assert "1 outage" in text and " 0 fail" in text and "; not looked at: beta.example" in text


def test_one_that_is_lost_during_the_look_is_so_too(monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> None:
    connected(monkeypatch, FakeApi(), FakeHosts(lost=("beta.example",)))
    with foreign.opened(Target(kubeconfig, Path("config"))) as seen:
        assert isinstance(seen, Snapshot) and seen.lost_nodes == ("beta.example",)
        (outage,) = seen.outages
        assert (outage.problem, outage.remedy) == ("beta.example is off", "ssh -v beta.example")


def test_an_api_server_that_stops_answering_is_an_error_that_names_the_kubeconfig(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: Path
) -> None:
    api = FakeApi()
    connected(monkeypatch, api, FakeHosts())
    answer = api.request

    def request(method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        if path in ("/api/v1/pods", "/readyz?verbose"):
            raise ApiUnreachable("the API server does not answer", remedy=api.remedy)
        return answer(method, path, body)

    monkeypatch.setattr(api, "request", request)
    with (
        pytest.raises(ClusterError, match="the API server does not answer") as caught,
        foreign.opened(Target(kubeconfig, Path("config"))),
    ):
        pass
    assert caught.value.remedy == api.remedy


def test_pods_that_do_not_start_are_an_outage_of_the_workload(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: Path
) -> None:
    api = FakeApi()
    api.ready = False
    connected(monkeypatch, api, FakeHosts())
    running = foreign_workload.running
    monkeypatch.setattr(foreign_workload, "running", lambda *words: running(*words, timing=Clock().timing()))
    with foreign.opened(Target(kubeconfig, Path("config"), traffic=True)) as lab:
        assert isinstance(lab, LabSession)
        outage = lab.snapshot.outage(WORKLOAD)
        assert outage and "not ready after 120 s: 0 of 2 pods of echo are ready" in outage.problem
        assert "--probe-image" in outage.remedy
        with pytest.raises(UnavailableError, match="not every node has a pod `echo`"):
            _ = lab.echo_pods
    assert api.namespace is None


class Tried(FakeHosts):
    """Nodes on which one command of a batch each ends as is said."""

    def __init__(self, **codes: int) -> None:
        super().__init__(names=("alpha.example",))
        self.codes = codes

    def batch(self, _name: str, commands: Mapping[str, str], *, deadline: Deadline) -> dict[str, Output]:
        assert deadline.seconds
        return {key: Output(self.codes.get(key, 0), "t stderr F bye\n" if key == "log" else "") for key in commands}


@pytest.mark.parametrize(
    ("codes", "runs", "says"),
    [
        ({}, True, "kube-apiserver runs on alpha.example"),
        ({"process": 1}, False, "kube-apiserver does not run on alpha.example"),
        ({"manifest": 1, "process": 1}, None, ""),
    ],
)
def test_a_control_plane_is_looked_at_where_it_is_of_static_pods(
    codes: dict[str, int], runs: bool | None, says: str
) -> None:
    diagnosis = ForeignDiagnosis(cast(GuardedApi, FakeApi()), ("gone", "alpha.example"))
    found = diagnosis.component("kube-apiserver", cast(Hosts, Tried(**codes)), Clock().timing().deadline(5))
    assert found.runs is runs and (says in found.lines if says else found.lines == ())


# The workload


def test_pods_that_do_not_start() -> None:
    api = FakeApi()
    api.ready = False
    with (
        pytest.raises(
            ClusterError, match=r"0 of 2 pods of echo are ready; echo-x: ErrImagePull no such image"
        ) as caught,
        foreign_workload.running(api, probe.of_image("x:1"), timing=Clock().timing()),
    ):
        pass
    assert "--probe-image" in caught.value.remedy and api.namespace is None


def test_what_the_user_may_not_create() -> None:
    api = FakeApi()
    api.refuse = "DaemonSet"
    with (
        pytest.raises(ClusterError, match="DaemonSet echo can't be made: not you"),
        foreign_workload.running(api, probe.ECHO, timing=Clock().timing()),
    ):
        pass
    assert api.namespace is None


def test_a_namespace_of_somebody_else_is_not_touched() -> None:
    api = FakeApi()
    api.namespace = {"metadata": {"name": workload.NAMESPACE}}
    with (
        pytest.raises(ClusterError, match="has a namespace hoplab-verify that is not of such a run"),
        foreign_workload.running(api, probe.ECHO, timing=Clock().timing()),
    ):
        pass
    assert api.namespace and api.log == []


def test_what_an_earlier_run_left_is_replaced() -> None:
    api = FakeApi()
    api.namespace = {"metadata": {"labels": {foreign_workload.OWNER: "true"}}}
    with foreign_workload.running(api, probe.ECHO, timing=Clock().timing()):
        assert api.log[:2] == [f"DELETE {foreign_workload.CORE}", f"POST {foreign_workload.NAMESPACES}"]


def test_a_namespace_that_stays() -> None:
    api = FakeApi()
    api.stays = True
    with (
        pytest.raises(ClusterError, match="the namespace hoplab-verify is not gone after 120 s"),
        foreign_workload.running(api, probe.ECHO, timing=Clock().timing()),
    ):
        pass


def test_a_namespace_that_may_not_be_deleted() -> None:
    api = FakeApi()
    with (
        pytest.raises(ClusterError, match="the namespace hoplab-verify can't be removed: not you"),
        foreign_workload.running(api, probe.ECHO, timing=Clock().timing()),
    ):
        api.refuse = "DELETE"
