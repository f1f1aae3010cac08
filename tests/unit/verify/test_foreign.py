"""A cluster that hoplab did not make under verification: what is created on it, when, and that it is removed."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import cast

import pytest

from hoplab.cluster.api import KubernetesApi
from hoplab.core.errors import ClusterError, HostError, LabError
from hoplab.core.paths import LabPaths
from hoplab.observe import ssh_hosts
from hoplab.observe.facts.api_nodes import API_NODES
from hoplab.observe.recording_format import load
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import external, foreign, foreign_workload, probe, recording, requirements, runner, session, workload
from hoplab.verify.external import ExternalHost
from hoplab.verify.foreign import Target
from hoplab.verify.session import LabSession
from tests.support.foreign_connection import CONFIG, LAB, Clock, FakeApi, FakeHosts, connected
from tests.support.recordings import recording as recorded


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    (tmp_path / "kubeconfig").write_text(CONFIG)
    return tmp_path / "kubeconfig"


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
    doing = ["reading the cluster's nodes ...", "logging in to the nodes ...", "looking at the nodes ..."]
    assert lines[:4] == [*doing, "cluster prod-eu-1, which hoplab did not make"] and "1 Addresses" in lines
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


def test_what_kube_proxy_is_about_to_apply_is_waited_for(monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> None:
    """A look right after an endpoint became ready shows rules without it, which are not wrong but late."""
    connected(monkeypatch, FakeApi(), FakeHosts())
    looks: list[Snapshot] = []

    def settled(seen: Snapshot) -> bool:
        looks.append(seen)
        return len(looks) == 3

    monkeypatch.setattr(session, "settled", settled)
    monkeypatch.setattr(session, "seconds_since_change", lambda *_: 0.0)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with foreign.opened(Target(kubeconfig, Path("config"))) as seen:
        assert seen is looks[2] and seen is not looks[0]


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
