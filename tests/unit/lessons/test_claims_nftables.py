"""The lessons about services on a recording of a lab whose kube-proxy is in nftables mode, and on that one broken."""

from __future__ import annotations

import pytest

from hoplab.expectations.proxy import nftables
from tests.support.edited.nftables import (
    FAULTS,
    HEALTHY,
    KEEPS,
    KNOWN,
    LAST,
    LEADS,
    MARKED,
    REJECTS,
    SERVICES,
    SHARE,
    STAYS,
)
from tests.support.edits import HEALTHY as IPTABLES
from tests.support.edits import Fault
from tests.support.lesson_functions import applies, failures, read_only


def test_all_lessons_hold_on_a_healthy_lab() -> None:
    assert failures(read_only(), HEALTHY) == {}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fails_exactly_its_lessons(fault: Fault) -> None:
    fault.fails_its_lessons()


def test_every_lesson_about_services_catches_some_fault() -> None:
    """Those about other things are broken on a recording of the other mode: they are the same lessons."""
    caught = {name for fault in FAULTS for name in fault.caught_by}
    only_here = {name for name in read_only() if applies(name, HEALTHY) and not applies(name, IPTABLES)}
    assert only_here | {LEADS, SHARE, MARKED, LAST, STAYS, KEEPS, KNOWN, REJECTS} == caught


def test_chains_are_named_as_kube_proxy_names_them() -> None:
    for node in HEALTHY.nodes:
        for service in SERVICES.values():
            assert bool(nftables.rules(node, service.chain)) == bool(service.endpoints)
