"""The results of a verification run, and their formats: text on the terminal, JSON, JUnit XML, one HTML page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO
from xml.etree import ElementTree

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from rich import markup
from rich.console import Console

from hoplab import __version__
from hoplab.core.xml_text import xml_text
from hoplab.observe.outage import Outage
from hoplab.verify import outages
from hoplab.verify.causes import Cause, headline

Outcome = Literal["passed", "failed", "skipped", "not_checked"]


@dataclass(frozen=True)
class Result:
    """The result of one claim."""

    chapter: str  # "3 Routes"
    lesson: str  # "test_03_routes"
    name: str  # "test_own_range_goes_to_the_bridge"
    claim: str  # the sentence
    outcome: Outcome
    saw: str  # when it holds
    why: str  # when it does not, or can't apply
    evidence: tuple[str, ...]
    seconds: float


def number(results: Iterable[Result], outcome: Outcome) -> int:
    return sum(result.outcome == outcome for result in results)


@dataclass
class Report:
    """A verification run."""

    lab: str
    setting: Mapping[str, str]  # "cni": "flannel vxlan"
    versions: Mapping[str, str]
    recording: str = ""  # the file that was looked at in place of a running lab
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    looked_seconds: float = 0.0  # of which: connecting, probe pods, snapshot
    outages: list[Outage] = field(default_factory=list)  # what could not be looked at or does not run
    causes: tuple[Cause, ...] = ()  # of the claims that fail
    picture: str = ""  # the lab as SVG, for the HTML page

    def number(self, outcome: Outcome) -> int:
        return number(self.results, outcome)

    @property
    def counts(self) -> str:
        counts = f"{self.number('passed')} claims hold, {self.number('failed')} fail, {self.number('skipped')} skipped"
        return counts + outages.counts(self.outages, self.number("not_checked"))

    def add_outages(self, found: list[Outage]) -> list[Outage]:
        """Add outages that were found during the run; return them."""
        self.outages += found
        return found

    @property
    def headline(self) -> str:
        """Return "1 cause, 12 claims fail because of it"; "" where every claim holds."""
        return headline(self.causes) if self.causes else ""

    @property
    def sentences(self) -> dict[str, str]:
        """Return the claims by the names of their lessons."""
        return {result.name: result.claim for result in self.results}

    @property
    def because_of(self) -> dict[str, Cause]:
        """Return the cause of each lesson that fails because of another one, by its name."""
        return {name: cause for cause in self.causes for name in cause.consequences}

    @property
    def chapters(self) -> dict[str, list[Result]]:
        """Return the results by chapter, in the order they came."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            found.setdefault(result.chapter, []).append(result)
        return found

    @property
    def about(self) -> dict[str, str]:
        """Return the description of the lab, for the head of a report."""
        source = {"recording": self.recording} if self.recording else {}
        return {"lab": self.lab, **source, **self.setting, "hoplab": __version__, **self.versions}

    def document(self) -> dict[str, Any]:
        """Return the object that ``lab verify --json`` prints."""
        return {
            "lab": self.lab,
            "recording": self.recording,
            "setting": dict(self.setting),
            "hoplab": __version__,
            "versions": dict(self.versions),
            "began": self.began.isoformat(timespec="seconds"),
            "outages": [asdict(outage) for outage in self.outages],
            "summary": self.headline,
            "causes": [asdict(cause) for cause in self.causes],
            "claims": [{**asdict(result), "because_of": self._because_of(result)} for result in self.results],
            "passed": self.number("passed"),
            "failed": self.number("failed"),
            "skipped": self.number("skipped"),
            "not_checked": self.number("not_checked"),
            "seconds": round(self.seconds, 2),
            "looked_seconds": round(self.looked_seconds, 2),
        }

    def _because_of(self, result: Result) -> str:
        cause = self.because_of.get(result.name)
        return cause.name if cause else ""


def junit_text(report: Report) -> str:
    """Return JUnit XML as CI systems read it: a suite per chapter, the claim's sentence as the name of the case."""
    root = _suite("testsuites", f"hoplab verify: lab {report.lab}", report.results, report.seconds)
    outages.add_suite(root, report.outages, xml_text)
    for chapter, results in report.chapters.items():
        suite = _suite("testsuite", chapter, results, sum(result.seconds for result in results))
        suite.set("timestamp", report.began.isoformat(timespec="seconds"))
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in (*_summary(report), *report.about.items()):
            ElementTree.SubElement(properties, "property", name=xml_text(name), value=xml_text(value))
        suite.extend(_case(result, report.because_of.get(result.name)) for result in results)
        root.append(suite)
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text.decode() + "\n"


def _summary(report: Report) -> list[tuple[str, str]]:
    """Return the causes as properties: the headline, then each cause with its commands."""
    if not report.causes:
        return []
    found = [("summary", report.headline)]
    for cause in report.causes:
        found += [("cause", cause.why), *((name, text) for name, text in _commands(cause) if text)]
    return found


