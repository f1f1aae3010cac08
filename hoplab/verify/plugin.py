"""The pytest plugin with the fixtures and the marker of lessons.

    pytest tests/lessons --lab dev               # on a running lab
    pytest tests/lessons --recording lab.json    # on a recording of one

Its fixtures are ``lab``, ``session``, ``host`` and ``claim``, its marker is ``needs``. Without either option every test
with one of the fixtures is skipped, so that collection works everywhere, for example in the test explorer of an IDE.

It is active in a checkout (conftest.py) and where the package is installed (entry point ``pytest11``). Every run of
pytest imports it there, so the fixtures import heavy modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hoplab.core.errors import LabError, UnavailableError
from hoplab.core.paths import LabPaths
from hoplab.lab import rootless
from hoplab.verify.claims import Claim

if TYPE_CHECKING:
    from hoplab.observe.outage import Outage
    from hoplab.observe.snapshot import Snapshot
    from hoplab.verify.session import LabSession

SNAPSHOT: pytest.StashKey[Snapshot] = pytest.StashKey()  # of the lab, once it was looked at
GIVEN: pytest.StashKey[LabSession | Snapshot] = pytest.StashKey()  # a lab opened by the caller of pytest
SCALES: pytest.StashKey[bool] = pytest.StashKey()  # whether a lesson of the run looks at a deployment being scaled
NO_LAB = "lessons are checked on a lab (--lab NAME) or on a recording of one (--recording FILE)"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that name the lab."""
    group = parser.getgroup("hoplab")
    group.addoption("--lab", metavar="NAME", help="check the lessons on this running lab")
    group.addoption("--recording", metavar="FILE", help="check the read-only lessons on a recording of a lab")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; raise UsageError when the options name no lab, or two."""
    config.addinivalue_line(
        "markers",
        "needs(cni, backend, proxy, nodes, ingress, service, load_balancer, ipv6, cni_nftables, policies, policy, "
        "programs, kube_proxy, facts, own_lab, one_subnet, node_ranges, workload_pods, outside): what a lab must have",
    )
    config.addinivalue_line("markers", "watches_scaling: looks at what the lab does while a deployment is scaled")
    config.addinivalue_line("markers", "beside_scaling: is not disturbed by that, so it runs meanwhile")
    config.addinivalue_line("markers", "rests_on(*claims, anywhere=False): claims whose failures explain this one's")
    config.addinivalue_line("markers", "remedy(shows, mends, says, cni): commands that show and mend a failure")
    if config.getoption("--lab") and config.getoption("--recording"):
        raise pytest.UsageError("--lab and --recording exclude each other")
    if config.getoption("--lab"):
        try:
            rootless.enter(LabPaths(config.getoption("--lab")), makes=False)
            _node_names(config)
        except LabError as error:
            raise pytest.UsageError(_text(error)) from None
    config.pluginmanager.register(_NodeFixture(), "hoplab-host")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Check the requirements of a lesson before any other of its fixtures is set up."""
    names = item.fixturenames if isinstance(item, pytest.Function) and item.get_closest_marker("needs") else None
    if names is not None and "_requirements" not in names:
        names.insert(0, "_requirements")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note whether a lesson that runs looks at a deployment being scaled."""
    session.config.stash[SCALES] = any(item.get_closest_marker("watches_scaling") for item in session.items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Skip a lesson whose requirements depend on what could not be looked at."""
    return (yield from _not_checked(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Skip a lesson that depends on what could not be looked at."""
    return (yield from _not_checked(item))


def _not_checked(item: pytest.Item) -> Iterator[None]:
    from hoplab.verify import not_checked  # noqa: PLC0415

    lab = _looked_at(item.config)
    with not_checked.skipping(item, lab), _skipping_unknown(lab):
        return (yield)


@contextmanager
def _skipping_unknown(lab: Snapshot | None) -> Iterator[None]:
    """Skip a lesson about a part of a foreign cluster that hoplab does not know."""
    try:
        yield
    except LabError as error:
        from hoplab.verify import requirements  # noqa: PLC0415

        if lab is None or not (reason := requirements.unknown_reason(error, lab)):
            raise
        pytest.skip(reason)


def _looked_at(config: pytest.Config) -> Snapshot | None:
    """Return the snapshot of the lab; None before there is one."""
    given = config.stash.get(GIVEN, None)
    return _snapshot_of(given) if given else config.stash.get(SNAPSHOT, None)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let a run on a lab with outages fail, also where no claim does."""
    if exitstatus == pytest.ExitCode.OK and _outages(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what could not be looked at or does not run, and why."""
    if found := _outages(config):
        terminalreporter.section("outages of the lab")
        for outage in found:
            terminalreporter.line("\n    ".join((outage.problem, *outage.evidence)))


def _outages(config: pytest.Config) -> tuple[Outage, ...]:
    from hoplab.observe import health  # noqa: PLC0415

    lab = _looked_at(config)
    return health.outages(lab) if lab else ()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``host`` once per node of the running lab."""
    if "_node_name" in metafunc.fixturenames and (names := _node_names(metafunc.config)):
        metafunc.parametrize("_node_name", names, indirect=True, scope="session")


def _node_names(config: pytest.Config) -> tuple[str, ...]:
    """Return the names of the running lab's nodes; none on a recording and without a lab."""
    from hoplab.lab import state  # noqa: PLC0415
    from hoplab.verify.session import LabSession  # noqa: PLC0415

    given = config.stash.get(GIVEN, None)
    if isinstance(given, LabSession):
        return (*given.hosts.names, *given.snapshot.lost_nodes)
    if given or not config.getoption("--lab"):
        return ()
    return tuple(node.name for node in state.load(LabPaths(config.getoption("--lab"))).nodes)


@pytest.fixture(scope="session")
def _opened(pytestconfig: pytest.Config) -> Iterator[LabSession | Snapshot]:
    """Return the lab or recording of the options, or of the caller of pytest."""
    from hoplab.observe import recording_format  # noqa: PLC0415
    from hoplab.verify import session  # noqa: PLC0415

    given = pytestconfig.stash.get(GIVEN, None)
    recording, name = pytestconfig.getoption("--recording"), pytestconfig.getoption("--lab")
    if not (given or recording or name):
        pytest.skip(NO_LAB)
    with ExitStack() as stack:
        try:
            found = (
                given
                or (recording and recording_format.load(Path(recording)))
                or stack.enter_context(session.opened(LabPaths(name)))
            )
        except LabError as error:  # no lesson can run: one message in place of one a lesson
            pytest.exit(_text(error), returncode=pytest.ExitCode.USAGE_ERROR)
        pytestconfig.stash[SNAPSHOT] = _snapshot_of(found)
        yield found


def _text(error: LabError) -> str:
    return f"{error.message}\n{error.remedy}" if error.remedy else error.message


@pytest.fixture(scope="session")
def lab(_opened: LabSession | Snapshot) -> Snapshot:
    """Return the facts of the whole lab, taken once for all lessons."""
    return _snapshot_of(_opened)


def _snapshot_of(opened: LabSession | Snapshot) -> Snapshot:
    from hoplab.observe.snapshot import Snapshot  # noqa: PLC0415

    return opened if isinstance(opened, Snapshot) else opened.snapshot


@pytest.fixture
def session(request: pytest.FixtureRequest, _opened: LabSession | Snapshot) -> LabSession:
    """Return the running lab, for lessons that send packets; skip the test on a recording."""
    from hoplab.verify import requirements  # noqa: PLC0415
    from hoplab.verify.session import LabSession  # noqa: PLC0415

    if not isinstance(_opened, LabSession):
        foreign = _opened.setting.foreign
        pytest.skip(requirements.TRAFFIC if foreign else "needs a running lab to send packets; this is a recording")
    needs = [marker.kwargs for marker in request.node.iter_markers("needs")]
    if reason := requirements.session_reason(_opened.snapshot, needs, outside=_opened.outside):
        pytest.skip(reason)
    if request.config.stash.get(SCALES, False):
        _opened.begin_scaling()
    if not request.node.get_closest_marker("beside_scaling"):
        _opened.settle()
    return _opened


@pytest.fixture(scope="session")
def _node_name(request: pytest.FixtureRequest) -> str:
    name: str = getattr(request, "param", "")  # no name on a recording and without a lab
    return name


class _NodeFixture:
    """The fixture ``host``. It is registered last and overrides the fixture of testinfra's plugin."""

    @pytest.fixture
    def host(self, _node_name: str, pytestconfig: pytest.Config) -> Any:
        """Return a node of the running lab as a testinfra host with root commands; the test runs once per node."""
        from hoplab.observe.ssh import Hosts  # noqa: PLC0415
        from hoplab.verify.session import LabSession  # noqa: PLC0415

        if not _node_name:
            pytest.skip("needs a running lab to log in to its nodes (--lab NAME)")
        given = pytestconfig.stash.get(GIVEN, None)
        if isinstance(given, LabSession):
            if _node_name in given.snapshot.lost_nodes and (outage := given.snapshot.outage(_node_name)):
                raise UnavailableError(outage.problem)
            return given.hosts[_node_name]
        return Hosts([_node_name], LabPaths(pytestconfig.getoption("--lab")).ssh_config)[_node_name]


@pytest.fixture
def claim(request: pytest.FixtureRequest, lab: Snapshot) -> Iterator[Claim]:
    """Return the claim of the lesson; the report and JUnit XML contain its observations."""
    from hoplab.verify import not_checked  # noqa: PLC0415

    checked = Claim()
    yield checked
    request.node.user_properties.append(("saw", checked.seen and checked.seen + not_checked.gap(lab)))
    request.node.user_properties.append(("evidence", checked.evidence))


@pytest.fixture
def _requirements(request: pytest.FixtureRequest, lab: Snapshot) -> None:
    """Skip a lesson that does not apply to this lab, with the reason."""
    from hoplab.verify import requirements  # noqa: PLC0415

    for marker in request.node.iter_markers("needs"):
        if reason := requirements.skip_reason(lab, **marker.kwargs):
            pytest.skip(reason)
