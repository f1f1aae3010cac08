"""Every read-only lesson holds on a recording of a healthy lab, and fails when just its subject is broken there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hoplab.observe.snapshot import Snapshot
from hoplab.verify import requirements
from hoplab.verify.claims import Claim, ClaimFailed
from tests.support.edited import hosts, machines
from tests.support.edited.flannel import FAULTS
from tests.support.edited.flannel_requirements import MORE
from tests.support.edits import FIRST, HEALTHY, SECOND, Fault, changed, on_node
from tests.support.lesson_functions import applies, failures, read_only


def test_all_lessons_hold_on_a_healthy_lab() -> None:
    assert failures(read_only(), HEALTHY) == {}
    assert len(read_only()) >= 35


@pytest.mark.parametrize("fault", (*FAULTS, *MORE, *machines.FAULTS), ids=lambda fault: fault.name)
def test_a_fault_fails_exactly_its_lessons(fault: Fault) -> None:
    fault.fails_its_lessons()


def test_every_lesson_catches_some_fault() -> None:
    there = {name for name in read_only() if applies(name, HEALTHY)}
    assert there == {name for fault in (*FAULTS, *MORE, *machines.FAULTS, *hosts.FAULTS) for name in fault.caught_by}


def test_lessons_that_do_not_apply_are_skipped_with_the_reason() -> None:
    def lab(**other: Any) -> Snapshot:
        return replace(HEALTHY, setting=replace(HEALTHY.setting, **other))

    assert requirements.skip_reason(HEALTHY, cni="flannel", backend="vxlan", proxy="iptables", nodes=2) == ""
    assert "needs the CNI flannel; this lab has calico" in requirements.skip_reason(lab(cni="calico"), cni="flannel")
    assert "needs the load balancer metallb; this lab has none" in requirements.skip_reason(
        lab(load_balancer="none"), load_balancer="metallb"
    )
    assert requirements.skip_reason(HEALTHY, load_balancer="metallb") == ""
    assert "backend vxlan; this lab has host-gw" in requirements.skip_reason(
        lab(backend="host-gw"), cni="flannel", backend="vxlan"
    )
    assert "needs kube-proxy in iptables mode" in requirements.skip_reason(lab(proxy_mode="nftables"), proxy="iptables")
    assert "needs the service other of the verification workload" in requirements.skip_reason(HEALTHY, service="other")
    assert requirements.skip_reason(HEALTHY, service="echo") == ""
    assert "needs 9 nodes" in requirements.skip_reason(HEALTHY, nodes=9)


def test_a_failed_claim_carries_its_evidence() -> None:
    with pytest.raises(ClaimFailed) as caught:
        Claim().require(False, "worker1 has no cni0", "1: lo", "2: eth0")
    assert caught.value.why == "worker1 has no cni0"
    assert str(caught.value) == "worker1 has no cni0\n    1: lo\n    2: eth0"


def test_a_missing_record_may_be_one_that_could_not_be_read() -> None:
    lost = on_node("routes", changed({"dst": str(SECOND.pod_cidr)}, metric="low"))
    lesson = "a_node_routes_every_other_range_to_its_node"
    why = failures([lesson], lost)[lesson]
    assert why.startswith(f"{FIRST.name} has no route {SECOND.pod_cidr}")
    assert why.endswith(", and 1 entry could not be read")
