"""LabState on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from hoplab.core.console import PhaseTime, PlainProgress
from hoplab.core.errors import StateError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.lab import lifecycle, state
from hoplab.lab.spec_file import load_spec, plan_lab
from hoplab.spec.changes import NAMES, changed_settings
from hoplab.spec.model import AddressRange, Ipv6Spec, LabSpec, NodeSize

PLAN = plan_lab(LabSpec("dev"), lab_id="dev-1a2b3c", accel="tcg")


def made() -> state.LabState:
    return state.lab_state(
        PLAN, libvirt_uri="test:///default", netns="", image="abc", image_bin=Path("/image/bin"), spec=LabSpec("dev")
    )


# As the version before wrote it: without setting and spec
OLDER = """{
  "lab": "dev", "id": "dev-1a2b3c", "libvirt_uri": "qemu+unix:///system?socket=/run/hoplab/dev-1a2b3c/libvirt-sock",
  "netns": "hoplab-dev-1a2b3c", "accel": "tcg", "placement": "hosted", "gateway": "192.168.77.1",
  "network": "hoplab-dev-1a2b3c", "image": "abc", "image_bin": "/image/bin",
  "nodes": [{"name": "worker1", "role": "worker", "address": "192.168.77.20", "mac": "52:54:00:00:00:01"}],
  "ingress": "nginx", "dataplane": "flannel host-gw, kube-proxy iptables", "network6": "",
  "phases": [["node image", 1.5], ["machines", 20]]
}"""


@pytest.fixture
def paths(tmp_path: Path) -> LabPaths:
    """Of a lab whose spec is a file with the CNI's backend in it."""
    found = LabPaths("dev", tmp_path)
    found.spec.write_text("config:\n  lab:cni: {backend: host-gw}\n")
    return found


def built(paths: LabPaths) -> state.LabState:
    """The state of a lab that was made from the spec as it is now."""
    spec = load_spec(paths)
    plan = plan_lab(spec, lab_id=paths.id, accel="tcg")
    return state.lab_state(plan, libvirt_uri="", netns="", image="", image_bin=Path("/bin"), spec=spec)


def test_saved_state_is_loaded(tmp_path: Path) -> None:
    paths = LabPaths("dev", tmp_path)
    lab = replace(made(), phases=(("machines", 1.5),))
    state.save(lab, paths)
    assert state.load(paths) == lab
    assert not list(paths.root.glob("*.part"))


def test_state_is_the_twin_of_the_plan() -> None:
    lab = made()
    assert [node.name for node in lab.nodes] == [node.name for node in PLAN.nodes]
    assert lab.gateway == str(PLAN.network.gateway)
    assert lab.hosted


def test_state_of_no_lab_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no lab 'dev' here") as failed:
        state.load(LabPaths("dev", tmp_path))
    assert "./lab up --lab dev" in failed.value.remedy


def test_whole_state_is_read_back(tmp_path: Path) -> None:
    """Also what few labs have: sizes, a second family, a pool."""
    spec = LabSpec(
        "dev",
        worker_size=NodeSize(memory_mib=4096),
        ipv6=Ipv6Spec(),
        load_balancer="metallb",
        load_balancer_pool=AddressRange.parse("192.168.77.240/29"),
        image_components=("cni_calico",),
    )
    plan = plan_lab(spec, lab_id="dev-1a2b3c", accel="kvm")
    lab = state.lab_state(plan, libvirt_uri="", netns="", image="", image_bin=Path("/bin"), spec=spec)
    state.save(lab, LabPaths("dev", tmp_path))
    assert state.load(LabPaths("dev", tmp_path)) == lab


def test_edited_spec_changes_nothing_of_what_was_built(paths: LabPaths) -> None:
    state.save(built(paths), paths)
    paths.spec.write_text("config:\n  lab:cni: {name: calico}\n  lab:network: 192.168.99.0/24\n")
    lab = state.load(paths)
    setting = state.built_setting(lab, paths)
    assert (setting.cni, setting.backend, str(setting.network)) == ("flannel", "host-gw", "192.168.77.0/24")
    assert list(setting.nodes) == ["worker1", "worker2"]


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ("config:\n  lab:cni: {backend: host-gw}\n", ""),
        ("config:\n  lab:cni: {backend: host-gw, name: flannel}\n  lab:nodes: {workers: 2}\n", ""),
        ("config:\n  lab:cni: {backend: vxlan}\n", "has changed since `up`: cni.backend"),
        (
            "config:\n  lab:nodes: {workers: 3, worker: {memory: 4GiB}}\n  lab:podCIDR: 10.200.0.0/16\n",
            "has changed since `up`: nodes.workers, nodes.worker, podCIDR, cni.backend",
        ),
        ("config:\n  lab:cni: {backend: gre}\n", "has changed since `up`, and is not valid now: cni.backend"),
        ("{", "has changed since `up`, and is not valid now: line 1, column 2"),
        (None, "is not what `up` read: there is no lab 'dev': Pulumi.dev.yaml does not exist"),
    ],
)
def test_notice_names_the_settings_that_differ(paths: LabPaths, text: str | None, notice: str) -> None:
    lab = built(paths)
    if text is None:
        paths.spec.unlink()
    else:
        paths.spec.write_text(text)
    assert state.spec_notice(lab, paths) == (f"Pulumi.dev.yaml {notice}" if notice else "")


