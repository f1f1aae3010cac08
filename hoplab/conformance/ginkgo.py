"""What e2e.test prints while it runs, and the report that it writes in the end; pure.

e2e.test is made with Ginkgo. The report (JSON) is what counts. The printed lines only show how far a run is::

    ------------------------------
    [sig-network] DNS should provide DNS for services [Conformance]
    k8s.io/kubernetes/test/e2e/network/dns.go:152
      STEP: Creating a kubernetes client @ 11/29/26 15:20:01.123
    • [12.345 seconds]
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from hoplab.core.errors import LabError

Outcome = Literal["passed", "failed", "skipped", "not run"]
RULE = "-" * 30  # before the name of a spec
ENDED = re.compile(r"^(?:•|S|P)(?: \[(?P<state>[A-Z ]+)\])? \[(?P<seconds>[\d.]+) seconds\]$")
NANOSECONDS = 10**9
INTERRUPTED = "interrupted"  # the state of the spec that Ctrl-C ended
SPEC = "It"  # Ginkgo's name for the node of a spec; others set up the suite


@dataclass(frozen=True)
class SpecResult:
    """The result of one spec."""

    name: str
    outcome: Outcome
    seconds: float = 0.0
    why: str = ""  # the failure, or the reason why it was skipped
    where: str = ""  # "network/service.go:745" of a failure


@dataclass(frozen=True)
class Event:
    """A spec began, or ended with a state: "" or "SKIPPED", or what Ginkgo calls its failure."""

    name: str
    ended: bool = False
    state: str = ""
    seconds: float = 0.0

    @property
    def mark(self) -> str:
        """Return "ok", "skipped", "ended" by Ctrl-C, or "FAIL"."""
        return {"": "ok", "SKIPPED": "skipped", INTERRUPTED.upper(): "ended"}.get(self.state, "FAIL")


class Progress:
    """Follows the printed lines of a run of the given specs."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = sorted(names, key=len, reverse=True)  # a name may begin another one
        self._after_rule = False
        self._running = ""

    def feed(self, line: str) -> Event | None:
        """Return what a line says, None where it is of a spec's own output."""
        after_rule, self._after_rule = self._after_rule, line == RULE
        if after_rule and (name := next((name for name in self._names if line.startswith(name)), "")):
            self._running = name
            return Event(name)
        if self._running and (found := ENDED.match(line)):
            name, self._running = self._running, ""
            return Event(name, ended=True, state=found["state"] or "", seconds=float(found["seconds"]))
        return None


def parse_report(text: str, names: Iterable[str]) -> tuple[SpecResult, ...]:
    """Return the results of the given specs, in the order in which they ran; raise LabError for another document.

    Raise it too where the suite could not be set up: then no spec has run.
    """
    try:
        specs = [spec for suite in json.loads(text) for spec in suite["SpecReports"] or ()]
        found = {_name(spec): _result(spec) for spec in _in_order(specs) if spec["LeafNodeType"] == SPEC}
        around = [spec for spec in specs if spec["LeafNodeType"] != SPEC and _outcome(spec["State"]) == "failed"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(
            f"the report of e2e.test is not as expected: {error!r}", remedy="run the same command again"
        ) from None
    wanted = set(names)
    results = tuple(result for name, result in found.items() if name in wanted)
    if around and not any(result.outcome in ("passed", "failed") for result in results):
        raise LabError(
            f"e2e.test could not begin: {_message(around[0])}",
            remedy="all nodes and all pods of kube-system have to be Ready: ./lab status, ./lab kubectl get pods -A",
        )
    missing = wanted - {result.name for result in results}
    return (*results, *(SpecResult(name, "not run") for name in sorted(missing)))


def _in_order(specs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(specs, key=lambda spec: spec["StartTime"])


def _name(spec: dict[str, Any]) -> str:
    return " ".join([*(spec["ContainerHierarchyTexts"] or ()), spec["LeafNodeText"]])


def _outcome(state: str) -> Outcome:
    """Return the outcome of a state: a panic and a timeout are failures, too."""
    known: dict[str, Outcome] = {"passed": "passed", "skipped": "skipped", "pending": "skipped", INTERRUPTED: "not run"}
    return known.get(state, "failed")


def _result(spec: dict[str, Any]) -> SpecResult:
    outcome, failure = _outcome(spec["State"]), spec.get("Failure") or {}
    if outcome == "skipped" and not failure.get("Message"):
        outcome = "not run"  # it was not selected, or the run ended before
    location = failure.get("Location") or {}
    file = location.get("FileName", "").rpartition("/e2e/")[2]
    where = f"{file}:{location['LineNumber']}" if file and outcome == "failed" else ""
    return SpecResult(_name(spec), outcome, spec["RunTime"] / NANOSECONDS, _message(spec), where)


def _message(spec: dict[str, Any]) -> str:
    return str((spec.get("Failure") or {}).get("Message", "")).strip()
