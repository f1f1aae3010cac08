"""docs/conformance.md: its tables are made of the reports of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hoplab.conformance.ginkgo import SpecResult
from hoplab.conformance.report import Run, junit_text
from hoplab.core.errors import LabError
from hoplab.devtools import conformance_page
from hoplab.devtools.conformance_page import PAGE, add, figures, main, page, tables

DNS = "[sig-network] DNS should answer [Conformance]"
NODE_PORT = "[sig-network] Services should have a node port [Conformance]"
POLICY = "[sig-network] Netpol should deny | allow [Feature:NetworkPolicy]"


def report(network: str, *results: SpecResult, left_out: tuple[str, ...] = ()) -> str:
    about = f"lab conf: Kubernetes 1.37.2, {network}, tcg"
    return junit_text(Run(about, results, dict.fromkeys(left_out, "it needs a cloud"), 100.0, Path("log")))


@pytest.mark.docs
def test_the_page_is_made_of_the_figures() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, figures()) == text, "python -m hoplab.devtools.conformance_page"


def test_networks_and_their_specs() -> None:
    known = add({}, report("flannel vxlan, kube-proxy iptables", SpecResult(DNS, "passed", 41.94)), "2026-11-30")
    slow = SpecResult(NODE_PORT, "failed", 196.7, why="not reachable", where="network/service.go:769")
    known = add(known, report("calico bgp, kube-proxy iptables", SpecResult(DNS, "passed", 40), slow), "2026-12-01")
    text = tables(known)
    assert "| A | flannel vxlan, kube-proxy iptables | 1 of 2 passed, 1 not run |  | 42 | 1.37.2 | 2026-11-30 |" in text
    assert "| B | calico bgp, kube-proxy iptables | 1 of 2 passed |  | 237 | 1.37.2 | 2026-12-01 |" in text
    assert "| DNS should answer | 41.9 | 40.0 |" in text
    assert f"| Services should have a node port | {conformance_page.NOT_RUN} | **failed** 197 |" in text
    assert "- calico bgp, kube-proxy iptables: Services should have a node port: `not reachable`" in text


def test_specs_that_are_not_for_conformance_have_a_table_with_the_networks_that_ran_them() -> None:
    known = add({}, report("flannel vxlan, kube-proxy iptables", SpecResult(DNS, "passed", 1)), "2026-11-30")
    known = add(known, report("calico bgp, kube-proxy iptables", SpecResult(POLICY, "passed", 70)), "2026-11-30")
    text = tables(known)
    assert "| spec | A |\n|---|---:|\n| DNS should answer | 1.0 |" in text
    assert "| spec | B |\n|---|---:|\n| Netpol should deny \\| allow | 70.0 |" in text
    assert "| B | calico bgp, kube-proxy iptables |  | 1 of 1 passed | 70 |" in text
    assert "failed" not in text


def test_a_later_run_replaces_only_what_it_ran() -> None:
    network = "flannel vxlan, kube-proxy nftables"
    both = report(network, SpecResult(DNS, "failed", 9, why="timeout"), SpecResult(NODE_PORT, "passed", 5))
    known = add({}, both, "2026-11-29")
    again = report(network, SpecResult(DNS, "passed", 8), SpecResult(NODE_PORT, "not run"), left_out=(POLICY,))
    entry = add(known, again, "2026-11-30")[network]
    assert entry["specs"] == {DNS: {"seconds": 8.0}, NODE_PORT: {"seconds": 5.0}}
    assert entry["seen"] == "2026-11-30"


@pytest.mark.parametrize(
    ("document", "message"),
    [("junk", "a report is no XML"), ("<testsuite name='pytest'/>", "a report is about 'pytest', not about a lab")],
)
def test_another_document_is_refused(document: str, message: str) -> None:
    with pytest.raises(LabError, match=message) as refused:
        add({}, document, "2026-11-30")
    assert refused.value.remedy == "make it with ./lab conformance --junit FILE"


def test_reports_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance_page, "FIGURES", tmp_path / "conformance.json")
    monkeypatch.setattr(conformance_page, "PAGE", tmp_path / "conformance.md")
    (tmp_path / "conformance.json").write_text("{}")
    (tmp_path / "conformance.md").write_text(f"before\n{conformance_page.BEGIN}old{conformance_page.END}after\n")
    (tmp_path / "report.xml").write_text(report("cilium vxlan, kube-proxy iptables", SpecResult(DNS, "passed", 3)))
    main([str(tmp_path / "report.xml")])
    known = json.loads((tmp_path / "conformance.json").read_text())
    assert known["cilium vxlan, kube-proxy iptables"]["specs"] == {DNS: {"seconds": 3.0}}
    text = (tmp_path / "conformance.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| A | cilium vxlan, kube-proxy iptables | 1 of 1 passed |" in text
