"""Recordings: made of a running lab, atomically, with nothing in them that no fact reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hoplab.core.errors import FactError, FileError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.expectations.parts import known_parts
from hoplab.observe.facts import Facts, discover
from hoplab.observe.facts._json import as_read, unread
from hoplab.observe.facts.api_ingress_classes import API_INGRESS_CLASSES
from hoplab.observe.facts.api_ingresses import API_INGRESSES
from hoplab.observe.facts.api_ipam_blocks import API_IPAM_BLOCKS, API_IPAM_BLOCKS6
from hoplab.observe.facts.api_nodes import API_NODES
from hoplab.observe.facts.api_pods import API_PODS
from hoplab.observe.recording_format import load, save
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import recording, session
from tests.support.edited.dns import LOOP, with_dns
from tests.support.edited.ingress_classes import of_classes
from tests.support.edited.tls import certified
from tests.support.recordings import recording as recorded_lab

RECORDED = recorded_lab("flannel-vxlan")
DUAL = recorded_lab("flannel-vxlan-dual")
WITH_CALICO = recorded_lab("calico-bgp")
DUAL_WITH_CALICO = recorded_lab("calico-bgp-dual")
SECRET = "c2VjcmV0LXRva2Vu"
HARMLESS = (
    "/var/log/pods/kube-system_*coredns*/*/*.log",  # its last lines: errors, and names that were asked for
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    *(f"/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/*/{file}" for file in ("hostname", "resolv.conf")),
    *(f"/run/containers/storage/overlay-containers/*/userdata/{file}" for file in ("hostname", "resolv.conf")),
    *(f"/var/lib/docker/containers/*/{file}" for file in ("hostname", "resolv.conf")),
    "/var/lib/kubelet/config.yaml",  # of which the lines from clusterDNS to the next key are kept
    "/run/calico/bird.ctl",
    "/run/cilium/cilium.sock",  # only whether it is there
    "/proc/sys/",
    "/proc/net/",
    "/etc/cni/net.d/*.conf",
    "/etc/cni/net.d/*.json",
    "/var/lib/cni/networks/",
    "/run/netns",
)
MANIFEST = "kubectl.kubernetes.io/last-applied-configuration"

POD: dict[str, Any] = {
    "metadata": {
        "name": "db-0",
        "namespace": "shop",
        "labels": {"app": "db"},
        "annotations": {MANIFEST: f'{{"env": "{SECRET}"}}', "vault/token": SECRET},
        "managedFields": [{"manager": SECRET}],
    },
    "spec": {
        "nodeName": "worker1",
        "containers": [
            {
                "name": "db",
                "image": "db:1",
                "args": [f"--token={SECRET}"],
                "env": [{"name": "PASSWORD", "value": SECRET}],
            }
        ],
        "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": SECRET}}]}}],
    },
    "status": {
        "phase": "Running",
        "podIP": "10.244.1.9",
        "message": SECRET,
        "conditions": [{"type": "Ready", "status": "True", "message": SECRET}, {"type": "Other", "message": SECRET}],
    },
}
NODE: dict[str, Any] = {
    "metadata": {
        "name": "worker1",
        "annotations": {
            MANIFEST: SECRET,
            "flannel.alpha.coreos.com/backend-data": '{"VNI":1}',
            "projectcalico.org/IPv4Address": "192.168.77.20/24",
        },
    },
    "spec": {"podCIDR": "10.244.1.0/24", "providerID": SECRET},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.168.77.20"}, {"type": "Other", "address": SECRET}]},
}


def with_api(**lists: Any) -> Snapshot:
    outputs = {name: Output(0, json.dumps({"metadata": {"x": SECRET}, "items": it})) for name, it in lists.items()}
    return replace(RECORDED, api=Facts("api", {**RECORDED.api.outputs, **outputs}))


@contextmanager
def running(_paths: LabPaths, say: Any) -> Iterator[Any]:
    say("looking at the nodes")
    yield SimpleNamespace(snapshot=RECORDED)


def test_a_running_lab_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    monkeypatch.setattr(session, "opened", running)
    made = recording.record(LabPaths("dev"), tmp_path / "lab.json", say=said.append)
    assert load(tmp_path / "lab.json") == RECORDED
    assert said == ["looking at the nodes", "writing"]
    size = (tmp_path / "lab.json").stat().st_size // 1024
    assert str(made) == f"{tmp_path}/lab.json: lab dev, 2 nodes, {len(RECORDED.pods)} pods, {size} KiB"
    assert size > 50


def test_a_recording_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session, "opened", running)
    monkeypatch.chdir(tmp_path)
    made = recording.record(LabPaths("blue"))
    assert re.fullmatch(r"blue-\d{4}-\d\d-\d\d-\d{4}\.json", str(made.file))
    assert load(made.file) == RECORDED


def test_a_recording_is_not_overwritten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text("precious")
    monkeypatch.setattr(session, "opened", lambda *_: pytest.fail("the lab was looked at for nothing"))
    with pytest.raises(FileError, match=r"lab\.json exists"):
        recording.record(LabPaths("dev"), tmp_path / "lab.json")
    with pytest.raises(FileError, match="No such file or directory"):
        recording.record(LabPaths("dev"), tmp_path / "no" / "lab.json")
    assert (tmp_path / "lab.json").read_text() == "precious"
    monkeypatch.setattr(session, "opened", running)
    recording.record(LabPaths("dev"), tmp_path / "lab.json", force=True)
    assert load(tmp_path / "lab.json") == RECORDED


def test_a_recording_holds_only_what_facts_read(tmp_path: Path) -> None:
    full = with_api(pods=[POD], nodes=[NODE], services=[{**POD, "spec": {"clusterIP": "None"}}])
    save(full, tmp_path / "lab.json", known_parts())
    assert SECRET not in (tmp_path / "lab.json").read_text()
    again = load(tmp_path / "lab.json")
    assert again.api[API_PODS] == full.api[API_PODS]
    assert str(again.api[API_PODS][0]) == "shop/db-0" and again.api[API_PODS][0].ready
    (node,) = again.api[API_NODES]
    assert dict(node.annotations) == {
        "flannel.alpha.coreos.com/backend-data": '{"VNI":1}',
        "projectcalico.org/IPv4Address": "192.168.77.20/24",
    }
    assert replace(node, annotations=()) == replace(full.api[API_NODES][0], annotations=())


def test_an_answer_no_fact_can_read_gives_nothing_away(tmp_path: Path) -> None:
    broken = {**POD, "status": {**POD["status"], "podIP": "nonsense"}}
    full = with_api(pods=[broken, broken])
    text = Output(0, f"<html>{'.' * 100}{SECRET}</html>")
    full = replace(full, api=Facts("api", {**full.api.outputs, "nodes": text}))
    save(full, tmp_path / "lab.json", known_parts())
    assert SECRET not in (tmp_path / "lab.json").read_text()
    again = load(tmp_path / "lab.json")
    for fact in (API_PODS, API_NODES):
        with pytest.raises(FactError) as before:
            _ = full.api[fact]
        with pytest.raises(FactError) as after:
            _ = again.api[fact]
        assert str(after.value) == str(before.value)


def test_an_object_that_cannot_be_read_gives_nothing_away(tmp_path: Path) -> None:
    full = with_api(pods=[POD, {**POD, "status": {**POD["status"], "podIP": "nonsense"}}])
    save(full, tmp_path / "lab.json", known_parts())
    assert SECRET not in (tmp_path / "lab.json").read_text()
    again = load(tmp_path / "lab.json").api[API_PODS]
    assert again == full.api[API_PODS] and len(again) == 1
    (lost,) = unread(again)
    assert lost.why == unread(full.api[API_PODS])[0].why and "'nonsense' is not an IPv4 address" in lost.why


def test_what_is_not_json_is_kept_where_a_fact_reads_it() -> None:
    assert as_read(lambda text: text.splitlines(), "up 1\n" * 50) == "up 1\n" * 50


@pytest.mark.parametrize("fact", discover("api"), ids=lambda fact: fact.name)
def test_an_answer_says_the_same_when_recorded(fact: Any) -> None:
    others = {API_IPAM_BLOCKS.name: WITH_CALICO, API_IPAM_BLOCKS6.name: DUAL_WITH_CALICO}
    classes = of_classes("", "nginx", nginx=True, other=False)  # recordings are older than these facts
    others |= {API_INGRESSES.name: classes, API_INGRESS_CLASSES.name: classes}
    others |= dict.fromkeys(("pod_states", "corefile"), with_dns(log=LOOP)) | {"tls_secrets": certified()}
    found = others.get(fact.name, DUAL if fact.ipv6 else RECORDED).api
    text = found.outputs[fact.name].out
    assert as_read(fact.parse, text) == as_read(fact.parse, as_read(fact.parse, text))
    assert fact.parse(as_read(fact.parse, text)) == fact.parse(text) == found[fact]


def test_the_recording_in_the_tests_is_as_slim_as_one_made_now(tmp_path: Path) -> None:
    save(RECORDED, tmp_path / "again.json", known_parts())
    recorded = PROJECT / "tests" / "recordings" / "flannel-vxlan.json"
    assert (tmp_path / "again.json").read_text() == recorded.read_text()


def test_the_size_of_calicos_blocks_is_recorded(tmp_path: Path) -> None:
    for lab, kept in ((WITH_CALICO, 28), (RECORDED, 26)):  # flannel has no blocks
        save(replace(lab, setting=replace(lab.setting, block_size=28)), tmp_path / "lab.json", known_parts())
        assert load(tmp_path / "lab.json").setting.block_size == kept


def test_no_fact_asks_for_secrets() -> None:
    """What commands print is recorded as it is: so none may read a file, an object or a process that holds secrets."""
    for fact in discover("api"):
        if fact.name == "corefile":  # of one ConfigMap, CoreDNS's
            assert "fieldSelector=metadata.name%3Dcoredns" in fact.command
        elif not fact.reduce:  # its answer is reduced before anything keeps it
            assert not re.search("secret|configmap|token|certificate", fact.command), fact.name
    for fact in (*discover("node"), *discover("pod")):
        for path in re.findall(r"(?:^|\s)(/[^\s'\"]+)", fact.command):
            assert path.startswith(HARMLESS), f"{fact.name} reads {path}: is there never a secret in it?"
        assert not re.search(r"environ|cmdline|inspect|kubeconfig|/keys|/pki", fact.command), fact.name
