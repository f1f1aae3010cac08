"""docs/ingress-controllers.md: made of the controllers' modules and of measured figures."""

from __future__ import annotations

import pytest

from hoplab.devtools import controller_page
from hoplab.devtools.controller_page import PAGE, page, tables
from hoplab.expectations.parts import known_parts
from hoplab.spec.parts import usable
from tests.system.conformance import CASES

FIGURES = {
    "traefik": {
        "seen": "2026-11-29",
        "on": "2 machines, emulated",
        "source": "an image of upstream",
        "memory_mib": 71,
        "changes": [
            {"name": "a pod more", "seconds": 1.5, "cpu_s": 0.25, "started": {}},
            {"name": "a path", "seconds": 0.0, "cpu_s": 2, "started": {"haproxy": 2, "cat": 1}},
            {"name": "a host", "seconds": None, "cpu_s": 0, "started": {}},
        ],
        "others": {"exact comes before prefix": {"http://x/foo": "app1-service", "http://x/bar": 0}},
    }
}


@pytest.mark.docs
def test_the_page_is_made_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "python -m hoplab.devtools.controller_page"


def test_every_controller_is_in_every_table() -> None:
    own, costs, others = tables({}).split("## ")[1:]
    for name in usable(known_parts().ingress):
        assert f"| `{name}` |" in own
        assert f"| `{name}` | {controller_page.NOT_MEASURED} |" in costs
        assert f"| `{name}` | {controller_page.NOT_MEASURED} |" in others


def test_figures() -> None:
    text = tables(FIGURES)
    assert "| `traefik` | 71 MiB | a pod more | 1.5 s | 0.25 s | none |" in text
    assert "|  |  | a path | 0.0 s | 2.00 s | 1 cat, 2 haproxy |" in text
    assert f"|  |  | a host | {controller_page.NOT_MEASURED} | 0.00 s | none |" in text
    assert "- `traefik`: 2026-11-29, 2 machines, emulated; an image of upstream" in text
    assert "| `traefik` | exact comes before prefix | `x/foo` app1-service, `x/bar` no answer |" in text


def test_a_controller_without_other_behaviours_says_so() -> None:
    text = tables({"traefik": {**FIGURES["traefik"], "others": {}}})
    assert "| `traefik` | none | |" in text


def test_other_behaviours_are_of_one_controller() -> None:
    assert controller_page.other_behaviours("traefik", FIGURES) == FIGURES["traefik"]["others"]
    assert controller_page.other_behaviours("haproxy", FIGURES) == {}


def test_other_behaviours_are_of_cases_that_exist() -> None:
    known = {case.name: case.gets for case in CASES}
    for name in usable(known_parts().ingress):
        for case, urls in controller_page.other_behaviours(name).items():
            assert urls.keys() <= known[case].keys()
            assert all(known[case][url] != got for url, got in urls.items())
