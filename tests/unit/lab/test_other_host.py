"""Labs whose machines another host runs: the way to the API, clocks, and what can't be done from here."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from hoplab.core.errors import HostError, LabError, UnavailableError
from hoplab.host import accel, machines
from hoplab.host.accel import AccelChoice
from hoplab.lab import captures, clocks, host_access, state
from hoplab.lab.api_forward import ApiForward
from hoplab.lab.port_forward import Destination
from hoplab.lab.state import LabState, NodeState
from tests.support.labs import MADE, ShortRun

FAR = "qemu+ssh://ann@rack7/system"
LAB = replace(MADE, libvirt_uri=FAR, nodes=(NodeState("cp1", "control-plane", "192.168.77.10", "m"), *MADE.nodes))


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[LabState, ShortRun]:
    def start(_self: ApiForward, to: Destination, way: str, port: int = 0) -> int:
        assert (str(to), way) == ("192.168.77.10:6443", FAR)
        return {0: 23456, 23456: 23456, 20001: 20002}[port]

    monkeypatch.setattr(ApiForward, "start", start)
    paths = ShortRun("dev", tmp_path)
    state.save(LAB, paths)
    return LAB, paths


def test_the_api_is_forwarded_before_there_is_a_cluster(lab: tuple[LabState, ShortRun]) -> None:
    found, paths = lab
    opened = host_access.open_way(found, paths)
    assert opened.api_port == 23456 and state.load(paths) == opened
    assert host_access.open_way(opened, paths) == opened
    local = replace(found, libvirt_uri="qemu:///system")
    assert host_access.open_way(local, paths) is local
    assert (found.way, local.way, replace(local, netns="lab-ns").way) == (FAR, "", "lab-ns")


def test_the_labs_own_kubeconfig_follows_the_port(lab: tuple[LabState, ShortRun]) -> None:
    found, paths = lab
    paths.kubeconfig.write_text("server: https://127.0.0.1:20001\ntls-server-name: 192.168.77.10\n")
    assert host_access.open_way(replace(found, api_port=20001), paths).api_port == 20002
    assert paths.kubeconfig.read_text() == "server: https://127.0.0.1:20002\ntls-server-name: 192.168.77.10\n"
    assert paths.kubeconfig.stat().st_mode & 0o777 == 0o600


def test_clocks_are_compared_with_that_of_the_machines_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.host.remote.run", lambda _host, _script: f"{time.time() + 500:.3f}\n")
    assert 490 < clocks.clock_of(LAB)() - time.time() < 510
    assert clocks.clock_of(MADE) is time.time


def test_a_host_whose_clock_can_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_host: object, _script: str) -> str:
        raise HostError("ann@rack7 does not answer")

    monkeypatch.setattr("hoplab.host.remote.run", none)
    with pytest.raises(UnavailableError, match="the clock of ann@rack7 can't be read"):
        clocks.clock_of(LAB)


def test_the_wire_is_on_the_other_host(lab: tuple[LabState, ShortRun], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "_resolved", lambda *_: ())
    with pytest.raises(LabError) as caught:
        captures.capture(lab[1], captures.Request((), with_wire=True), lambda _: None, None)  # type: ignore[arg-type,return-value]
    assert caught.value.message == "the wire of lab 'dev' is on ann@rack7, where no capture can be made from here"
    assert caught.value.remedy.startswith("capture there: sudo tcpdump -ni hl")


def test_kvm_is_what_the_libvirt_offers() -> None:
    assert accel.of_libvirt("auto", True) == AccelChoice("kvm", "libvirt offers it")
    assert accel.of_libvirt("auto", False) == AccelChoice("tcg", "libvirt offers no KVM")
    assert accel.of_libvirt("tcg", True).accel == "tcg"
    with pytest.raises(HostError, match="the spec asks for KVM, which its libvirt does not offer"):
        accel.of_libvirt("kvm", False)


def test_what_a_libvirt_says_of_itself() -> None:
    found = machines.capabilities("test:///default")
    assert found.version >= 9_000_000 and found.number.count(".") == 2 and not found.kvm
    assert machines.network_bridges("test:///default") == {"virbr0": "default"}
    assert machines.network_bridges("qemu+unix:///system?socket=/nonexistent") == {}
    with pytest.raises(HostError, match="libvirt does not answer at qemu"):
        machines.capabilities("qemu+unix:///system?socket=/nonexistent")
