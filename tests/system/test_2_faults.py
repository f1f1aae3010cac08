"""Negative controls: a real lab broken in known places. Exactly the lessons on them fail, and hold again after.

Faults that only read-only lessons notice are made several at once, no two of them with a lesson in common: looking at
the whole lab is what takes the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from hoplab.core.paths import LabPaths
from hoplab.verify import observations, requirements
from tests.support.lesson_functions import applies, failures, read_only, with_traffic
from tests.system.conftest import LabCommand
from tests.system.faults import FAULTS, Fault, Site, opened, together, wait

pytestmark = pytest.mark.timeout(0)  # every command that is run has a bound of its own

# What no command on a node can break: kernels do their sums right, a namespace made for a look has no routes, and
# iptables lists built-in chains also where there are none and refuses to work with others. These lessons' negative
# controls are broken recordings, in tests/unit/lessons/test_claims.py.
RECORDINGS_ONLY = {
    "first_and_last_address_follow_from_the_prefix",
    "no_route_means_unreachable",
    "proc_and_ip_route_agree",
    "tables_and_their_hooks",
    "tables_are_called_in_their_order",
    "vxlan_is_sent_from_the_nodes_address",
    "calico_wrote_down_who_has_which_address",
    "blocks_do_not_overlap",
}
# What kube-proxy, which stands still here, has to do itself.
STANDS_STILL = {
    "scaling_changes_the_endpoints_at_once": "for 2 endpoints",
    "the_health_check_port_tells_where_pods_are": "answers nothing on http://",
}
# what Felix, which stands still here, has to write
POLICIES = {"a_policy_denies_what_it_does_not_allow", "a_policy_allows_by_label", "a_policy_stops_what_leaves"}


@pytest.fixture(scope="module")
def site(lab: LabCommand, paths: LabPaths) -> Iterator[Site]:
    """The node of the pod `single`, until the last fault is repaired."""
    with opened(paths) as found:
        yield found


@pytest.mark.parametrize("faults", together(FAULTS), ids=lambda faults: ", ".join(fault.name for fault in faults))
def test_faults_fail_exactly_their_lessons(faults: tuple[Fault, ...], site: Site) -> None:
    if reason := requirements.skip_reason(site.session.snapshot, **faults[0].needs):
        pytest.skip(reason)
    try_(faults, site)


def try_(faults: Sequence[Fault], site: Site) -> None:
    """Make them, see who notices and what it says, repair them, and see that all is well again."""
    traffic = [lesson for fault in faults for lesson in fault.traffic]
    with ExitStack() as stack:
        for fault in faults:
            stack.enter_context(fault.broken(site))
        found = failing(traffic, site)
    due = {lesson for fault in faults for lesson in fault.lessons if applies(lesson, site.session.snapshot)}
    assert set(found) == due, found
    for fault in faults:
        assert fault.says.format(**site.words) in found[fault.lessons[0]], found
    if traffic:
        for node in site.session.snapshot.nodes:
            site.run("conntrack -F", node)  # what it remembers of broken connections would be told of whole ones
        wait(lambda: not failures(traffic, site.session.snapshot, site.session))
    if any(fault.caught_by for fault in faults):  # where nobody saw anything, the next fault's look is early enough
        wait(lambda: not failing([], site))


def failing(traffic: Iterable[str], site: Site) -> dict[str, str]:
    """All read-only lessons that fail now, and of the others those that are to notice one of the faults."""
    seen = site.session.refreshed()
    return failures([*read_only(), *traffic], seen.snapshot, seen)


def test_a_kube_proxy_that_stands_still_is_noticed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "SETTLE_DEADLINE", 20.0)  # it will not come right by waiting
    found = failures(STANDS_STILL, site.session.snapshot, site.session)
    assert set(found) == set(STANDS_STILL)
    assert all(says in found[lesson] for lesson, says in STANDS_STILL.items()), found


@pytest.mark.parametrize("lesson", sorted(POLICIES))
def test_a_felix_that_stands_still_is_noticed(lesson: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    if not applies(lesson, site.session.snapshot):
        pytest.skip("needs Calico")
    monkeypatch.setattr(observations, "SETTLE_DEADLINE", 20.0)
    assert set(failures([lesson], site.session.snapshot, site.session)) == {lesson}


def test_every_lesson_catches_some_fault() -> None:
    caught = {name for fault in FAULTS for name in fault.lessons}
    assert caught | set(STANDS_STILL) | POLICIES | RECORDINGS_ONLY == {*read_only(), *with_traffic()}
