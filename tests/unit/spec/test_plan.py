"""The plan: pure, deterministic, and what it promises about addresses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import hoplab.spec.plan
from hoplab.expectations.parts import known_parts
from hoplab.image import ingress_controllers
from hoplab.lab.spec_file import plan_lab
from hoplab.spec.model import AddressRange, LabSpec, NodeSize, Placement
from hoplab.spec.plan import LabPlan, mac_address, mac_addresses


def plan(spec: LabSpec, accel: Literal["kvm", "tcg"] = "kvm") -> LabPlan:
    return plan_lab(spec, lab_id=f"{spec.lab}-abc123", accel=accel)


def as_text(planned: LabPlan) -> str:
    return json.dumps(dataclasses.asdict(planned), indent=2, default=str) + "\n"


def test_plan_with_kvm(golden: Callable[[str, str], None]) -> None:
    golden("plan_kvm.json", as_text(plan(LabSpec("dev"))))


def test_plan_emulated(golden: Callable[[str, str], None]) -> None:
    golden("plan_tcg.json", as_text(plan(LabSpec("dev"), "tcg")))


def test_labs_of_a_family_are_alike_inside() -> None:
    one, two = (plan(LabSpec(lab, family="course")) for lab in ("course-s1", "course-s2"))
    assert (one.nodes, one.network.domain) == (two.nodes, two.network.domain)
    assert one.network.domain == "course.hoplab"
    assert (one.network.name, one.network.bridge) != (two.network.name, two.network.bridge)
    assert plan(LabSpec("course-s1")).nodes != plan(LabSpec("course-s2")).nodes


def test_components_are_the_names_of_roles() -> None:
    assert plan(LabSpec("dev", ingress_controller="none")).components == ("cni_flannel",)
    spec = LabSpec("dev", ingress_controller="ingress-nginx")
    assert plan(spec).components == ("cni_flannel", "ingress_ingress_nginx")


def test_sizes_that_were_asked_for() -> None:
    spec = LabSpec("dev", control_plane_size=NodeSize(4, 4096, 30), worker_size=NodeSize(memory_mib=1536))
    nodes = plan(spec, "tcg").nodes
    assert [(node.vcpus, node.memory_mib, node.disk_gib) for node in nodes] == [(1, 1536, 20)] * 2
    assert plan(spec).nodes[0].memory_mib == 4096


def test_cluster_addresses() -> None:
    planned = plan(LabSpec("dev", service_cidr=IPv4Network("10.20.0.0/16")))
    assert (str(planned.api_service_ip), str(planned.dns_ip)) == ("10.20.0.1", "10.20.0.10")
    assert [node.name for node in planned.workers] == ["worker1", "worker2"]


def test_warnings() -> None:
    assert plan(LabSpec("dev")).warnings == ()
    assert plan(LabSpec("dev", ingress_controller="ingress-nginx")).warnings == (
        "ingress-nginx was retired in March 2026, there are no fixes any more: ingress.controller",
    )
    assert plan(LabSpec("dev"), "tcg").warnings == ()
    risky = LabSpec("dev", control_plane_placement="vm", worker_size=NodeSize(vcpus=2))
    assert plan(risky).warnings == ()
    assert plan(risky, "tcg").warnings == (
        "an emulated control plane takes minutes to settle and a core for good: controlPlane.placement",
        "worker1 has more than one emulated vCPU and may crash at boot: nodes.worker.vcpus",
    )


@pytest.mark.parametrize(
    ("asked", "at_hand", "chosen", "why"),
    [
        ("auto", ("nginx", "readable"), "nginx", "its image is at hand"),
        ("auto", ("readable",), "readable", "the image of nginx is not at hand"),
        ("auto", (), "none", "the image of nginx and readable is not at hand"),
        ("readable", ("nginx", "readable"), "readable", ""),
        ("none", ("readable",), "none", ""),
    ],
)
def test_ingress_controller(asked: str, at_hand: tuple[str, ...], chosen: str, why: str) -> None:
    spec = LabSpec("dev", ingress_controller=asked)
    found = plan_lab(spec, lab_id="dev-0", accel="tcg", ingress_at_hand=at_hand)
    assert (found.ingress_controller, found.ingress_why) == (chosen, why)


def test_the_reason_tells_that_registries_were_asked() -> None:
    found = hoplab.spec.plan.plan_lab(
        LabSpec("dev"),
        known_parts(),
        lab_id="dev-0",
        accel="tcg",
        ingress_at_hand=("readable",),
        registries_offline=True,
    )
    assert found.ingress_controller == "readable"
    assert found.ingress_why == "the image of nginx is not at hand, and no registry gave it"


def test_auto_takes_a_controller_that_serves_what_is_asked() -> None:
    spec = LabSpec("dev", gateway_api=True)
    found = plan_lab(spec, lab_id="dev-0", accel="tcg", ingress_at_hand=("nginx", "readable"))
    assert (found.ingress_controller, found.gateway_api) == ("readable", True)
    assert not plan(LabSpec("dev")).gateway_api


def test_a_gateway_controller_is_a_component() -> None:
    found = plan(LabSpec("dev", gateway_controller="nginx", load_balancer="metallb"))
    assert "gateway_nginx" in found.components
    assert not any(name.startswith("gateway_") for name in plan(LabSpec("dev")).components)


def test_the_node_image_has_an_ingress_controller() -> None:
    assert "readable" in ingress_controllers()


@st.composite
def specs(draw: st.DrawFn) -> LabSpec:
    """Valid specs: any network that is large enough for its workers."""
    workers = draw(st.integers(1, 300))
    prefix = draw(st.integers(8, 32 - (20 + workers).bit_length()))
    network = IPv4Network((draw(st.integers(0x01000000, 0x7E000000)), prefix), strict=False)
    placement: Placement = draw(st.sampled_from(("auto", "vm", "hosted")))
    lab = draw(st.from_regex(r"[a-z][a-z0-9]{0,19}", fullmatch=True))
    return LabSpec(lab, workers=workers, network=network, control_plane_placement=placement)


@given(specs(), st.sampled_from(("kvm", "tcg")))
def test_addresses(spec: LabSpec, accel: Literal["kvm", "tcg"]) -> None:
    """Unique, inside the network, never the network's own, the gateway's or the broadcast address."""
    planned = plan(spec, accel)
    addresses = [node.address for node in planned.nodes]
    assert len(set(addresses)) == len(addresses)
    assert all(address in spec.network for address in addresses)
    assert not {spec.network[0], spec.network[-1], planned.network.gateway} & set(addresses)
    assert planned.network.gateway in spec.network
    assert planned == plan(spec, accel)


@given(specs(), st.sampled_from(("kvm", "tcg")))
def test_a_pool_is_nobodys(spec: LabSpec, accel: Literal["kvm", "tcg"]) -> None:
    """The default pool is inside the network and has no address of a machine, of the host end or of the network."""
    planned = plan(dataclasses.replace(spec, load_balancer="metallb"), accel)
    assume(planned.pool is not None)
    assert planned.pool
    assert planned.pool.first in spec.network and planned.pool.last in spec.network
    machines = [node.address for node in planned.nodes]
    for address in (*machines, planned.network.gateway, spec.network[0], spec.network[10], spec.network[-1]):
        assert address not in planned.pool


def test_pools() -> None:
    assert plan(LabSpec("dev")).pool is None
    assert str(plan(LabSpec("dev", load_balancer="metallb")).pool) == "192.168.77.245-192.168.77.254"
    asked = AddressRange.parse("192.168.77.100/30")
    assert plan(LabSpec("dev", load_balancer="metallb", load_balancer_pool=asked)).pool == asked


@given(specs(), st.integers(1, 50))
def test_more_workers_change_nothing_of_those_there_are(spec: LabSpec, more: int) -> None:
    spec = dataclasses.replace(spec, network=IPv4Network("10.0.0.0/16"))
    small, large = plan(spec), plan(dataclasses.replace(spec, workers=spec.workers + more))
    assert large.nodes[: len(small.nodes)] == small.nodes


@given(st.lists(st.text("abc", min_size=1), unique=True))
def test_macs_are_unique_even_when_hashes_collide(names: list[str]) -> None:
    """With a hash of three values only, every name still gets a MAC of its own."""

    def poor(lab: str, node: str, attempt: int = 0) -> str:
        return f"52:54:00:00:00:{len(node) % 3 + 3 * attempt:02x}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hoplab.spec.plan, "mac_address", poor)
        macs = mac_addresses("dev", names)
    assert list(macs) == names
    assert len(set(macs.values())) == len(names)


def test_a_real_collision_is_resolved() -> None:
    """The first two workers of lab dev that share a hash: the earlier keeps its MAC, the later moves on."""
    seen: dict[str, str] = {}
    one, other = next(
        (seen[mac], name)
        for name in (f"worker{number}" for number in range(1, 100_000))
        if seen.setdefault(mac := mac_address("dev", name), name) != name
    )
    macs = mac_addresses("dev", [one, other])
    assert macs[one] == mac_address("dev", one)
    assert macs[other] == mac_address("dev", other, 1) != macs[one]


def test_a_thousand_nodes_take_a_hash_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work counted, not time: one MAC hash per machine, and a few for collisions. benchmarks/plan.py has the time."""
    calls = []

    def counting(lab: str, node: str, attempt: int = 0) -> str:
        calls.append(node)
        return mac_address(lab, node, attempt)

    monkeypatch.setattr(hoplab.spec.plan, "mac_address", counting)
    planned = plan(LabSpec("big", workers=1000, network=IPv4Network("10.0.0.0/21")))
    assert len({node.mac for node in planned.nodes}) == 1001
    assert len(calls) <= 1001 + 10


def test_bridge_name_fits_the_kernel() -> None:
    assert len(plan(LabSpec("a" * 20)).network.bridge) <= 15
