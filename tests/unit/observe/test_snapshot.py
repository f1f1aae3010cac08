"""Snapshots: taken in one go, joined (pods with their namespaces), saved and loaded without loss."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT
from hoplab.expectations.parts import known_parts
from hoplab.observe import snapshot
from hoplab.observe.facts import Facts, discover
from hoplab.observe.facts.links import LINKS
from hoplab.observe.recording_format import RecordingError, load, save
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.spec.model import Ipv6Spec

FILE = PROJECT / "tests" / "recordings" / "flannel-vxlan.json"
RECORDED = load(FILE)


class Reader:
    """Answers every command with its own text, on two nodes with one pod namespace each."""

    def __init__(self) -> None:
        self.calls = 0

    def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]:
        self.calls += 1
        own = {key: Output(0, command) for key, command in commands.items()}
        inside = {f"cni-1/{key}": Output(0, command) for key, command in in_pods.items()}
        return {name: {**own, **inside} for name in ("worker1", "worker2")}


def test_everything_is_asked_in_one_round_trip() -> None:
    reader = Reader()
    taken = snapshot.take(
        RECORDED.setting, {"kubernetes": "1.37.2"}, reader, lambda path: Output(0, path), known_parts()
    )
    assert reader.calls == 1
    assert list(taken.node_facts) == ["worker1", "worker2"]
    assert taken.node_facts["worker1"].outputs["fdb"].out == "bridge -j fdb show"
    assert set(taken.node_facts["worker1"].outputs) == {fact.name for fact in discover("node") if not fact.ipv6}
    assert set(taken.netns_facts["worker2"]["cni-1"].outputs) == {
        fact.name for fact in discover("pod") if not fact.ipv6
    }
    assert taken.netns_facts["worker2"]["cni-1"].place == "worker2 cni-1"
    assert taken.api.outputs["nodes"].out == "/api/v1/nodes"


def test_experiments_with_the_kernel_are_made_once() -> None:
    """A second look has their outputs from the first one, and everything else is new."""

    class Counting(Reader):
        """Says how often it was asked, as the exit code."""

        asked = 0

        def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]:
            self.asked += 1
            found = super().batches(commands, in_pods=in_pods)
            return {node: dict.fromkeys(outputs, Output(self.asked, "")) for node, outputs in found.items()}

    reader, constant = Counting(), {fact.name for fact in discover("node") if fact.constant}
    assert constant == {"all_hooks", "subnet_sums", "unreachable"}
    seen: Snapshot | None = None
    for _ in range(2):
        seen = snapshot.take(RECORDED.setting, {}, reader, lambda path: Output(0, path), known_parts(), seen)
    assert seen
    for facts in seen.node_facts.values():
        assert set(facts.outputs) == {fact.name for fact in discover("node") if not fact.ipv6}
        new = {name for name, output in facts.outputs.items() if output.code == 2}
        assert new == set(facts.outputs) - constant


def test_a_lab_with_ipv6_is_asked_for_it_too() -> None:
    setting = replace(RECORDED.setting, ipv6=Ipv6Spec())
    taken = snapshot.take(setting, {}, Reader(), lambda path: Output(0, path), known_parts())
    assert set(taken.node_facts["worker1"].outputs) == {fact.name for fact in discover("node")}
    assert set(taken.netns_facts["worker2"]["cni-1"].outputs) == {fact.name for fact in discover("pod")}
    assert taken.api.outputs["endpoints6"].out == taken.api.outputs["endpoints"].out


def test_the_ranges_of_ipv6_are_recorded(tmp_path: Path) -> None:
    with_ipv6 = replace(RECORDED.setting, ipv6=Ipv6Spec(), nodes6={"worker1": IPv6Address("fd00:77::20")})
    for setting in (with_ipv6, RECORDED.setting):
        save(replace(RECORDED, setting=setting), tmp_path / "lab.json", known_parts())
        assert load(tmp_path / "lab.json").setting == setting


def test_a_recording_is_the_lab_again(tmp_path: Path) -> None:
    save(RECORDED, tmp_path / "again.json", known_parts())
    again = load(tmp_path / "again.json")
    assert again == RECORDED
    assert [str(pod) for pod in again.pods] == [str(pod) for pod in RECORDED.pods]


def test_the_history_of_api_objects_is_not_recorded(tmp_path: Path) -> None:
    item = {"metadata": {"name": "n", "managedFields": ["long"]}}
    api = {"nodes": Output(0, json.dumps({"items": [item]})), "pods": Output(503, "busy")}
    save(Snapshot(RECORDED.setting, {}, {}, {}, Facts("api", api)), tmp_path / "r.json", known_parts())
    again = load(tmp_path / "r.json").api
    assert again.outputs["nodes"].out == '{"items":[{"metadata":{"name":"n"}}]}'
    assert again.outputs["pods"] == api["pods"]


def test_pods_are_found_in_their_namespaces() -> None:
    assert len(RECORDED.pods) == len(RECORDED.own_address_pods) >= len(RECORDED.nodes)
    for pod in RECORDED.pods:
        assert pod.eth0 and pod.host_end and pod.host_end.name in {link.name for link in pod.node[LINKS]}
    assert set(RECORDED.places) == {*(node.name for node in RECORDED.nodes), *map(str, RECORDED.pods)}


def test_recordings_hold_no_secrets() -> None:
    text = FILE.read_text().lower()
    for word in ("private key", "client-key-data", "token:", "password", "bearer "):
        assert word not in text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"hoplab": 99}', '{"hoplab": 1, "setting": {}}'])
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(RecordingError, match="is not a recording of a lab"):
        load(tmp_path / "r.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        load(tmp_path / "r.json")


def test_what_kubernetes_was_never_told_is_named() -> None:
    api = json.loads(RECORDED.api.outputs["nodes"].out)
    for item in api["items"]:
        item["spec"].pop("podCIDR")
        item["status"]["addresses"] = []
    outputs = {**RECORDED.api.outputs, "nodes": Output(0, json.dumps(api))}
    broken = Snapshot(RECORDED.setting, {}, RECORDED.node_facts, RECORDED.netns_facts, Facts("api", outputs))
    with pytest.raises(LabError, match="has no podCIDR"):
        _ = broken.nodes[0].pod_cidr
    with pytest.raises(LabError, match="has no InternalIP"):
        _ = broken.nodes[0].address
