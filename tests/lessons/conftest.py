"""What lessons are given: ``lab`` (a snapshot), ``session`` (the running lab, for traffic) and ``claim``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hoplab.core.paths import LabPaths
from hoplab.observe import recording_format
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import runner
from hoplab.verify import session as live_lab
from hoplab.verify.claims import Claim
from hoplab.verify.session import LabSession


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hoplab")
    group.addoption("--lab", metavar="NAME", help="check the claims on this running lab")
    group.addoption("--recording", metavar="FILE", help="check the read-only claims on a recording of a lab")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(cni, backend, proxy, nodes, ingress, service, load_balancer, ipv6): what a lab must have"
    )


@pytest.fixture(scope="session")
def _opened(pytestconfig: pytest.Config) -> Iterator[LabSession | Snapshot]:
    """The lab that was asked for, as verify opened it or (pytest called by hand) opened here."""
    given = pytestconfig.pluginmanager.get_plugin(runner.OPENED)
    with ExitStack() as stack:
        if isinstance(given, runner.Opened):
            yield given.lab
        elif recording := pytestconfig.getoption("--recording"):
            yield recording_format.load(Path(recording))
        elif name := pytestconfig.getoption("--lab"):
            yield stack.enter_context(live_lab.opened(LabPaths(name)))
        else:
            pytest.skip("lessons are checked on a lab (--lab NAME) or on a recording of one (--recording FILE)")


@pytest.fixture(scope="session")
def lab(_opened: LabSession | Snapshot) -> Snapshot:
    """The facts of the whole lab, looked at once."""
    return _opened.snapshot if isinstance(_opened, LabSession) else _opened


@pytest.fixture
def session(_opened: LabSession | Snapshot, _applies: None) -> LabSession:
    """The running lab, for lessons that send packets."""
    if not isinstance(_opened, LabSession):
        pytest.skip("needs a running lab to send packets; this is a recording")
    return _opened


@pytest.fixture
def claim(request: pytest.FixtureRequest, _applies: None) -> Iterator[Claim]:
    """The claim being checked; what it saw goes into the report."""
    checked = Claim()
    yield checked
    request.node.user_properties.append(("saw", checked.seen))
    request.node.user_properties.append(("evidence", checked.evidence))


@pytest.fixture(autouse=True)
def _applies(request: pytest.FixtureRequest, lab: Snapshot) -> None:
    """Skip a lesson that can't apply to this lab, with the reason."""
    for marker in request.node.iter_markers("needs"):
        if reason := runner.lacking(lab, **marker.kwargs):
            pytest.skip(reason)
