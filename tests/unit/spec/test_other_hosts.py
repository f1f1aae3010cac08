"""Specs against the host that runs the machines: what is in use there, and where a control plane can be."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from hoplab.core.errors import SpecError
from hoplab.spec.model import LabSpec
from hoplab.spec.parse import parse_spec
from hoplab.spec.plan import plan_lab
from tests.support.specs import PARTS, VERSIONS, FakeHost

FAR = "qemu+ssh://ann@rack7/system"


def parse(host: FakeHost | None = None, **config: Any) -> LabSpec:
    return parse_spec("dev", {f"lab:{key}": value for key, value in config.items()}, "x", PARTS, host, VERSIONS)


def issues(host: FakeHost | None = None, **config: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse(host, **config)
    return [str(issue) for issue in caught.value.issues]


def test_a_range_in_use_is_named_by_its_user_and_the_host_by_its_name() -> None:
    host = FakeHost(networks=(IPv4Network("192.168.77.0/24"),), by="Docker's network docker0")
    assert issues(host, libvirt="system") == [
        "network: 192.168.77.0/24 overlaps 192.168.77.0/24, which this host uses (Docker's network docker0); "
        "a range the host does not use, for instance 10.0.0.0/24"
    ]
    far = FakeHost(4000, (IPv4Network("192.168.0.0/16"),), "ann@rack7", "tailscale0, table 52", "ip rule add X")
    assert issues(far, libvirt=FAR, nodes={"workers": 1}) == [
        "nodes: a worker with 2048 MiB and a control plane with 3072 MiB need 5120 MiB, and ann@rack7 has 4000 MiB; "
        "fewer workers, or less memory for each",
        "network: 192.168.77.0/24 overlaps 192.168.0.0/16, which ann@rack7 uses (tailscale0, table 52); "
        "a range it does not use, for instance 10.0.0.0/24; or there: ip rule add X",
    ]


def test_the_host_is_that_of_the_specs_libvirt() -> None:
    asked = []

    def host(spec: LabSpec) -> FakeHost:
        asked.append(spec.libvirt)
        return FakeHost(memory_mib=100)

    with pytest.raises(SpecError, match="this host has 100 MiB"):
        parse_spec("dev", {"lab:libvirt": "system"}, "x", PARTS, host, VERSIONS)
    with pytest.raises(SpecError) as caught:
        parse_spec("dev", {"lab:libvirt": "xen"}, "x", PARTS, host, VERSIONS)
    assert asked == ["system"] and len(caught.value.issues) == 1


def test_a_hosted_control_plane_is_out_of_reach_for_machines_of_another_host() -> None:
    assert issues(libvirt=FAR, controlPlane={"placement": "hosted"}) == [
        "controlPlane.placement: hosted runs it on this host, which the machines of ann@rack7 can't reach; "
        "vm or auto: a machine there; or a libvirt of this host"
    ]
    assert parse(libvirt="system", controlPlane={"placement": "hosted"}).control_plane_placement == "hosted"
    planned = plan_lab(parse(libvirt=FAR), PARTS, lab_id="dev-0", accel="tcg", ingress_at_hand=())
    assert (planned.placement, planned.nodes[0].name) == ("vm", "cp1")