def test_notice_of_a_file_that_is_as_it_was_needs_no_reading(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, spec = built(paths), load_spec(paths)
    lab = replace(lab, spec_digest=state.digest_of_spec(spec, paths))
    with monkeypatch.context() as patched:
        patched.setattr("hoplab.lab.spec_file.load_spec", None)
        assert state.spec_notice(lab, paths) == ""
    paths.spec.write_text("config:\n  lab:cni: {backend: wireguard}\n")
    assert state.spec_notice(lab, paths) == "Pulumi.dev.yaml has changed since `up`: cni.backend"
    assert state.digest_of_spec(spec, paths) == ""  # edited while `up` was at work
    paths.spec.unlink()
    assert state.digest_of_spec(spec, paths) == ""


def test_settings_that_differ_have_the_names_of_the_file(paths: LabPaths) -> None:
    """A part of a section that was there before is named, else the section."""
    before = LabSpec("dev", ipv6=Ipv6Spec(), worker_size=NodeSize(vcpus=2))
    now = replace(before, worker_size=NodeSize(vcpus=2, memory_mib=4096, disk_gib=30), ipv6=None, protect=True)
    assert changed_settings(before, now) == ("nodes.worker.memory", "nodes.worker.disk", "ipv6", "protect")
    known = {field.name for field in fields(LabSpec)}
    assert NAMES.keys() - known <= {"memory_mib", "disk_gib", "block_size"}
    same = {"lab", "network", "ipv6", "cni", "libvirt", "accel", "engine", "checkpoint", "family", "kubeconfig"}
    assert known - NAMES.keys() == same | {"protect"}


def test_state_of_an_older_version_is_completed_from_the_spec(paths: LabPaths) -> None:
    paths.root.mkdir(parents=True)
    paths.state.write_text(OLDER)
    lab = state.load(paths)
    assert (lab.setting, lab.spec) == (None, None)
    assert lab.phases == (("node image", 1.5), ("machines", 20.0))
    setting = state.built_setting(lab, paths)
    assert (setting.cni, setting.backend, setting.ingress) == ("flannel", "host-gw", "nginx")
    assert state.spec_notice(lab, paths) == (
        "lab dev was made by an older version, which did not write its settings down: "
        "they are read from Pulumi.dev.yaml until the next `./lab up`"
    )
    state.save(lab, paths)
    assert state.load(paths) == lab


def test_summary_is_the_state_without_what_pydantic_reads(paths: LabPaths) -> None:
    lab = built(paths)
    state.save(lab, paths)
    shown = """if True:
        import sys
        from pathlib import Path
        from hoplab.core.paths import PROJECT, LabPaths
        from hoplab.lab import state
        print(vars(state.load_summary(LabPaths("dev", Path(sys.argv[1])))))
        print("pydantic" in sys.modules)
    """
    words = [sys.executable, "-c", shown, str(paths.root.parent.parent)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=PROJECT)
    texts = {field.name: getattr(lab, field.name) for field in fields(state.LabSummary)}
    assert done.stdout.splitlines() == [str(texts), "False"]


@pytest.mark.parametrize(
    ("edit", "refused"),
    [
        ({"image": 5}, "image: Input should be a valid string"),
        ({"surprise": "1"}, "surprise: Unexpected keyword argument"),
        ({"nodes": [{"name": "worker1", "role": "worker", "address": 5, "mac": ""}]}, "nodes.0.address: "),
        ({"nodes": None}, "nodes: "),
    ],
)
def test_summary_of_a_state_that_does_not_fit_is_refused(paths: LabPaths, edit: dict[str, Any], refused: str) -> None:
    paths.root.mkdir(parents=True)
    paths.state.write_text(json.dumps({**json.loads(OLDER), **edit}))
    with pytest.raises(StateError, match=f"as a lab's state: {refused}"):
        state.load_summary(paths)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({"nodes": [{"surprise": 1}], "phases": []})])
def test_unreadable_state_is_refused(tmp_path: Path, text: str) -> None:
    paths = LabPaths("dev", tmp_path)
    paths.root.mkdir(parents=True)
    paths.state.write_text(text)
    for load in (state.load, state.load_summary):
        with pytest.raises(StateError, match="can't be read as a lab's state") as failed:
            load(paths)
        assert "./lab up --lab dev" in failed.value.remedy


def test_state_with_an_unknown_field_is_refused(paths: LabPaths) -> None:
    paths.root.mkdir(parents=True)
    paths.state.write_text(OLDER.replace('"network6"', '"network7"'))
    with pytest.raises(StateError, match="as a lab's state: network7: "):
        state.load(paths)


def test_a_phase_that_came_twice_is_one() -> None:
    """The image is looked for before a kept checkpoint is, and again where there is none."""
    progress = PlainProgress()
    progress.ended = [PhaseTime("node image", 2.0), PhaseTime("machines", 9.0), PhaseTime("node image", 0.5)]
    assert lifecycle._phases(progress) == (("node image", 2.5), ("machines", 9.0))
