"""A badly hurt cluster that hoplab did not make: what does not answer is named, what does is checked."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from hoplab.cluster.api import ApiUnreachable
from hoplab.cluster.guarded_api import GuardedApi
from hoplab.core.errors import ClusterError, UnavailableError
from hoplab.core.paths import LabPaths
from hoplab.core.wait import Deadline
from hoplab.observe.outage import WORKLOAD
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.observe.ssh_hosts import HostUnreachable
from hoplab.verify import foreign, foreign_workload, runner
from hoplab.verify.foreign import Target
from hoplab.verify.foreign_diagnosis import ForeignDiagnosis
from hoplab.verify.session import LabSession
from tests.support.foreign_connection import CONFIG, Clock, FakeApi, FakeHosts, connected


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    (tmp_path / "kubeconfig").write_text(CONFIG)
    return tmp_path / "kubeconfig"


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
