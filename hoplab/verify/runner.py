"""The verification run: runs the lessons on a lab or a recording and reports their claims as sentences.

2 Interfaces and veth pairs
  ✓ With a bridge CNI the node's end of the pair is a port of the bridge; Calico routes to it instead.
      cni0 of worker1 has 4 ports and cni0 of worker2 has 3 ports
3 Routes
  ✗ A node has a route to every other node's pod range (with Calico: blocks) through that node.
      worker1 has no route 10.244.0.0/24 via 10.244.0.0 dev flannel.1 onlink
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import time
import traceback
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import pytest

from hoplab.core import fs
from hoplab.core.errors import ClusterError, LabError
from hoplab.core.paths import LESSONS, PROJECT, LabPaths
from hoplab.observe import health, recording_format
from hoplab.observe.outage import MEANWHILE, Outage
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import causes, foreign, not_checked, picture, plugin, session, traced, workload
from hoplab.verify.claims import ClaimFailed
from hoplab.verify.places import Places
from hoplab.verify.report import ConsoleReporter, Outcome, Report, Result, html_text, junit_text
from hoplab.verify.session import LabSession

CHAPTER = re.compile(r"Chapter (\d+), ([^:.]+)")
PROGRAMS = {"iptables", "nftables"}  # names that stay in lower case at the beginning of a title


class _Given:
    """A pytest plugin that passes the open lab to the fixtures, so that they do not open it again."""

    def __init__(self, lab: LabSession | Snapshot) -> None:
        self._lab = lab

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[plugin.GIVEN] = self._lab


def run(
    paths: LabPaths,
    *,
    as_json: bool = False,
    only: str = "",
    recording: Path | None = None,
    junit: Path | None = None,
    html: Path | None = None,
    cleanup: bool = False,
    target: foreign.Target | None = None,
    out: TextIO | None = None,
) -> int:
    """Check the claims and print the report; return 0 when every claim that applies holds, otherwise 1."""
    stream = out or sys.stdout
    say = ConsoleReporter(stream, quiet=as_json)
    pages = [(file, text) for file, text in ((junit, junit_text), (html, html_text)) if file]
    for file, _ in pages:
        fs.check(file)
    started = time.monotonic()
    lab: LabSession | Snapshot
    with ExitStack() as stack:
        stack.callback(say.doing, "")
        if target:
            lab = stack.enter_context(foreign.opened(target, say.doing, say.found))
        elif recording:
            lab = recording_format.load(recording)
        else:
            lab = stack.enter_context(session.opened(paths, say.doing))
        if cleanup and isinstance(lab, LabSession):
            stack.callback(remove_workload, lab, say)
        say.doing("")
        report = new_report(lab.snapshot if isinstance(lab, LabSession) else lab, recording)
        report.looked_seconds = time.monotonic() - started
        say.outages(report.outages)
        check(lab, report, say, only=only)
        say.outages(report.add_outages(meanwhile(report)))
        report.seconds = time.monotonic() - started
        if as_json:
            json.dump(report.document(), stream, indent=2)
            stream.write("\n")
        say.summary(report)
        if html:
            report.picture = picture.for_page(lab.snapshot if isinstance(lab, LabSession) else lab, report)
        for file, text in pages:
            fs.write(file, text(report))
            say.note(f"wrote {file}")
    return 1 if report.number("failed") or report.outages else 0


def meanwhile(report: Report) -> list[Outage]:
    """Return the outages that lessons met and that were not known when the lab was looked at."""
    known = [outage.problem for outage in report.outages]
    unchecked = (result.why for result in report.results if result.outcome == "not_checked")
    found = dict.fromkeys(why for why in unchecked if not any(why.startswith(problem) for problem in known))
    return [Outage(MEANWHILE, why) for why in found]


def new_report(lab: Snapshot, recording: Path | None = None) -> Report:
    """Return a report on a lab, without results yet."""
    has = lab.setting
    setting = {
        "nodes": str(len(lab.node_facts) + len(lab.lost_nodes) if lab.outages else len(lab.nodes)),
        "CNI": f"{has.cni} {has.backend}".strip(),
        "kube-proxy": has.proxy_mode,
        "ingress": has.ingress,
        "load balancer": has.load_balancer,
    }
    return Report(has.lab, setting, lab.versions, str(recording or ""), outages=list(health.outages(lab)))


def remove_workload(lab: LabSession, say: ConsoleReporter) -> None:
    """Delete the namespace of the verification workload, without waiting until its pods have ended."""
    if not workload.remove(lab.api):
        raise ClusterError(
            f"the namespace {workload.NAMESPACE} can't be removed",
            remedy=f"./lab kubectl --lab {lab.snapshot.setting.lab} delete namespace {workload.NAMESPACE}",
        )
    say.note(f"removed the namespace {workload.NAMESPACE}")


def check(
    lab: LabSession | Snapshot, report: Report, say: ConsoleReporter, *, only: str = "", lessons: Path = LESSONS
) -> None:
    """Run the lessons through pytest in this process, so that they use the open connections."""
    arguments = [
        *(str(lessons), "--rootdir", str(PROJECT), "-c", "/dev/null", "--import-mode", "importlib"),
        *("--disable-plugin-autoload", "-p", plugin.__name__, "-p", "no:cacheprovider", "-p", "no:terminal"),
    ]
    if only:
        arguments += ["-k", only]
    collector = _Collector(lab, report, say)
    code = pytest.main(arguments, plugins=[collector, _Given(lab)])
    if collector.broken:
        raise LabError(collector.broken, remedy="the lessons themselves are broken: see tests/lessons")
    if code == pytest.ExitCode.INTERRUPTED:  # by Ctrl-C, which pytest catches
        raise KeyboardInterrupt
    if code == pytest.ExitCode.NO_TESTS_COLLECTED or not report.results:
        raise LabError(f"no lesson matches {only!r}", remedy="the lessons are in tests/lessons")
    failed = {result.name: result.why for result in report.results if result.outcome == "failed"}
    seen = lab.snapshot if isinstance(lab, LabSession) else lab
    found = causes.find(failed, collector.graph, Places.of(seen))
    report.causes = tuple(replace(cause, shows=cause.shows or collector.packets.get(cause.name, "")) for cause in found)


class _Collector:
    """A pytest plugin that combines the reports on a test's setup, call and teardown into one result."""

    def __init__(self, lab: LabSession | Snapshot, report: Report, say: ConsoleReporter) -> None:
        self._lab = lab
        self._report = report
        self._say = say
        self._phases: list[pytest.TestReport] = []
        self.packets: dict[str, str] = {}  # by the name of a failed lesson: the command that sends its packet
        self.broken = ""  # why lessons could not be collected or run
        self.graph: dict[str, causes.Basis] = {}  # also of lessons that do not run

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        packets = "session" in getattr(item, "fixturenames", ())
        self.graph[causes.claim_of(item.name)] = causes.basis(item.iter_markers(), sends_packets=packets)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken = f"{report.nodeid}: {report.longreprtext}"

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.broken = f"pytest itself failed: {excinfo.exconly()}"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        properties = dict(item.user_properties)
        if call.excinfo is not None and not report.skipped:
            why, evidence = describe_failure(call.excinfo.value)
            properties["why"], properties["evidence"] = why, (*evidence, *self._traced(item))
        properties["chapter"], properties["claim"] = chapter(item), sentence(item)
        report.user_properties = list(properties.items())
        self._phases.append(report)
        return report

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if isinstance(self._lab, LabSession):
            self._lab.requests.clear()

    def _traced(self, item: pytest.Item) -> tuple[str, ...]:
        """Return where the packets of a lesson end that sends some."""
        if not isinstance(self._lab, LabSession) or "session" not in getattr(item, "fixturenames", ()):
            return ()
        found = traced.traced(self._lab.snapshot, self._lab.requests)
        if found:
            self.packets[item.name] = found.command
        return found.evidence if found else ()

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
    if outcome == "skipped" and not_checked.PROPERTY in found:
        outcome, why = "not_checked", found[not_checked.PROPERTY]
    elif outcome == "skipped" and isinstance(skipped[0].longrepr, tuple):
        why = skipped[0].longrepr[2].removeprefix("Skipped: ")
    path, _, name = nodeid.partition("::")
    return Result(
        chapter=found["chapter"],
        lesson=Path(path).stem,
        name=name,
        claim=found["claim"],
        outcome=outcome,
        saw=found.get("saw", "") if outcome == "passed" else "",
        why=why,
        evidence=tuple(found.get("evidence", ())),
        seconds=round(sum(phase.duration for phase in phases), 3),
    )


def chapter(item: pytest.Item) -> str:
    """Return the chapter of a lesson, "3 Routes": its module's docstring begins with ``Chapter 3, routes: ...``."""
    module = item.getparent(pytest.Module)
    found = CHAPTER.match((module and module.obj.__doc__) or "")
    number, title = found.groups() if found else ("", item.path.stem.removeprefix("test_").replace("_", " "))
    return f"{number} {title if title in PROGRAMS else title[0].upper() + title[1:]}".strip()


def sentence(item: pytest.Item) -> str:
    """Return the claim of a lesson: the first paragraph of its docstring."""
    text = inspect.getdoc(getattr(item, "function", None)) or item.name
    return " ".join(text.split("\n\n")[0].split())


def describe_failure(error: BaseException) -> tuple[str, tuple[str, ...]]:
    """Return why a claim failed, and the evidence."""
    if isinstance(error, ClaimFailed):
        return error.why, error.evidence
    if isinstance(error, LabError):
        return error.message, (error.remedy,) if error.remedy else ()
    return f"the lesson itself broke: {type(error).__name__}: {error}", tuple(
        traceback.format_tb(error.__traceback__)[-1:]
    )
