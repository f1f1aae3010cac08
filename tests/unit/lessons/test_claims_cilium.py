"""Cilium's lessons hold on healthy imaginary labs, one of each backend, and fail when just their subject is broken."""

from __future__ import annotations

import pytest

from hoplab.observe import capture
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import requirements
from tests.support import edits
from tests.support.edited.cilium import FAULTS, LABS, VXLAN
from tests.support.edits import Fault
from tests.support.imaginary import cilium_ingress, cilium_traffic
from tests.support.imaginary.cilium_traffic import ALONE, BYPASSED, World
from tests.support.imaginary.ingress import DIRECT
from tests.support.imaginary.traffic_faults import CLUSTER_IP, POD_TO_POD, REFUSED
from tests.support.lesson_functions import applies, failures, lessons, read_only


@pytest.mark.parametrize("lab", LABS.values(), ids=LABS)
def test_the_lessons_hold_on_a_healthy_lab(lab: Snapshot) -> None:
    assert failures(read_only(), lab) == {}


def test_every_lesson_of_cilium_catches_some_fault() -> None:
    known = {name for fault in FAULTS for name in fault.caught_by}
    assert {name for name in read_only() if applies(name, VXLAN) and not applies(name, edits.HEALTHY)} <= known


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fails_its_lessons(fault: Fault) -> None:
    fault.fails_its_lessons()


def test_lessons_about_tables_say_why_they_do_not_apply() -> None:
    reasons = {requirements.skip_reason(VXLAN, **needs) for needs in lessons()["who_unwraps_is_written_down"].needs}
    assert reasons == {
        "needs a CNI whose packets pass the kernel's tables and rules; here programs of cilium take them"
    }
    (needs, *_) = lessons()["a_map_knows_the_pods_of_its_node"].needs
    with_maps = [
        requirements.skip_reason(edits.HEALTHY, **need) for need in lessons()["a_map_knows_the_pods_of_its_node"].needs
    ]
    assert "needs a CNI of eBPF programs; flannel is none" in with_maps and needs


def test_lessons_about_kube_proxys_rules_need_one() -> None:
    assert requirements.skip_reason(ALONE, kube_proxy=True) == (
        "needs the rules of kube-proxy; this lab has none, cilium does its work"
    )
    assert not requirements.skip_reason(VXLAN, kube_proxy=True)
    (wrong,) = failures(read_only(), ALONE).items()  # it has kube-proxy's rules
    assert wrong[0] == "no_rule_of_kube_proxy_is_left" and "worker1 has chains of kube-proxy: KUBE-EXT-" in wrong[1]


WITH_MAPS = (BYPASSED, CLUSTER_IP, POD_TO_POD)


def test_what_programs_track_is_seen() -> None:
    assert failures(WITH_MAPS, VXLAN, World().session()) == {}


def test_without_kube_proxy_a_refused_connection_sends_no_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(lab=ALONE, sees=False)
    monkeypatch.setattr(capture, "read", world.read)
    assert failures([REFUSED], ALONE, world.session()) == {}


@pytest.mark.parametrize(
    ("switch", "value", "caught_by", "says"),
    cilium_traffic.FAULTS,
    ids=[f"{switch}-{caught_by[0]}" for switch, _, caught_by, _ in cilium_traffic.FAULTS],
)
def test_what_rules_or_conntrack_saw_is_not_bypassed(
    switch: str, value: object, caught_by: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    monkeypatch.setattr(capture, "read", world.read)
    setattr(world, switch, value)
    assert says in failures(caught_by[:1], VXLAN, world.session())[caught_by[0]]


def test_what_a_controller_sends_is_in_the_map() -> None:
    assert failures([DIRECT], cilium_ingress.RECORDED, cilium_ingress.World().session()) == {}


@pytest.mark.parametrize(("switch", "value", "_caught_by", "says"), cilium_ingress.FAULTS)
def test_what_a_controller_sends_by_a_service_is_named(
    switch: str, value: bool, _caught_by: tuple[str, ...], says: str
) -> None:
    world = cilium_ingress.World()
    setattr(world, switch, value)
    assert says in failures([DIRECT], cilium_ingress.RECORDED, world.session())[DIRECT]
