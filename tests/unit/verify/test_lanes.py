"""Lanes: what runs side by side, what waits, and what pytest makes of the outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from hoplab.observe.recording_format import load
from hoplab.observe.ssh import Hosts
from hoplab.verify import lanes, plugin
from hoplab.verify.external import ExternalHost
from hoplab.verify.session import LabSession
from tests.support.files import RECORDINGS

SEEN = load(RECORDINGS / "flannel-vxlan.json")
PATIENCE = 60  # seconds until a deadlock is a failure


def lab() -> LabSession:
    return LabSession(SEEN, cast(Hosts, None), cast(ExternalHost, None), lambda *_: (200, {}), lambda: SEEN)


class Ends:
    """A plugin that keeps the end of each test, with its properties."""

    def __init__(self) -> None:
        self.reports: dict[str, pytest.TestReport] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[plugin.GIVEN] = lab()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self.reports[report.nodeid.rpartition("::test_")[2]].user_properties = report.user_properties
        elif report.when == "call" or report.outcome != "passed":
            self.reports[report.nodeid.rpartition("::test_")[2]] = report

    def outcomes(self) -> dict[str, str]:
        return {name: report.outcome for name, report in self.reports.items()}


def run(folder: Path, lessons: str, *options: str) -> Ends:
    """Run lessons on a lab that is not there, from a module of a name of its own, so that none is imported twice."""
    ends = Ends()
    (folder / f"test_{folder.name}.py").write_text(f"import threading\nimport pytest\n{lessons}")
    arguments = [str(folder), "--rootdir", str(folder), "-c", "/dev/null", "--import-mode", "importlib", *options]
    loaded = ("--disable-plugin-autoload", "-p", plugin.__name__, "-p", "no:cacheprovider", "-p", "no:terminal")
    pytest.main([*arguments, *loaded], plugins=[ends])
    return ends


def test_lessons_of_two_lanes_run_at_the_same_time(tmp_path: Path) -> None:
    """Each waits for the other, so both pass only side by side."""
    ends = run(
        tmp_path,
        f"""
first, second = threading.Event(), threading.Event()

def test_main(session):
    first.set()
    assert second.wait({PATIENCE})

@pytest.mark.lane("apps")
def test_apps(session):
    second.set()
    assert first.wait({PATIENCE})
""",
    )
    assert ends.outcomes() == {"main": "passed", "apps": "passed"}


def test_lessons_of_one_lane_run_in_their_order_in_one_thread(tmp_path: Path) -> None:
    ends = run(
        tmp_path,
        """
ran = []

def test_main(session):
    assert threading.current_thread() is threading.main_thread()

@pytest.mark.lane("apps")
def test_one(session, claim):
    ran.append(threading.current_thread().name)

@pytest.mark.lane("apps")
def test_two(session, claim):
    ran.append(threading.current_thread().name)
    claim.saw(f"{ran}", "evidence")

@pytest.mark.lane("apps")
def test_reads(lab, claim):
    assert threading.current_thread() is threading.main_thread()
""",
    )
    assert set(ends.outcomes().values()) == {"passed"}
    properties: dict[str, Any] = dict(ends.reports["two"].user_properties)
    assert properties["saw"] == "['lane-apps', 'lane-apps']" and properties["evidence"] == ["evidence"]
    assert properties["seconds"] >= 0 and "seconds" not in dict(ends.reports["main"].user_properties)


def test_a_lesson_that_is_alone_waits_for_the_lanes(tmp_path: Path) -> None:
    ends = run(
        tmp_path,
        f"""
ran, begun = [], threading.Event()

def test_main(session):
    begun.set()

@pytest.mark.alone
def test_alone(session):
    assert ran == ["one", "two"]

@pytest.mark.lane("apps")
def test_one(session):
    assert begun.wait({PATIENCE})
    ran.append("one")

@pytest.mark.lane("apps")
def test_two(session):
    ran.append("two")
""",
    )
    assert set(ends.outcomes().values()) == {"passed"}


def test_outcomes_are_those_of_the_lessons(tmp_path: Path) -> None:
    ends = run(
        tmp_path,
        """
pytestmark = pytest.mark.lane("apps")

def test_fails(session, claim):
    claim.require(False, "the reason", "seen")

def test_skips(session):
    pytest.skip("not here")

def test_breaks(session):
    raise ValueError("oops")

@pytest.mark.needs(cni="calico")
def test_does_not_apply(session):
    raise AssertionError("it ran")

@pytest.mark.parametrize("number", [1, 2])
def test_with_parameters(session, number):
    assert threading.current_thread() is threading.main_thread()
""",
    )
    assert ends.outcomes() == {
        "fails": "failed",
        "skips": "skipped",
        "breaks": "failed",
        "does_not_apply": "skipped",
        "with_parameters[1]": "passed",
        "with_parameters[2]": "passed",
    }
    assert "the reason" in ends.reports["fails"].longreprtext and "oops" in ends.reports["breaks"].longreprtext
    assert cast(Any, ends.reports["skips"].longrepr)[2] == "Skipped: not here"


def test_no_lesson_begins_after_the_end_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With -x a run ends at the failure in the main lane. The lesson that runs is waited for, the next is not made."""
    begun, ending, ended = tmp_path / "begun", tmp_path / "ending", lanes.Lanes.ended

    def seen(self: lanes.Lanes) -> None:
        ending.touch()
        ended(self)

    monkeypatch.setattr(lanes.Lanes, "ended", seen)
    ends = run(
        tmp_path,
        f"""
from pathlib import Path
here = threading.Event()

def test_main(session):
    assert here.wait({PATIENCE})
    assert False

@pytest.mark.lane("apps")
def test_one(session):
    here.set()
    while not Path({str(ending)!r}).exists():
        here.wait(0.01)
    open({str(begun)!r}, "a").write("one")

@pytest.mark.lane("apps")
def test_two(session):
    open({str(begun)!r}, "a").write("two")
""",
        "-x",
    )
    assert ends.outcomes() == {"main": "failed"}
    assert begun.read_text() == "one"
