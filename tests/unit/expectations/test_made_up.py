"""A CNI in a folder of this test alone: every place that has to know it does, with no list to edit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest
import yaml

from hoplab.cluster.inventory import reset_facts
from hoplab.core.errors import LabError, SpecError
from hoplab.core.paths import PROJECT
from hoplab.expectations import cni
from hoplab.expectations.parts import known_parts
from hoplab.lab import libvirt_host
from hoplab.observe.facts import Facts
from hoplab.observe.facts.nftables import NFTABLES
from hoplab.observe.recording_format import load, save
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.spec.model import LabSpec
from hoplab.spec.parse import parse_spec
from hoplab.spec.plan import plan_lab
from hoplab.verify import comparison
from tests.support.lesson_functions import failures
from tests.support.recordings import recording

HERE = Path(__file__).parent / "made_up"
NAME = "hoplab.expectations.cni.madeup"
RECORDED = recording("flannel-host-gw")
ASKED = {"lab:cni": {"name": "madeup", "backend": "x"}}
TO_OTHERS = "a_node_routes_every_other_range_to_its_node"


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder of the test beside those of the project, for one test."""
    monkeypatch.setattr(cni, "__path__", [*cni.__path__, str(HERE / "cni")])
    yield
    sys.modules.pop(NAME, None)
    vars(cni).pop("madeup", None)


def spec(**given: object) -> LabSpec:
    return parse_spec("dev", {**ASKED, **given}, "Pulumi.dev.yaml", known_parts())


def recorded() -> Snapshot:
    """A recording of flannel that says to be of the made-up CNI."""
    return replace(RECORDED, setting=replace(RECORDED.setting, cni="madeup", backend="x"))


def test_the_spec_takes_it() -> None:
    assert (spec().cni.name, spec().cni.backend) == ("madeup", "x")
    assert parse_spec("dev", {"lab:cni": {"name": "madeup"}}, "-", known_parts()).cni.backend == "x"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"name": "weave"}, "cni.name: 'weave' is unknown; one of flannel, calico, cilium, madeup"),
        ({"name": "madeup", "backend": "z"}, "cni.backend: 'z' is unknown; one of x, y"),
        ({"name": "madeup", "blockSize": 26}, "cni.blockSize: madeup has no blocks"),
        ({"name": "madeup", "nftables": True}, "cni.nftables: is no choice that madeup has"),
    ],
)
def test_what_the_spec_refuses_of_it(asked: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as failed:
        spec(**{"lab:cni": asked})
    assert message in str(failed.value)


def test_the_plan_names_its_role() -> None:
    plan = plan_lab(spec(), known_parts(), lab_id="dev-0", accel="kvm", ingress_at_hand=())
    assert "cni_madeup" in plan.components
    assert (HERE / "roles" / "cni_madeup" / "tasks" / "main.yml").exists()
    play = yaml.safe_load((PROJECT / "playbooks" / "site.yml").read_text())[0]
    assert "cni_{{ lab.cni.name }}" in str(play["tasks"])


def test_its_tables_are_collected() -> None:
    assert "nft -j list table ip madeup 2>&1" in NFTABLES.command_for(known_parts())


def test_a_recording_keeps_its_annotations(tmp_path: Path) -> None:
    text = '{"items": [{"metadata": {"name": "a", "annotations": {"madeup.example/mac": "x", "other/y": "z"}}}]}'
    lab = replace(recorded(), api=Facts("api", {"nodes": Output(0, text)}))
    save(lab, tmp_path / "lab.json", known_parts())
    written = (tmp_path / "lab.json").read_text()
    assert "madeup.example/mac" in written and "other/y" not in written
    assert load(tmp_path / "lab.json").setting == lab.setting


def test_the_comparison_lists_it() -> None:
    page = comparison.page([recorded()])
    assert "### madeup x, kube-proxy iptables" in page
    assert comparison._chain_prefixes()[-1] == "MADEUP-"


def test_a_reset_removes_what_it_leaves() -> None:
    facts = reset_facts(known_parts())
    inputs = {f"node_reset_{name}": value for name, value in facts.items()}
    templates = PROJECT / "roles" / "node_reset" / "templates"
    reset, look = (
        jinja2.Template((templates / f"{name}.sh.j2").read_text()).render(**inputs, node_reset_stamp_file="/stamp")
        for name in ("reset", "look")
    )
    assert "/run/madeup" in look and "/run/madeup" in reset and "/opt/cni/bin/madeup" in reset
    assert "ip route flush proto madeup" in reset


def test_the_doctor_knows_what_it_wraps() -> None:
    assert libvirt_host.masquerade_hurts(spec()) == "x"
    assert libvirt_host.masquerade_hurts(spec(**{"lab:cni": {"name": "madeup", "backend": "y"}})) == ""


def test_lessons_check_its_expectations() -> None:
    first, second = RECORDED.nodes[:2]
    assert cni.expectations(recorded())[first.name].routes[0].dst == second.pod_cidr
    assert failures([TO_OTHERS], recorded()) == {}
    missing = replace(recorded(), node_facts={**RECORDED.node_facts, first.name: without_routes(first.facts)})
    assert f"{first.name} has no route {second.pod_cidr} via {second.address} dev eth0" in str(
        failures([TO_OTHERS], missing)
    )


def without_routes(facts: Facts) -> Facts:
    return Facts(facts.place, {**facts.outputs, "routes": Output(0, "[]")})


def test_an_unknown_one_is_told_from_those_that_there_are() -> None:
    with pytest.raises(LabError, match=r"there is no CNI 'weave'; known: calico, cilium, flannel, madeup$"):
        cni.get_cni("weave")
