"""The printed lines of a run, and Ginkgo's report."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hoplab.conformance.ginkgo import RULE, Event, Progress, SpecResult, parse_report
from hoplab.core.errors import LabError
from tests.support.fake_e2e import BASIC, MORE, NODE_PORT, SKIPPED


def events(*lines: str) -> list[Event]:
    progress = Progress([BASIC, MORE, NODE_PORT, SKIPPED])
    return [event for line in lines if (event := progress.feed(line))]


def test_a_spec_begins_after_a_rule_and_ends_with_its_seconds() -> None:
    lines = (RULE, f"{BASIC}", "k8s.io/kubernetes/test/e2e/network/service.go:733", "  STEP: a", "• [12.345 seconds]")
    assert events(*lines) == [Event(BASIC), Event(BASIC, ended=True, seconds=12.345)]


def test_labels_after_a_name_are_no_part_of_it_and_the_longer_name_counts() -> None:
    assert events(RULE, f"{BASIC} [sig-network, Conformance]") == [Event(BASIC)]
    assert events(RULE, f"{MORE} [sig-network, Conformance]") == [Event(MORE)]


@pytest.mark.parametrize(
    ("line", "mark"),
    [
        ("• [FAILED] [3.000 seconds]", "FAIL"),
        ("• [PANICKED] [3.000 seconds]", "FAIL"),
        ("• [INTERRUPTED] [3.000 seconds]", "ended"),
        ("S [SKIPPED] [3.000 seconds]", "skipped"),
        ("• [3.000 seconds]", "ok"),
    ],
)
def test_states_have_three_marks(line: str, mark: str) -> None:
    _, ended = events(RULE, BASIC, line)
    assert (ended.mark, ended.seconds) == (mark, 3.0)


def test_output_of_a_spec_is_no_event() -> None:
    assert events(BASIC, "• [1.000 seconds]", RULE, "[SynchronizedBeforeSuite]", "• [1.000 seconds]") == []


def spec(name: str, state: str, start: int, **more: Any) -> dict[str, Any]:
    container, _, leaf = name.partition(" should")
    started = f"2026-11-29T15:20:{start:02d}Z" if start else "0001-01-01T00:00:00Z"
    return {
        "ContainerHierarchyTexts": [container],
        "LeafNodeText": f"should{leaf}",
        "LeafNodeType": "It",
        "State": state,
        "StartTime": started,
        "RunTime": 2_500_000_000 if start else 0,
        **more,
    }


def report(*specs: dict[str, Any]) -> str:
    return json.dumps([{"SpecReports": specs}])


def failure(message: str, file: str = "k8s.io/kubernetes/test/e2e/network/service.go") -> dict[str, Any]:
    return {"Message": message, "Location": {"FileName": file, "LineNumber": 745}}


def test_results_come_in_the_order_of_the_run() -> None:
    text = report(
        spec(BASIC, "passed", 2),
        spec(NODE_PORT, "failed", 1, Failure=failure("no answer\n")),
        spec(SKIPPED, "skipped", 3, Failure=failure("needs two nodes")),
        spec(MORE, "skipped", 0),
        spec("[sig-storage] Volumes should mount", "skipped", 0),
    )
    assert parse_report(text, [BASIC, NODE_PORT, SKIPPED]) == (
        SpecResult(NODE_PORT, "failed", 2.5, "no answer", "network/service.go:745"),
        SpecResult(BASIC, "passed", 2.5),
        SpecResult(SKIPPED, "skipped", 2.5, "needs two nodes"),
    )


@pytest.mark.parametrize("state", ["failed", "timedout", "panicked", "aborted"])
def test_every_bad_state_is_a_failure(state: str) -> None:
    assert parse_report(report(spec(BASIC, state, 1)), [BASIC])[0].outcome == "failed"


def test_the_spec_that_was_running_at_an_interruption_has_not_failed() -> None:
    (found,) = parse_report(report(spec(BASIC, "interrupted", 1, Failure=failure("Interrupted by User"))), [BASIC])
    assert found == SpecResult(BASIC, "not run", 2.5, "Interrupted by User")


def test_a_chosen_spec_that_did_not_begin_is_not_run() -> None:
    """Whether it is in the report as skipped without a reason, or not at all."""
    found = parse_report(report(spec(BASIC, "skipped", 0)), [BASIC, NODE_PORT])
    assert found == (SpecResult(BASIC, "not run"), SpecResult(NODE_PORT, "not run"))


def test_a_suite_that_could_not_be_set_up_is_an_error() -> None:
    setup = {
        **spec(" should", "failed", 1, Failure=failure("pods are not ready")),
        "LeafNodeType": "SynchronizedBeforeSuite",
        "ContainerHierarchyTexts": None,
    }
    with pytest.raises(LabError, match=r"e2e\.test could not begin: pods are not ready") as caught:
        parse_report(report(setup, spec(BASIC, "skipped", 0)), [BASIC])
    assert "./lab status" in caught.value.remedy
    assert parse_report(report(setup, spec(BASIC, "passed", 2)), [BASIC])[0].outcome == "passed"  # the end failed


@pytest.mark.parametrize("text", ["", "[]x", '[{"SpecReports": [{"State": "passed"}]}]', '["x"]', "{}1"])
def test_another_document_is_an_error(text: str) -> None:
    with pytest.raises(LabError, match=r"the report of e2e\.test is not as expected") as caught:
        parse_report(text, [BASIC])
    assert caught.value.remedy
