"""The results of a run: a table for the terminal, and JUnit XML; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from hoplab.conformance.ginkgo import Outcome, SpecResult
from hoplab.conformance.selection import NETWORK
from hoplab.core.console import clock
from hoplab.core.xml_text import xml_text

MARKS: Mapping[Outcome, str] = {"passed": "ok", "failed": "FAIL", "skipped": "skipped", "not run": "not run"}
WIDTH = 200  # characters of a reason in the table; the log has all


@dataclass(frozen=True)
class Run:
    """What a run showed."""

    about: str  # "lab dev: Kubernetes 1.37.2, flannel vxlan, kube-proxy iptables"
    results: tuple[SpecResult, ...]
    impossible: Mapping[str, str]  # name of a spec -> why it was left out
    seconds: float
    log: Path

    def number(self, outcome: Outcome) -> int:
        return sum(result.outcome == outcome for result in self.results)

    @property
    def succeeded(self) -> bool:
        """Return whether all specs ran to their end and none failed."""
        return bool(self.number("passed")) and not (self.number("failed") or self.number("not run"))

    @property
    def counts(self) -> str:
        counts = f"{self.number('passed')} passed, {self.number('failed')} failed, {self.number('skipped')} skipped"
        if missing := self.number("not run"):
            counts += f", {missing} not run"
        if self.impossible:
            counts += f", {len(self.impossible)} can't run here"
        return counts


def short(name: str) -> str:
    """Return a spec's name without its first word, which all of them share.

    >>> short("[sig-network] DNS works [Conformance]")
    'DNS works [Conformance]'
    """
    return name.removeprefix(NETWORK)


def text(run: Run) -> str:
    """Return the table: a line for each spec, with the reason where it has not passed, and the counts."""
    lines = []
    for result in run.results:
        lines.append(f"{MARKS[result.outcome]:<8}{result.seconds:7.1f} s  {short(result.name)}".rstrip())
        if result.why:
            lines.append(f"{'':<19}{f'{result.where}: ' if result.where else ''}{_one_line(result.why)}")
    for name, reason in run.impossible.items():
        lines += [f"{'left out':<19}{short(name)}", f"{'':<19}{reason}"]
    return "\n".join([*lines, "", f"{run.about}: {run.counts} in {clock(run.seconds)}", f"log  {run.log}"])


def _one_line(reason: str) -> str:
    joined = " ".join(reason.split())
    return joined if len(joined) <= WIDTH else f"{joined[: WIDTH - 3]}..."


def junit_text(run: Run) -> str:
    """Return JUnit XML as CI systems read it."""
    results = run.results
    skipped = run.number("skipped") + run.number("not run") + len(run.impossible)
    suite = ElementTree.Element(
        "testsuite",
        name=xml_text(run.about),
        tests=str(len(results) + len(run.impossible)),
        failures=str(run.number("failed")),
        skipped=str(skipped),
        errors="0",
        time=f"{run.seconds:.3f}",
    )
    for result in results:
        case = _case(suite, result.name, result.seconds)
        if result.outcome == "failed":
            failure = ElementTree.SubElement(case, "failure", message=xml_text(_one_line(result.why)), type="Failed")
            failure.text = xml_text(f"{result.where}\n{result.why}".strip())
        elif result.outcome != "passed":
            ElementTree.SubElement(case, "skipped", message=xml_text(result.why or "not run"))
    for name, reason in run.impossible.items():
        ElementTree.SubElement(_case(suite, name, 0.0), "skipped", message=xml_text(reason))
    ElementTree.indent(suite)
    found: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return found.decode() + "\n"


def _case(suite: ElementTree.Element, name: str, seconds: float) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname="e2e", name=xml_text(name), time=f"{seconds:.3f}")
