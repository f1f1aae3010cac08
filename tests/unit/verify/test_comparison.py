"""The comparison of recorded labs: docs/comparison.md is what the recordings say now."""

from __future__ import annotations

import os
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner

from hoplab.cli import cli
from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT
from hoplab.observe.recording_format import load
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import comparison
from tests.support.edits import HEALTHY, on_node, without
from tests.support.imaginary import cilium

RECORDINGS = PROJECT / "tests" / "recordings"
PAGE = PROJECT / "docs" / "comparison.md"
ORDER = ("flannel-vxlan", "flannel-host-gw", "calico-bgp", "calico-ipip", "calico-vxlan")  # then all others


def recorded() -> list[Snapshot]:
    first = [RECORDINGS / f"{name}.json" for name in ORDER]
    files = [*(file for file in first if file.exists()), *sorted(set(RECORDINGS.glob("*.json")) - set(first))]
    return [load(file) for file in files]


@pytest.mark.docs
def test_the_page_is_what_the_recordings_say() -> None:
    text = comparison.page(recorded())
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text, "if that is intended: UPDATE_GOLDEN=1 ./lab test --fast"


def test_a_route_that_is_missing_is_a_gap() -> None:
    remote = str(HEALTHY.nodes[1].pod_cidr)
    broken = on_node("routes", without(dst=remote), HEALTHY, HEALTHY.nodes[0].name)
    assert f"the node        {remote}" in comparison.page([HEALTHY])
    assert "the node        default via 192.168.77.1 dev eth0" in comparison.page([broken])


def test_a_lab_without_two_pods_to_compare() -> None:
    alone = replace(HEALTHY, netns_facts={})
    with pytest.raises(LabError, match="has no pod `echo` on each of two nodes"):
        comparison.page([alone])


def test_the_verb_prints_the_page() -> None:
    done = CliRunner().invoke(cli, ["compare", str(RECORDINGS / "flannel-vxlan.json")], catch_exceptions=False)
    assert done.output == comparison.page([HEALTHY])
    assert CliRunner().invoke(cli, ["compare"]).exit_code == 2


@pytest.mark.parametrize("backend", ["vxlan", "native"])
def test_programs_and_maps_are_in_the_place_of_rules(backend: str) -> None:
    text = comparison.page([cilium.lab(backend)])
    assert "its program     cil_from_container at tcx/ingress of lxc" in text
    assert re.search(
        r"its map         10\.244\.0\.3/32 identity 6000" + (" behind 192.168.77.21" * (backend == "vxlan")), text
    )
    assert re.search(r"which a map has   10\.\S+:80/tcp ClusterIP: 10.244.\S+, 10.244.", text)
    assert "translated      no: it meets no rule" in text
    assert ("VXLAN, 50 bytes | 1450 |" in text) == (backend == "vxlan")
    assert ("UDP port 8472: VXLAN, vni 6000, the sender's identity: IP " in text) == (backend == "vxlan")
    assert "MASQUERADE in CILIUM_POST_nat" in text


def test_an_entry_that_a_map_lacks_is_a_gap() -> None:
    lab = cilium.lab()
    first = lab.nodes[0].name
    for fact in ("cilium_ipcache", "cilium_services", "bpf_programs"):
        lab = on_node(fact, lambda _: "", lab, first)
    text = comparison.page([lab])
    assert re.search(r"^its program +-$", text, re.MULTILINE) and re.search(r"^its map +-$", text, re.MULTILINE)
    assert re.search(r"^which a map has +-$", text, re.MULTILINE) and "vni None" in text
