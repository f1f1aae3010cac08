"""Writes the tables of docs/conformance.md: ``python -m hoplab.devtools.conformance_page [REPORT ...]``.

A REPORT is a file of ``./lab conformance --junit``. What it says of a spec takes the place of what an earlier run of
the same network said of it. All of them are kept in docs/conformance.json.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hoplab.conformance.report import short
from hoplab.conformance.selection import CONFORMANCE
from hoplab.core import fs
from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT
from hoplab.devtools.marks import between

PAGE = PROJECT / "docs" / "conformance.md"
FIGURES = PAGE.with_suffix(".json")
BEGIN, END = "<!-- generated: figures -->\n", "<!-- end of figures -->\n"
NOT_RUN = "·"
ABOUT = re.compile(r"lab [^:]+: Kubernetes (?P<kubernetes>[\w.]+), (?P<network>.+), (?P<accel>kvm|tcg)")

Figures = dict[str, dict[str, Any]]


def page(text: str, figures: Figures) -> str:
    """Return the page with its tables made anew."""
    return between(text, BEGIN, END, f"\n{tables(figures)}\n")


def figures() -> Figures:
    """Return what was seen: network -> Kubernetes, date, accelerator, and of each spec its seconds or why it failed."""
    found: Figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def add(known: Figures, report: str, seen: str) -> Figures:
    """Return the figures with those of one report (JUnit XML), seen on a day; raise LabError for another document."""
    try:
        suite = ElementTree.fromstring(report)
    except ElementTree.ParseError as error:
        raise LabError(f"a report is no XML: {error}", remedy="make it with ./lab conformance --junit FILE") from None
    about = ABOUT.fullmatch(suite.get("name", ""))
    if about is None:
        raise LabError(
            f"a report is about {suite.get('name', '')!r}, not about a lab",
            remedy="make it with ./lab conformance --junit FILE",
        )
    specs = {case.get("name", ""): _spec(case) for case in suite.iter("testcase") if case.find("skipped") is None}
    before = known.get(about["network"], {}).get("specs", {})
    entry = {
        "kubernetes": about["kubernetes"],
        "seen": seen,
        "on": about["accel"],
        "specs": dict(sorted((before | specs).items())),
    }
    return known | {about["network"]: entry}


def _spec(case: ElementTree.Element) -> dict[str, Any]:
    failure = case.find("failure")
    seconds = float(case.get("time", "0"))
    return {"seconds": seconds} if failure is None else {"seconds": seconds, "failed": failure.get("message", "")}


def tables(known: Figures) -> str:
    """Return the networks with their sums, the specs for conformance with their seconds, the others, and failures."""
    names = {name for entry in known.values() for name in entry["specs"]}
    conformance = sorted(name for name in names if CONFORMANCE in name)
    others = sorted(names - set(conformance))
    parts = [_sums(known, conformance)]
    parts += ["Seconds of each spec for conformance:", _specs(known, conformance)] if conformance else []
    parts += ["Seconds of the others:", _specs(known, others)] if others else []
    return "\n\n".join([*parts, *_failures(known)])


def _sums(known: Figures, wanted: Collection[str]) -> str:
    """Return the table of the networks; ``wanted`` are the specs for conformance that ran in some of them."""
    lines = ["| | network | for conformance | others | seconds | Kubernetes | date |", "|---|---|---|---|---|---|---|"]
    for network, entry in known.items():
        specs = entry["specs"]
        conformance = [specs[name] for name in wanted if name in specs]
        left = len(wanted) - len(conformance)
        others = [spec for name, spec in specs.items() if name not in wanted]
        seconds = sum(spec["seconds"] for spec in specs.values())
        lines.append(
            f"| {_letter(known, network)} | {network} | {_passed(conformance, left)} | {_passed(others)} "
            f"| {seconds:.0f} | {entry['kubernetes']} | {entry['seen']} |"
        )
    return "\n".join(lines)


def _passed(specs: list[dict[str, Any]], left: int = 0) -> str:
    """Return how many passed, and how many were not run of those that ran in some network."""
    not_run = f", {left} not run" if left else ""
    return f"{sum('failed' not in spec for spec in specs)} of {len(specs) + left} passed{not_run}" if specs else ""


def _specs(known: Figures, names: Collection[str]) -> str:
    """Return the table of these specs, with the networks in which one of them ran."""
    having = {network: entry for network, entry in known.items() if entry["specs"].keys() & set(names)}
    letters = [_letter(known, network) for network in having]
    lines = [f"| spec | {' | '.join(letters)} |", "|---|" + "---:|" * len(having)]
    for name in names:
        cells = [_cell(entry["specs"].get(name)) for entry in having.values()]
        lines.append(f"| {_words(name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _letter(known: Figures, network: str) -> str:
    """Return the head of a network's column, in every table the same."""
    return chr(ord("A") + list(known).index(network))


def _words(name: str) -> str:
    """Return what a spec is about, without its labels."""
    return re.sub(r"\s*\[[^\]]*\]", "", short(name)).replace("|", "\\|")


def _cell(spec: Mapping[str, Any] | None) -> str:
    if spec is None:
        return NOT_RUN
    return f"**failed** {spec['seconds']:.0f}" if "failed" in spec else f"{spec['seconds']:.1f}"


def _failures(known: Figures) -> list[str]:
    lines = [
        f"- {network}: {_words(name)}: `{spec['failed']}`"
        for network, entry in known.items()
        for name, spec in entry["specs"].items()
        if "failed" in spec
    ]
    return ["What failed, and how:", "\n".join(lines)] if lines else []


def main(arguments: list[str] | None = None) -> None:
    """Add the reports to the figures, and write the page."""
    parser = argparse.ArgumentParser(description="Write the tables of docs/conformance.md.")
    parser.add_argument("reports", nargs="*", type=Path, metavar="REPORT", help="a file of ./lab conformance --junit")
    known = figures()
    for report in parser.parse_args(arguments).reports:
        known = add(known, report.read_text(encoding="utf-8"), date.today().isoformat())
    fs.write(FIGURES, json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    fs.write(PAGE, page(PAGE.read_text(encoding="utf-8"), known))


if __name__ == "__main__":
    main()
