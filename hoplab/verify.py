"""The verification run: the lessons, on a lab or on a recording of one, reported as a list of sentences.

Addresses
  ✓ every pod has an address of its own, and it is the one Kubernetes knows -- 7 pods, 10.244.0.2 to 10.244.1.5
  ✗ ...
      worker1 has no route 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink
"""

from __future__ import annotations

import inspect
import json
import sys
import time
import traceback
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import pytest
from rich.console import Console
from rich.markup import escape

from hoplab import live, snapshot
from hoplab.claims import ClaimFailed
from hoplab.errors import LabError
from hoplab.live import Live
from hoplab.paths import PROJECT, LabPaths
from hoplab.snapshot import Snapshot

LESSONS = PROJECT / "tests" / "lessons"
OPENED = "hoplab-opened"  # name of the plugin that hands the open lab to the lessons' fixtures

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Result:
    """What became of one claim."""

    lesson: str  # "test_03_routes"
    name: str  # "test_own_range_goes_to_the_bridge"
    claim: str  # the sentence
    outcome: Outcome
    saw: str  # when it holds
    why: str  # when it does not, or can't apply
    evidence: tuple[str, ...]
    seconds: float


@dataclass
class Report:
    """A verification run."""

    lab: str
    versions: dict[str, str]
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    looked_seconds: float = 0.0  # of which: connecting, probe pods, snapshot

    def number(self, outcome: Outcome) -> int:
        return sum(result.outcome == outcome for result in self.results)

    def document(self) -> dict[str, Any]:
        """The shape of ``lab verify --json``."""
        return {
            "lab": self.lab,
            "versions": self.versions,
            "claims": [asdict(result) for result in self.results],
            "passed": self.number("passed"),
            "failed": self.number("failed"),
            "skipped": self.number("skipped"),
            "seconds": round(self.seconds, 2),
            "looked_seconds": round(self.looked_seconds, 2),
        }


@dataclass(frozen=True)
class Opened:
    """A plugin that carries the lab the lessons are for."""

    lab: Live | Snapshot


def run(
    paths: LabPaths, *, as_json: bool = False, only: str = "", recording: Path | None = None, out: TextIO | None = None
) -> int:
    """Check the claims and print the report; the exit code: 0 when every claim holds that applies, otherwise 1."""
    stream = out or sys.stdout
    say = Say(stream, quiet=as_json)
    started = time.monotonic()
    with ExitStack() as stack:
        lab = snapshot.load(recording) if recording else stack.enter_context(live.opened(paths, say.doing))
        say.doing("")
        seen = lab.snapshot if isinstance(lab, Live) else lab
        report = Report(seen.setting.lab, dict(seen.versions), looked_seconds=time.monotonic() - started)
        check(lab, report, say, only=only)
    report.seconds = time.monotonic() - started
    if as_json:
        json.dump(report.document(), stream, indent=2)
        stream.write("\n")
    else:
        say.summary(report)
    return 1 if report.number("failed") else 0


def check(lab: Live | Snapshot, report: Report, say: Say, *, only: str = "", lessons: Path = LESSONS) -> None:
    """Run the lessons through pytest, in this process: connections that are open stay in use."""
    arguments = [
        *(str(lessons), "--rootdir", str(PROJECT), "-c", "/dev/null", "--import-mode", "importlib"),
        *("--disable-plugin-autoload", "-p", "no:cacheprovider", "-p", "no:terminal"),
    ]
    if only:
        arguments += ["-k", only]
    collector = _Collector(report, say)
    code = pytest.main(arguments, plugins=[collector, _Named(Opened(lab))])
    if collector.broken:
        raise LabError(collector.broken, remedy="the lessons themselves are broken: see tests/lessons")
    if code == pytest.ExitCode.NO_TESTS_COLLECTED or not report.results:
        raise LabError(f"no lesson matches {only!r}", remedy="the lessons are in tests/lessons")


def lacking(lab: Snapshot, *, cni: str = "", backend: str = "", proxy: str = "", nodes: int = 1) -> str:
    """Why a lesson with these needs can't apply to the lab; "" when it can."""
    has = lab.setting
    if cni and has.cni != cni:
        return f"needs the CNI {cni}; this lab has {has.cni}"
    if backend and has.backend != backend:
        return f"needs {cni or 'a CNI'} with the backend {backend}; this lab has {has.backend}"
    if proxy and has.proxy_mode != proxy:
        return f"needs kube-proxy in {proxy} mode; this lab has {has.proxy_mode}"
    if len(lab.nodes) < nodes:
        return f"needs {nodes} nodes; this lab has {len(lab.nodes)}"
    return ""


