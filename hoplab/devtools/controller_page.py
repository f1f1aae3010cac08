"""Writes the tables of docs/ingress-controllers.md: ``python -m hoplab.devtools.controller_page``.

What a controller does in its own way is in its module of hoplab/expectations/ingress; what changes cost it is in
docs/ingress-controllers.json, which ``python -m benchmarks.controllers --write`` measures on a lab.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hoplab.core import fs
from hoplab.core.paths import PROJECT
from hoplab.devtools.marks import between
from hoplab.expectations import gateway
from hoplab.expectations.ingress import get_controller
from hoplab.expectations.parts import known_parts
from hoplab.spec.parts import usable

PAGE = PROJECT / "docs" / "ingress-controllers.md"
FIGURES = PAGE.with_suffix(".json")
BEGIN, END = "<!-- generated: controllers -->\n", "<!-- end of controllers -->\n"
NOT_MEASURED = "not measured"


def page(text: str) -> str:
    """Return the page with its tables made anew."""
    return between(text, BEGIN, END, f"\n{tables(_figures())}\n")


def other_behaviours(name: str, figures: Mapping[str, Any] | None = None) -> Mapping[str, Mapping[str, Any]]:
    """Return what a controller is known to do otherwise: case of tests/system/conformance.py -> URL -> what it gets."""
    known = _figures() if figures is None else figures
    found: Mapping[str, Mapping[str, Any]] = known[name]["others"] if name in known else {}
    return found


def _figures() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def tables(figures: Mapping[str, Any]) -> str:
    """Return the tables: their own ways, what a change costs, behaviours that are others than the API names."""
    names = usable(known_parts().ingress)
    return "\n\n".join(
        [
            "## In their own way",
            _own_ways(names),
            "## What a change costs",
            _costs(names, figures),
            "## Behaviours that are others",
            _others(names, figures),
        ]
    )


def _own_ways(names: tuple[str, ...]) -> str:
    lines = [
        "| controller | what answers | evidence inside | without a reload | reloads for |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        ways = get_controller(name).WAYS
        lines.append(f"| `{name}` | {ways.proxy} | {ways.evidence} | {ways.running} | {ways.reloads} |")
    for name in usable(known_parts().gateway):
        ways = gateway.get_controller(name).WAYS
        lines.append(f"| `gateway: {name}` | {ways.proxy} | {ways.evidence} | {ways.running} | {ways.reloads} |")
    return "\n".join(lines)


def _costs(names: tuple[str, ...], figures: Mapping[str, Any]) -> str:
    lines = [
        "| controller | memory | change | served after | CPU time | processes started |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        seen = figures.get(name)
        if not seen:
            lines.append(f"| `{name}` | {NOT_MEASURED} | | | | |")
            continue
        for number, change in enumerate(seen["changes"]):
            head = f"`{name}` | {seen['memory_mib']} MiB" if number == 0 else " | "
            started = ", ".join(f"{count} {what}" for what, count in sorted(change["started"].items())) or "none"
            after = NOT_MEASURED if change["seconds"] is None else f"{change['seconds']:.1f} s"
            lines.append(f"| {head} | {change['name']} | {after} | {change['cpu_s']:.2f} s | {started} |")
    sources = [
        f"- `{name}`: {seen['seen']}, {seen['on']}; {seen['source']}" for name in names if (seen := figures.get(name))
    ]
    return "\n".join([*lines, "", "Where these figures are from:", "", *(sources or ["- nothing was measured yet"])])


def _others(names: tuple[str, ...], figures: Mapping[str, Any]) -> str:
    lines = ["| controller | behaviour | requests get |", "|---|---|---|"]
    for name in names:
        seen, others = figures.get(name), other_behaviours(name, figures)
        if not others:
            lines.append(f"| `{name}` | {'none' if seen else NOT_MEASURED} | |")
        for number, (case, got) in enumerate(sorted(others.items())):
            what = ", ".join(f"`{url.removeprefix('http://')}` {to or 'no answer'}" for url, to in got.items())
            lines.append(f"| {f'`{name}`' if number == 0 else ''} | {case} | {what} |")
    return "\n".join(lines)


if __name__ == "__main__":
    fs.write(PAGE, page(PAGE.read_text(encoding="utf-8")))
