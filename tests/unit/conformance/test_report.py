"""The table of a run, and its JUnit XML."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from hoplab.conformance.ginkgo import SpecResult
from hoplab.conformance.report import Run, junit_text, text
from tests.support.fake_e2e import BASIC, NODE_PORT, POLICY, SKIPPED

RUN = Run(
    "lab dev: Kubernetes 1.37.2",
    (
        SpecResult(BASIC, "passed", 12.34),
        SpecResult(NODE_PORT, "failed", 130.0, "timed out:\n  \x1bno answer", "network/service.go:745"),
        SpecResult(SKIPPED, "skipped", 0.1, "needs two nodes"),
    ),
    {POLICY: "no policies here"},
    150.0,
    Path("/lab/e2e.log"),
)


def test_the_table_has_a_line_for_each_spec_and_the_reasons() -> None:
    assert text(RUN) == (
        "ok         12.3 s  Services should serve a basic endpoint from pods [Conformance]\n"
        "FAIL      130.0 s  Services should be able to create a functioning NodePort service [FAIL] [Conformance]\n"
        "                   network/service.go:745: timed out: \x1bno answer\n"
        "skipped     0.1 s  Networking should work with two nodes [SKIP]\n"
        "                   needs two nodes\n"
        "left out           Netpol NetworkPolicy between server and client should deny [Feature:NetworkPolicy]\n"
        "                   no policies here\n"
        "\n"
        "lab dev: Kubernetes 1.37.2: 1 passed, 1 failed, 1 skipped, 1 can't run here in 2m30s\n"
        "log  /lab/e2e.log"
    )


def test_a_long_reason_is_cut_in_the_table_only() -> None:
    run = replace(RUN, results=(SpecResult(BASIC, "failed", 1.0, "x" * 500),))
    assert max(map(len, text(run).splitlines())) < 250
    assert "x" * 500 in junit_text(run)


def test_a_run_succeeds_when_specs_passed_and_none_failed_or_was_left() -> None:
    passed, skipped = SpecResult(BASIC, "passed"), SpecResult(SKIPPED, "skipped")
    assert replace(RUN, results=(passed, skipped)).succeeded
    assert not RUN.succeeded
    assert not replace(RUN, results=(passed, SpecResult(SKIPPED, "not run"))).succeeded
    assert not replace(RUN, results=(skipped,)).succeeded
    assert "1 not run" in text(replace(RUN, results=(passed, SpecResult(SKIPPED, "not run"))))


def test_junit_has_a_case_for_each_spec() -> None:
    root = ElementTree.fromstring(junit_text(RUN))
    assert {name: root.get(name) for name in ("tests", "failures", "skipped", "errors", "time")} == {
        "tests": "4",
        "failures": "1",
        "skipped": "2",
        "errors": "0",
        "time": "150.000",
    }
    cases = {case.get("name"): case for case in root}
    failed = cases[NODE_PORT].find("failure")
    assert (
        failed is not None and failed.text == "network/service.go:745\ntimed out:\n  \N{REPLACEMENT CHARACTER}no answer"
    )
    assert cases[BASIC].get("time") == "12.340" and len(cases[BASIC]) == 0
    reasons = [found.get("message") for case in root if (found := case.find("skipped")) is not None]
    assert reasons == ["needs two nodes", "no policies here"]