class _Named:
    """Registers a plugin under a name that the lessons' conftest can ask for."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.register(self._opened, OPENED)


class _Collector:
    """A pytest plugin that makes one result of the reports on a test's setup, call and teardown."""

    def __init__(self, report: Report, say: Say) -> None:
        self._report = report
        self._say = say
        self._phases: list[pytest.TestReport] = []
        self.broken = ""  # why lessons could not even be collected

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken = f"{report.nodeid}: {report.longreprtext}"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        properties = dict(item.user_properties)
        if call.excinfo is not None and not report.skipped:
            properties["why"], properties["evidence"] = explained(call.excinfo.value)
        properties["claim"] = sentence(item)
        report.user_properties = list(properties.items())
        self._phases.append(report)
        return report

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        phases, self._phases = self._phases, []
        result = _result(nodeid, phases)
        self._report.results.append(result)
        self._say.result(result)


def _result(nodeid: str, phases: list[pytest.TestReport]) -> Result:
    failed = [phase for phase in phases if phase.failed]
    skipped = [phase for phase in phases if phase.skipped]
    found: dict[str, Any] = dict((failed or skipped or phases[-1:])[0].user_properties)
    outcome: Outcome = "failed" if failed else "skipped" if skipped else "passed"
    why = found.get("why", "")
    if outcome == "skipped" and isinstance(skipped[0].longrepr, tuple):
        why = skipped[0].longrepr[2].removeprefix("Skipped: ")
    path, _, name = nodeid.partition("::")
    return Result(
        lesson=Path(path).stem,
        name=name,
        claim=found["claim"],
        outcome=outcome,
        saw=found.get("saw", "") if outcome == "passed" else "",
        why=why,
        evidence=tuple(found.get("evidence", ())),
        seconds=round(sum(phase.duration for phase in phases), 3),
    )


def sentence(item: pytest.Item) -> str:
    """The claim a lesson proves: the first paragraph of its docstring."""
    text = inspect.getdoc(getattr(item, "function", None)) or item.name
    return " ".join(text.split("\n\n")[0].split())


def explained(error: BaseException) -> tuple[str, tuple[str, ...]]:
    """Why a claim failed, and the evidence."""
    if isinstance(error, ClaimFailed):
        return error.why, error.evidence
    if isinstance(error, LabError):
        return error.message, (error.remedy,) if error.remedy else ()
    return f"the lesson itself broke: {type(error).__name__}: {error}", tuple(
        traceback.format_tb(error.__traceback__)[-1:]
    )


class Say:
    """Prints a run as it goes, one sentence a claim."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True, quiet=quiet)
        self._status = self._console.status("")
        self._chapter = ""

    def doing(self, text: str) -> None:
        """What takes time right now, on a terminal; "" for nothing."""
        self._status.update(text)
        if text and self._console.is_terminal:
            self._status.start()
        else:
            self._status.stop()

    def result(self, result: Result) -> None:
        chapter = result.lesson.removeprefix("test_").replace("_", " ")
        if chapter != self._chapter:
            self._chapter = chapter
            self._console.print(f"[bold]{escape(chapter)}[/bold]")
        claim = escape(result.claim)
        match result.outcome:
            case "passed":
                self._console.print(f"  [green]✓[/green] {claim}\n      [dim]{escape(result.saw)}[/dim]")
            case "skipped":
                self._console.print(f"  [yellow]-[/yellow] {claim}\n      [dim]skipped: {escape(result.why)}[/dim]")
            case "failed":
                self._console.print(f"  [red]✗[/red] {claim}\n      [red]{escape(result.why)}[/red]")
                for line in result.evidence:
                    self._console.print(f"        {escape(line)}")

    def summary(self, report: Report) -> None:
        counts = (
            f"{report.number('passed')} claims hold, {report.number('failed')} fail, {report.number('skipped')} skipped"
        )
        self._console.print(f"\n{counts} in {report.seconds:.1f} s ({report.looked_seconds:.1f} s to look at the lab)")
