"""Negative controls: a real lab broken in known places. Exactly the lessons on them fail, and hold again after.

Faults that only read-only lessons notice are made several at once, no two of them with a lesson in common: looking at
the whole lab is what takes the time.

`./lab test` makes some faults of each chapter, `./lab test --all` makes all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hoplab.core.paths import LabPaths
from hoplab.verify import observations, requirements
from tests.support.lesson_functions import applies, failures, lessons
from tests.system.conftest import LabCommand, some_on_request
from tests.system.faults import FAULTS, Fault, Site, opened, together
from tests.system.faults.trial import try_faults

pytestmark = pytest.mark.timeout(0)  # every command that is run has a bound of its own

# What no command on a node can break: kernels do their sums right, a namespace made for a look has no routes, and
# iptables lists built-in chains also where there are none and refuses to work with others. These lessons' negative
# controls are broken recordings, in tests/support/edited.
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
# What would take minutes to bring about and to mend: a CoreDNS that crashes again and again, and a node that
# registers with another one's machine-id. Their negative controls are broken recordings, too.
SLOW = {"coredns_does_not_crash", "no_two_nodes_are_copies_of_one_machine"}
# What kube-proxy, which stands still here, has to do itself.
STANDS_STILL = {
    "scaling_changes_the_endpoints_at_once": "for 2 endpoints",
    "the_health_check_port_tells_where_pods_are": "answers nothing on http://",
}
# what Felix, which stands still here, has to write
POLICIES = {"a_policy_denies_what_it_does_not_allow", "a_policy_allows_by_label", "a_policy_stops_what_leaves"}


GROUPS = together(FAULTS)


def _of_every_run() -> Iterator[tuple[Fault, ...]]:
    """The largest group, and of each file of lessons the first fault that packets notice."""
    yield max(GROUPS, key=len)
    files: set[str] = set()
    for group in GROUPS:
        file = lessons()[group[0].lessons[0]].function.__code__.co_filename
        if group[0].traffic and file not in files:
            files.add(file)
            yield group


EVERY_RUN = tuple(_of_every_run())
TRIALS = some_on_request(GROUPS, EVERY_RUN, lambda group: ", ".join(fault.name for fault in group))


@pytest.fixture(scope="module")
def site(lab: LabCommand, paths: LabPaths) -> Iterator[Site]:
    """The node of the pod `single`, until the last fault is repaired."""
    with opened(paths) as found:
        yield found


@pytest.mark.parametrize("faults", TRIALS)
def test_faults_fail_exactly_their_lessons(faults: tuple[Fault, ...], site: Site) -> None:
    if reason := requirements.skip_reason(site.session.snapshot, **faults[0].needs):
        pytest.skip(reason)
    try_faults(faults, site)


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