def _commands(cause: Cause) -> tuple[tuple[str, str], ...]:
    return ("shows", cause.shows), ("mends", cause.mends)


def _suite(tag: str, name: str, results: list[Result], seconds: float) -> ElementTree.Element:
    skipped = number(results, "skipped") + number(results, "not_checked")
    counts = {"tests": len(results), "failures": number(results, "failed"), "skipped": skipped}
    attributes = {"name": xml_text(name), **{key: str(count) for key, count in counts.items()}}
    return ElementTree.Element(tag, {**attributes, "errors": "0", "time": f"{seconds:.3f}"})


def _case(result: Result, cause: Cause | None = None) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", classname=f"lessons.{result.lesson}", name=xml_text(result.claim), time=f"{result.seconds:.3f}"
    )
    match result.outcome:
        case "failed":
            failure = ElementTree.SubElement(case, "failure", message=xml_text(result.why), type="ClaimFailed")
            because = (f"because of: {cause.why}",) if cause else ()
            failure.text = xml_text("\n".join((result.why, *because, *result.evidence)))
        case "skipped" | "not_checked":
            prefix = "not checked: " if result.outcome == "not_checked" else ""
            ElementTree.SubElement(case, "skipped", message=xml_text(prefix + result.why))
        case "passed":
            ElementTree.SubElement(case, "system-out").text = xml_text("\n".join((result.saw, *result.evidence)))
    return case


TEMPLATE = Path(__file__).with_name("report.html.j2")
TICKED = re.compile(r"`([^`]+)`")


def html_text(report: Report) -> str:
    """Return the report as one HTML page without scripts or external files."""
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters["render_code"] = render_code
    return page.from_string(TEMPLATE.read_text(encoding="utf-8")).render(report=report)


def render_code(text: str) -> Markup:
    """Return text as HTML, with the parts between `ticks` as code.

    >>> render_code("see `ip <x>`")
    Markup('see <code>ip &lt;x&gt;</code>')
    """
    return Markup(TICKED.sub(r"<code>\1</code>", str(escape(text))))


class ConsoleReporter:
    """Prints a run as it goes, one sentence a claim."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True, quiet=quiet)
        self._status = self._console.status("")
        self._chapter = ""

    def doing(self, text: str) -> None:
        """Show the current task, on a terminal until the next one or "" takes its place; elsewhere as a line."""
        self._status.update(text)
        if text and self._console.is_terminal:
            self._status.start()
        elif text:
            self._console.print(f"{markup.escape(text)} ...")
        else:
            self._status.stop()

    def result(self, result: Result) -> None:
        if result.chapter != self._chapter:
            self._chapter = result.chapter
            self._console.print(f"[bold]{markup.escape(result.chapter)}[/bold]")
        claim = markup.escape(result.claim)
        match result.outcome:
            case "passed":
                self._console.print(f"  [green]✓[/green] {claim}\n      [dim]{markup.escape(result.saw)}[/dim]")
            case "skipped":
                self._console.print(
                    f"  [yellow]-[/yellow] {claim}\n      [dim]skipped: {markup.escape(result.why)}[/dim]"
                )
            case "not_checked":
                self._console.print(
                    f"  [yellow]?[/yellow] {claim}\n      [yellow]not checked: {markup.escape(result.why)}[/yellow]"
                )
            case "failed":
                self._console.print(f"  [red]✗[/red] {claim}\n      [red]{markup.escape(result.why)}[/red]")
                for line in result.evidence:
                    self._console.print(f"        {markup.escape(line)}")

    def found(self, text: str) -> None:
        """Print what was found out of a cluster, before anything of it is checked."""
        self.doing("")
        self._console.print(f"{markup.escape(text)}\n")

    def outages(self, found: list[Outage]) -> None:
        """Print what could not be looked at or does not run, with the evidence and the next command."""
        for line in outages.text(found):
            self._console.print(line)

    def summary(self, report: Report) -> None:
        if report.causes:
            self._causes(report)
        took = f"{report.seconds:.1f} s ({report.looked_seconds:.1f} s to look at the lab)"
        self._console.print(f"\n{report.counts} in {took}")

    def _causes(self, report: Report) -> None:
        """Print each cause with its commands, and the claims that fail because of it."""
        self._console.print(f"\n[bold red]{report.headline}[/bold red]")
        for cause in report.causes:
            claim = markup.escape(report.sentences[cause.name])
            self._console.print(f"  [red]✗[/red] {claim}\n      [red]{markup.escape(cause.why)}[/red]")
            for name, command in _commands(cause):
                if command:
                    self._console.print(f"      {name}: [bold]{markup.escape(command)}[/bold]")
            for name in cause.consequences:
                self._console.print(f"        [dim]so fails: {markup.escape(report.sentences[name])}[/dim]")

    def note(self, text: str) -> None:
        """Print a line after the summary: a written file, a removed namespace."""
        self._console.print(markup.escape(text))
