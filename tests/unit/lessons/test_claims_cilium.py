"""Cilium's lessons hold on healthy imaginary labs, one of each backend, and fail when just their subject is broken."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import cast

import pytest

from hoplab.expectations import proxy
from hoplab.expectations.cni import cilium
from hoplab.observe.facts import Facts
from hoplab.observe.facts.cilium_conntrack import Tracked
from hoplab.observe.facts.conntrack import Direction, Flow
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Node, Pod, Snapshot
from hoplab.verify import requirements
from hoplab.verify.session import LabSession
from hoplab.verify.traffic import Exchange
from tests.support import edits
from tests.support.edited.cilium import FAULTS, LABS, VXLAN
from tests.support.edits import Fault
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
    without = replace(VXLAN, setting=replace(VXLAN.setting, proxy_mode=cilium.PART.name))
    assert requirements.skip_reason(without, kube_proxy=True) == (
        "needs the rules of kube-proxy; this lab has none, cilium does its work"
    )
    assert not requirements.skip_reason(VXLAN, kube_proxy=True)
    assert failures(read_only(), without) == {}


@dataclass
class Session:
    """A lab in which `single` answers a pod of the other node by its service. Each switch is one fault."""

    kernel: bool = False  # conntrack has the connection, too
    counts: bool = False  # ... and a rule of kube-proxy has counted it
    in_map: bool = True
    replaced: bool = True  # by a connection to the pod
    answers: bool = True

    snapshot = VXLAN
    echo_pods = tuple(pod for pod in VXLAN.pods if pod.api.label("app") == "echo")
    single = next(pod for pod in VXLAN.pods if pod.api.label("app") == "single")

    @property
    def client(self) -> Pod:
        return next(pod for pod in self.echo_pods if pod.node is not self.single.node)

    def service(self, name: str) -> proxy.ServiceExpectation:
        return next(found for found in proxy.expectations(VXLAN) if found.service == f"hoplab-verify/{name}")

    def request(self, pod: Pod, url: str, *, rules: bool) -> Exchange:
        assert rules and pod is self.client
        end = Direction(str(pod.address), str(self.service("single").cluster_ip), 41000, 80)
        reply = Direction(str(self.single.address), end.src, 8080, 41000)
        flows = (Flow("tcp", "ESTABLISHED", end, reply),) if self.kernel else ()
        before = pod.node.facts
        saved = before.outputs["iptables"].out
        if self.counts:
            saved = re.sub(rf"^\[\d+:(?=\d+\] -A KUBE-SERVICES -d {end.dst}/32)", "[987654:", saved, flags=re.MULTILINE)
            assert saved != before.outputs["iptables"].out
        after = Facts(before.place, {**before.outputs, "iptables": Output(0, saved)})
        return Exchange(url, Output(0 if self.answers else 28, "{}", ""), flows, before=before, after=after)

    def tracked(self, _node: Node, address: IPv4Address) -> tuple[Tracked, ...]:
        service = self.service("single")
        to_service = Tracked("tcp", "SVC", address, 41000, service.cluster_ip, service.port, 5)
        to_pod = Tracked("tcp", "OUT", address, 41000, self.single.address, 8080, 5)
        return (*((to_service,) if self.in_map else ()), *((to_pod,) if self.replaced else ()))


BYPASSED = "programs_translate_before_any_rule"


def test_programs_translate_before_any_rule() -> None:
    assert failures([BYPASSED], VXLAN, cast(LabSession, Session())) == {}


@pytest.mark.parametrize(
    ("session", "says"),
    [
        (Session(answers=False), "does not answer"),
        (Session(in_map=False), "has no connection of"),
        (Session(replaced=False), "in its place"),
        (Session(kernel=True), "the kernel's conntrack on worker1 has it as well"),
        (Session(counts=True), "a rule on worker1 has counted it"),
    ],
)
def test_what_rules_or_conntrack_saw_is_not_bypassed(session: Session, says: str) -> None:
    assert says in failures([BYPASSED], VXLAN, cast(LabSession, session))[BYPASSED]
