"""The benchmark of claims: what it reads of a verification, and what a claim costs."""

from __future__ import annotations

import pytest

from benchmarks import claims


def run(**seconds: float) -> dict[str, list[dict[str, object]]]:
    return {"claims": [{"name": name, "outcome": "passed", "seconds": cost} for name, cost in seconds.items()]}


def test_the_median_of_each_claim_the_slowest_first() -> None:
    runs = [run(a=1.0, b=9.0), run(a=3.0, b=5.0), run(a=2.0, b=7.0)]
    assert list(claims.costs(runs).items()) == [("b", 7.0), ("a", 2.0)]


def test_what_was_not_checked_every_time_has_no_cost() -> None:
    skipped = {"claims": [{"name": "a", "outcome": "skipped", "seconds": 0.0}]}
    assert claims.costs([run(a=1.0, b=2.0), skipped]) == {}


def test_the_document_among_notes() -> None:
    assert claims.document('note: the spec has changed\n{"passed": 1}\nnote: bye\n') == {"passed": 1}
    with pytest.raises(ValueError, match="substring not found"):
        claims.document("error: there is no lab")
