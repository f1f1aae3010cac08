"""The pytest plugin: fixtures, the marker and the options, in lessons of somebody's own folder."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hoplab.core.errors import LabError, UnavailableError
from hoplab.core.paths import PROJECT
from hoplab.lab import state
from hoplab.observe.outage import WORKLOAD, Outage
from hoplab.observe.recording_format import load
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.verify import plugin, requirements
from hoplab.verify.external import ExternalHost
from hoplab.verify.session import LabSession
from tests.support.hurt import NO_API, refused, without_api, without_nodes

RECORDING = PROJECT / "tests" / "recordings" / "flannel-vxlan.json"
SEEN = load(RECORDING)
REFUSED = refused("worker2")
LESSONS = '''
import pytest

def test_facts(lab, claim):
    """The lab has two nodes."""
    claim.require(len(lab.nodes) == 2, "it has not")
    claim.saw("two nodes")

@pytest.mark.needs(cni="calico")
def test_with_calico(session, claim):
    """A lesson for Calico that sends packets."""

def test_with_packets(session):
    """A lesson that sends packets."""

def test_on_a_node(host):
    """A lesson that logs in."""
    assert host.backend.hostname in ("control-plane", "worker1", "worker2")
'''


@dataclass
class Outcomes:
    """A plugin that keeps how each test ended, and why."""

    found: dict[str, str] = field(default_factory=dict)
    seen: dict[str, object] = field(default_factory=dict)
    given: Snapshot | LabSession | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        if self.given:
            config.stash[plugin.GIVEN] = self.given

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.rpartition("::")[2].removeprefix("test_")
        if report.skipped and isinstance(report.longrepr, tuple):
            self.found[name] = report.longrepr[2].removeprefix("Skipped: ")
        elif report.failed:
            self.found[name] = report.longreprtext
        elif report.when == "call":
            self.found[name] = "passed"
        self.seen |= dict(report.user_properties)


def run(
    folder: Path, *options: str, given: Any = None, file: str = "test_mine.py", lessons: str = LESSONS
) -> tuple[int, Outcomes]:
    """The exit code and the outcomes of the lessons."""
    folder.mkdir(exist_ok=True)
    (folder / file).write_text(lessons)
    outcomes = Outcomes(given=given)
    arguments = [str(folder), "--rootdir", str(folder), "-c", "/dev/null", "--import-mode", "importlib", *options]
    loaded = ("--disable-plugin-autoload", "-p", plugin.__name__, "-p", "no:cacheprovider", "-p", "no:terminal")
    return pytest.main([*arguments, *loaded], plugins=[outcomes]), outcomes


def test_lessons_run_on_a_recording(tmp_path: Path) -> None:
    code, outcomes = run(tmp_path / "mine", "--recording", str(RECORDING))
    assert code == 0
    assert outcomes.found == {
        "facts": "passed",
        "with_calico": "needs the CNI calico; this lab has flannel",
        "with_packets": "needs a running lab to send packets; this is a recording",
        "on_a_node": "needs a running lab to log in to its nodes (--lab NAME)",
    }
    assert outcomes.seen["saw"] == "two nodes"


def test_without_a_lab_everything_is_collected_and_skipped(tmp_path: Path) -> None:
    code, outcomes = run(tmp_path / "mine")
    assert code == 0 and len(outcomes.found) == 4
    assert outcomes.found["facts"] == outcomes.found["with_calico"] == plugin.NO_LAB


def test_host_is_every_node_of_a_running_lab(tmp_path: Path) -> None:
    nodes = {name: SimpleNamespace(backend=SimpleNamespace(hostname=name)) for name in ("control-plane", "worker1")}
    given = LabSession(SEEN, cast(Hosts, _Hosts(nodes)), cast(ExternalHost, None), lambda *_: (200, {}), lambda: SEEN)
    code, outcomes = run(tmp_path / "mine", "-k", "on_a_node or packets", given=given)
    assert code == 0, outcomes.found
    assert outcomes.found == {
        "with_packets": "passed",
        "on_a_node[control-plane]": "passed",
        "on_a_node[worker1]": "passed",
    }


class _Hosts:
    """Nodes that no command reaches."""

    def __init__(self, nodes: dict[str, SimpleNamespace]) -> None:
        self.names = tuple(nodes)
        self._nodes = nodes

    def __getitem__(self, name: str) -> SimpleNamespace:
        return self._nodes[name]


def test_the_nodes_of_a_lab_by_name_are_those_of_its_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nodes = [SimpleNamespace(name="worker1"), SimpleNamespace(name="worker2")]
    monkeypatch.setattr(state, "load", lambda _paths: SimpleNamespace(nodes=nodes))
    code, outcomes = run(tmp_path / "mine", "--lab", "dev", "-k", "on_a_node")
    assert code == 0, outcomes.found
    assert outcomes.found == {"on_a_node[worker1]": "passed", "on_a_node[worker2]": "passed"}


@pytest.mark.parametrize(
    "options", [("--lab", "dev", "--recording", str(RECORDING)), ("--recording", "/nowhere.json"), ("--lab", "dev")]
)
def test_a_lab_that_is_not_there_is_a_usage_error(
    options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(_paths: object) -> None:
        raise LabError("there is no lab dev", remedy="./lab up")

    monkeypatch.setattr(state, "load", missing)
    code, outcomes = run(tmp_path / "mine", *options)
    assert code == pytest.ExitCode.USAGE_ERROR and outcomes.found == {}


def test_a_folder_outside_of_the_checkout(tmp_path: Path) -> None:
    """With testinfra's own plugin loaded, which has a fixture ``host`` too."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "test_mine.py").write_text(LESSONS)
    command = [sys.executable, "-m", "pytest", "-p", plugin.__name__, "mine", "-rs", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--recording", str(RECORDING)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 3 skipped" in done.stdout and "needs a running lab to log in to its nodes" in done.stdout


# On a lab of which a part cannot be looked at


def test_a_hurt_lab_fails_the_run_and_skips_what_needs_it(tmp_path: Path) -> None:
    hurt = without_nodes(SEEN, "worker2")
    code, outcomes = run(tmp_path / "mine", "-k", "with_packets", given=hurt)
    assert code == pytest.ExitCode.TESTS_FAILED and "needs a running lab" in outcomes.found["with_packets"]


def test_a_node_that_does_not_answer_is_not_checked_by_lessons_of_each_node(tmp_path: Path) -> None:
    hosts = Hosts(["worker1"], Path("no/ssh_config"))
    session = LabSession(without_nodes(SEEN, "worker2"), hosts, cast(ExternalHost, None), cast(Any, None), lambda: SEEN)
    code, outcomes = run(tmp_path / "mine", "-k", "on_a_node", given=session)
    assert outcomes.found == {"on_a_node[worker1]": "passed", "on_a_node[worker2]": f"not checked: {REFUSED}"}
    assert outcomes.seen["not_checked"] == REFUSED and code == pytest.ExitCode.TESTS_FAILED


def test_requirements_that_cannot_be_known_are_not_checked() -> None:
    hurt = without_nodes(SEEN, "worker2")
    with pytest.raises(UnavailableError, match=REFUSED):
        requirements.skip_reason(hurt, nodes=2)
    assert "needs 9 nodes" in requirements.skip_reason(SEEN, nodes=9)
    for needs in ({"service": "echo"}, {"facts": ("services",)}):
        with pytest.raises(UnavailableError, match=NO_API):
            requirements.skip_reason(without_api(SEEN), **cast(Any, needs))
    unready = replace(SEEN, outages=(Outage(WORKLOAD, "pods do not start"),))
    with pytest.raises(UnavailableError, match="pods do not start"):
        requirements.skip_reason(unready, service="younger")


SCALED = """
import pytest

@pytest.mark.beside_scaling
def test_beside(session):
    session.calls.append("beside")

def test_alone(session):
    session.calls.append("alone")

@pytest.mark.watches_scaling
def test_watches(session):
    session.calls.append("watches")
"""


@dataclass(frozen=True)
class Scaled(LabSession):
    """A session that writes down what it is told."""

    calls: list[str] = field(default_factory=list)

    def begin_scaling(self) -> None:
        self.calls.append("begin")

    def settle(self) -> None:
        self.calls.append("settle")


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ((), ["begin", "beside", "begin", "settle", "alone", "begin", "settle", "watches"]),
        (("-k", "not watches"), ["beside", "settle", "alone"]),
    ],
    ids=["somebody watches", "nobody watches"],
)
def test_a_deployment_is_scaled_beside_the_lessons_that_it_does_not_disturb(
    tmp_path: Path, options: tuple[str, ...], calls: list[str]
) -> None:
    hosts, external = cast("Hosts", SimpleNamespace(names=())), cast("ExternalHost", None)
    session = Scaled(SEEN, hosts, external, cast("Any", None), lambda: SEEN)
    code, outcomes = run(tmp_path / "mine", *options, given=session, file="test_scaled.py", lessons=SCALED)
    assert (code, set(outcomes.found.values())) == (0, {"passed"}), outcomes.found
    assert session.calls == calls
