"""The side that is made by hand: the same machines and the same cluster, with plain commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import byhand
from benchmarks.byhand import ByHand, Laps
from benchmarks.sheets import Sheets, sheets
from hoplab.cluster import readiness
from hoplab.core.errors import ClusterError, LabError
from hoplab.core.paths import LabPaths
from hoplab.engine import schema
from hoplab.host import machines
from hoplab.image import NodeImage
from hoplab.lab.spec_file import plan_lab
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import LabPlan
from tests.support.benchmark_labs import opened


def node_image(folder: Path) -> NodeImage:
    disk, kernel, initrd, programs = (folder / name for name in ("disk.qcow2", "vmlinuz", "initrd.img", "bin"))
    return NodeImage("0" * 20, folder, disk, kernel, initrd, programs, size_gib=4, versions={})


def written(paths: LabPaths, **settings: Any) -> tuple[LabPlan, Sheets]:
    plan = plan_lab(LabSpec(paths.lab, **settings), lab_id=paths.id, accel="tcg")
    return plan, sheets(plan, node_image(paths.project), paths)


@pytest.fixture
def hand(paths: LabPaths) -> Iterator[ByHand]:
    plan, sheet = written(paths)
    with (paths.project / "byhand.log").open("w") as log:
        yield ByHand(paths, plan, node_image(paths.project), sheet, log)


@pytest.fixture
def test_the_machines_are_those_that_the_program_registers(paths: LabPaths) -> None:
    plan, sheet = written(paths)
    found = sorted(sheet.of(schema.DOMAIN), key=lambda machine: str(machine["name"]))
    assert [machine["name"] for machine in found] == [f"hoplab-{paths.id}-{node.name}" for node in plan.nodes]
    assert (found[0]["type"], found[0]["vcpu"], found[0]["memory"]) == ("qemu", 1, 2048)
    assert found[0]["disks"] == [{"volumeId": "worker1.qcow2"}, {"volumeId": "worker1-seed.iso"}]
    assert found[0]["kernel"] == str(paths.project / "vmlinuz")
    seeds = {seed["name"]: yaml.safe_load(seed["userData"]) for seed in sheet.of(schema.SEED)}
    assert seeds["worker1-seed.iso"]["hostname"] == "worker1"


def test_the_cluster_is_the_one_that_the_roles_make(paths: LabPaths) -> None:
    plan, sheet = written(paths)
    kubeadm = {document["kind"]: document for document in yaml.safe_load_all(sheet.kubeadm)}
    assert kubeadm["InitConfiguration"]["localAPIEndpoint"]["advertiseAddress"] == str(plan.network.gateway)
    assert kubeadm["ClusterConfiguration"]["kubernetesVersion"] == f"v{plan.kubernetes_version}"
    assert {"name": "leader-elect", "value": "false"} in kubeadm["ClusterConfiguration"]["scheduler"]["extraArgs"]
    assert kubeadm["KubeletConfiguration"]["featureGates"] == {"EventedPLEG": True}  # the emulation's profile
    assert sheet.patches == {}
    join = yaml.safe_load(sheet.join("worker2", token="abcdef.0123456789abcdef", ca_hash="sha256:00"))
    assert join["nodeRegistration"]["name"] == "worker2"
    assert join["discovery"]["bootstrapToken"]["apiServerEndpoint"] == f"{plan.api_address}:6443"
    kinds = [document["kind"] for document in yaml.safe_load_all(sheet.network)]
    assert kinds[0] == "Namespace" and kinds[-1] == "DaemonSet"


def test_a_control_plane_in_a_machine_is_patched_when_it_is_emulated(paths: LabPaths) -> None:
    _plan, sheet = written(paths, control_plane_placement="vm")
    assert sorted(sheet.patches) == ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    container = yaml.safe_load(sheet.patches["etcd"])["spec"]["containers"][0]
    assert container["name"] == "etcd" and container["livenessProbe"] is None
    assert "name: cp1" in sheet.kubeadm


def test_machines_are_powered_on_with_plain_commands(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    typed: list[tuple[str, str]] = []

    def note(_self: ByHand, command: Sequence[str], *, stdin: str = "", out: object = None) -> None:
        typed.append((" ".join(command), stdin))

    monkeypatch.setattr(ByHand, "_run", note)
    hand._power_on("test:///default")
    assert [line.split()[0] for line, _ in typed] == (
        ["virsh"] * 2 + ["qemu-img"] * 2 + ["genisoimage"] * 2 + ["virsh"] * 2 + ["virsh"] * 4
    )
    assert typed[-1][0].startswith("virsh --quiet --connect test:///default start hoplab-bench-")
    machine = typed[-2][1]
    assert "<domain type=" in machine and 'type="qcow2"' in machine and "-seed.iso" in machine


def test_a_failed_command_is_named_with_its_last_words(hand: ByHand) -> None:
    with pytest.raises(LabError, match="`sh -c echo no such thing >&2; exit 3` failed: no such thing") as failed:
        hand._run(["sh", "-c", "echo no such thing >&2; exit 3"])
    assert failed.value.remedy == "see the log" and failed.value.log.endswith("byhand.log")


def test_a_machine_that_went_off_ends_the_wait_for_ssh(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    name = machines.domain_name(hand.plan.id, "worker1")
    monkeypatch.setattr(machines, "domain_states", lambda _uri: {name: "shut off"})
    with pytest.raises(LabError, match="worker1 does not boot") as failed:
        hand._until_ssh("worker1")  # there is no ssh_config, so ssh fails
    assert failed.value.remedy.endswith("console/worker1.log")


def test_a_cluster_that_never_gets_usable_says_why(hand: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byhand, "STEP_S", -1.0)
    monkeypatch.setattr(byhand, "connect", opened)
    monkeypatch.setattr(readiness, "list_objects", lambda _api: readiness.ClusterObjects([], [], [], []))
    with pytest.raises(ClusterError, match="not usable after -1 s: node worker1 has not joined") as failed:
        hand._wait_usable(Laps())
    assert failed.value.remedy == "see the log"


def test_the_last_machine_counts_for_a_step() -> None:
    laps = Laps()
    for step in ("ssh", "joined", "ssh"):
        laps.lap(step)
    assert list(laps.times) == ["joined", "ssh"]
    assert laps.total == max(laps.times.values())
