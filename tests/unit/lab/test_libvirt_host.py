"""The checks of a libvirt that is not the lab's own, and of its host."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from hoplab.core.errors import HostError
from hoplab.core.paths import LabPaths
from hoplab.host.look import HostLook
from hoplab.host.machines import Capabilities
from hoplab.lab import libvirt_host
from hoplab.lab.check import Check
from hoplab.spec.model import CniSpec, LabSpec
from hoplab.spec.plan import bridge_name

FAR = "qemu+ssh://ann@rack7/system"
PATHS = LabPaths("dev", Path("/nowhere"))
OUTPUTS = {
    "meminfo": "MemTotal: 4194304 kB\nMemAvailable: 2097152 kB",
    "space": "Filesystem 1-blocks Used Available Capacity Mounted on\n/dev/vda 9 9 3221225472 50% /var",
    "label": "system_u:object_r:virt_image_t:s0",
    "bridged": "1",
    "end": "",
}
HAS = Capabilities(9_000_000, kvm=True, confined_by=("none", "dac"))


def address(device: str, text: str) -> str:
    return f'[{{"ifname": "{device}", "addr_info": [{{"family": "inet", "local": "{text}", "prefixlen": 24}}]}}]'


def host(monkeypatch: pytest.MonkeyPatch, outputs: Mapping[str, str], ahead: float = 0.0) -> None:
    monkeypatch.setattr(libvirt_host, "look", lambda _: HostLook({**OUTPUTS, **outputs}, ahead, "ann@rack7"))


@pytest.fixture(autouse=True)
def _libvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.host.machines.capabilities", lambda _: HAS)
    monkeypatch.setattr("hoplab.host.machines.network_bridges", lambda _: {"virbr0": "default"})


def by_name(spec: LabSpec) -> dict[str, Check]:
    return {check.name: check for check in libvirt_host.checks(spec, PATHS)}


def test_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, {})
    found = by_name(LabSpec("dev", libvirt=FAR))
    assert all(check.ok for check in found.values())
    assert {name: check.found for name, check in found.items()} == {
        "clock": "ann@rack7 is 0.0 s behind",
        "memory": "4096 MiB, 2048 available now on ann@rack7",
        "libvirt": f"9.0.0 at {FAR}",
        "frames on bridges": "meet iptables",
        "forwarding": "no rules known",
        "firewalld": "does not run",
        "kvm": "libvirt offers it",
        "confinement": "none, dac; volumes in /var/lib/libvirt/images",
        "disk for machines": "3.0 GiB free in /var/lib/libvirt/images of ann@rack7",
    }


def test_a_clock_that_differs_makes_certificates_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, {}, ahead=-61.0)
    assert by_name(LabSpec("dev", libvirt=FAR))["clock"] == Check(
        "clock",
        False,
        "ann@rack7 is 61 s behind: certificates of one would not be valid at the other",
        "timedatectl set-ntp true, there and here",
    )
    assert "clock" not in by_name(LabSpec("dev", libvirt="system"))


def test_a_host_that_can_not_be_reached_is_the_only_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> HostLook:
        raise HostError("no way to it", remedy="make one")

    monkeypatch.setattr(libvirt_host, "look", none)
    found = libvirt_host.checks(LabSpec("dev", libvirt=FAR), PATHS)
    assert found == [Check("host of libvirt", False, "no way to it", "make one")]


def test_a_libvirt_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    check, has = libvirt_host.libvirt_answers("qemu+unix:///system?socket=/nonexistent")
    assert has is None and not check.ok
    assert "/nonexistent" in check.found
    assert check.remedy == (
        "start it (systemctl enable --now libvirtd) and join the group libvirt (usermod -aG libvirt $USER, then log in "
        "anew), or let the lab have its own (lab:libvirt private)"
    )
    assert libvirt_host.libvirt_answers("test:///default")[0].ok


def test_a_libvirt_of_another_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> Capabilities:
        raise HostError("Failed to connect socket: Permission denied")

    monkeypatch.setattr("hoplab.host.machines.capabilities", none)
    assert libvirt_host.libvirt_answers(FAR)[0].remedy.startswith("start it on ann@rack7 (systemctl enable --now")


def test_confinement() -> None:
    seen = HostLook(OUTPUTS)
    other = HostLook({"label": "unlabeled_t"})
    check = libvirt_host.confinement(("selinux", "dac"), other, by_cli=False)
    assert (check.ok, check.remedy) == (False, "restorecon -R -v /var/lib/libvirt/images")
    assert check.found == "selinux, dac: /var/lib/libvirt/images has the label unlabeled_t"
    assert libvirt_host.confinement(("selinux", "dac"), seen, by_cli=False).ok
    assert libvirt_host.confinement(("apparmor", "dac"), seen, by_cli=False).ok
    cli = libvirt_host.confinement(("apparmor", "dac"), seen, by_cli=True)
    assert (cli.ok, cli.remedy) == (False, libvirt_host.APPARMOR_LINE)


def test_kvm_is_what_libvirt_offers() -> None:
    assert libvirt_host.kvm_offered(True, LabSpec("dev", accel="kvm")).ok
    assert libvirt_host.kvm_offered(False, LabSpec("dev")).ok
    assert libvirt_host.kvm_offered(False, LabSpec("dev", accel="kvm")) == Check(
        "kvm",
        False,
        "libvirt offers none",
        "enable virtualization in that host's firmware, or set lab:accel to auto",
    )


def test_space_for_volumes_is_that_of_the_host_of_libvirt() -> None:
    few = libvirt_host.space(HostLook(OUTPUTS, remote="ann@rack7"), gib=4.0)
    assert few == Check(
        "disk for machines",
        False,
        "3.0 GiB free in /var/lib/libvirt/images of ann@rack7, 4 are needed",
        "free some space there",
    )


def test_the_own_bridge_is_no_clash(monkeypatch: pytest.MonkeyPatch) -> None:
    network = IPv4Network("192.168.77.0/24")
    own = LabSpec("dev", libvirt=FAR)
    host(monkeypatch, {"addresses": address(bridge_name(PATHS.id), "192.168.77.1")})
    assert libvirt_host.facts_of(own, PATHS).clash(network) is None
    host(monkeypatch, {"addresses": address("virbr0", "192.168.77.1")})
    assert libvirt_host.facts_of(own, PATHS).clash(network) == (network, "libvirt's network default", "")


def test_backends_that_do_not_wrap() -> None:
    assert libvirt_host.masquerade_hurts(LabSpec("dev", cni=CniSpec("flannel", "host-gw"))) == "host-gw"
    assert libvirt_host.masquerade_hurts(LabSpec("dev", cni=CniSpec("flannel", "vxlan"))) == ""


@pytest.mark.parametrize(
    ("libvirt", "placement", "accel", "kvm", "hosted"),
    [
        ("system", "auto", "auto", False, True),
        ("system", "auto", "auto", True, False),
        ("system", "auto", "tcg", True, True),
        ("system", "hosted", "kvm", True, True),
        ("system", "vm", "tcg", False, False),
        (FAR, "auto", "tcg", False, False),
    ],
)
def test_where_the_control_plane_runs(libvirt: str, placement: str, accel: str, kvm: bool, hosted: bool) -> None:
    spec = LabSpec("dev", libvirt=libvirt, control_plane_placement=placement, accel=accel)  # type: ignore[arg-type]
    assert libvirt_host.is_hosted(spec, kvm) == hosted
