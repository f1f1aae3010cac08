"""The private libvirtd: real ones where this host has what they need, and every way to fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hoplab.core.errors import EngineError, HostError
from hoplab.core.paths import LabPaths
from hoplab.host import libvirtd, machines, mounts, netns
from hoplab.host.libvirtd import PrivateLibvirt

missing = [tool for tool in libvirtd.TOOLS if shutil.which(tool, path=libvirtd.SEARCH) is None]
needs_libvirt = pytest.mark.skipif(
    os.geteuid() != 0 or bool(missing), reason=f"needs root and {', '.join(missing) or 'nothing else'}"
)
NETWORK = (
    "<network><name>{name}</name><bridge name='hlunit0'/><ip address='192.168.77.1' netmask='255.255.255.0'/></network>"
)
DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><os><type machine='q35'>hvm</type></os>
<devices><serial type='file'><source path='{console}'/></serial></devices></domain>"""


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[tuple[PrivateLibvirt, PrivateLibvirt]]:
    labs = (PrivateLibvirt(LabPaths("unit1", tmp_path)), PrivateLibvirt(LabPaths("unit2", tmp_path)))
    yield labs
    for lab in labs:
        lab.stop()


@needs_libvirt
def test_two_labs_with_the_same_network_do_not_see_each_other(labs: tuple[PrivateLibvirt, PrivateLibvirt]) -> None:
    for lab in labs:
        assert not lab.running()
        assert lab.start() == lab.start() == lab.uri
        with machines.connected(lab.uri) as connection:
            assert connection.listAllNetworks() == []
            connection.networkDefineXML(NETWORK.format(name=f"hoplab-{lab.paths.id}"))
        machines.start_network(lab.uri, f"hoplab-{lab.paths.id}")
        machines.start_network(lab.uri, f"hoplab-{lab.paths.id}")
    first, second = labs
    assert not Path("/sys/class/net/hlunit0").exists()

    removed = first.stop()
    assert removed[0].startswith("libvirtd (pid ")
    assert [line for line in removed if line.startswith("dnsmasq")]
    assert removed[-2:] == [f"network namespace {first.paths.netns}", str(first.paths.run)]
    assert not first.paths.run.exists()
    assert first.stop() == []
    assert second.running()


@needs_libvirt
def test_machines_go_on_without_libvirtd_and_a_new_one_finds_them(labs: tuple[PrivateLibvirt, PrivateLibvirt]) -> None:
    lab, _ = labs
    uri = lab.start()
    lab.paths.console.mkdir(parents=True)
    worker, other = (machines.domain_name(lab.paths.id, node) for node in ("worker1", "2-worker1"))
    console = lab.paths.console / "worker1.log"
    console.write_text("Kernel panic of an earlier boot")
    with machines.connected(uri) as connection:
        connection.networkDefineXML(NETWORK.format(name=f"hoplab-{lab.paths.id}"))
        connection.defineXML(DOMAIN.format(name=worker, console=console))
        connection.defineXML(DOMAIN.format(name=other, console=console))
        assert machines.console_of(connection.lookupByName(worker)).path == console
    machines.start_domain(uri, worker)
    machines.start_domain(uri, worker)
    assert "earlier" not in console.read_text()

    os.kill(int((lab.paths.run / "libvirtd.pid").read_text()), 9)
    lab.start()
    assert machines.domain_states(uri) == {worker: "running", other: "shut off"}
    why = machines.shutdown_domain(uri, worker, deadline_s=0.1)  # a machine without a system ignores it
    assert why.startswith("not down after")
    assert machines.shutdown_domain(uri, worker) == ""  # off already
    assert machines.sweep(uri, lab.paths.id) == [f"machine {worker}", f"network hoplab-{lab.paths.id}"]
    assert machines.domain_states(uri) == {other: "shut off"}  # of a lab whose name only begins like this one's
    with pytest.raises(EngineError, match=f"libvirt has no machine {worker}"):
        machines.start_domain(uri, worker)
    with pytest.raises(EngineError, match="network none could not be started"):
        machines.start_network(uri, "none")


@needs_libvirt
def test_definitions_survive_a_reboot_of_the_host(labs: tuple[PrivateLibvirt, PrivateLibvirt]) -> None:
    lab, _ = labs
    lab.start()
    with machines.connected(lab.uri) as connection:
        connection.defineXML(DOMAIN.format(name="worker1", console=lab.paths.root / "console.log"))
    for pid in netns.processes(lab.paths.netns):
        os.kill(pid, 9)
    netns.delete(lab.paths.netns)
    (netns.NAMED / lab.paths.netns).touch()  # as in a /run that is not emptied at boot
    (lab.paths.run / "libvirtd.pid").write_text(str(os.getpid()))  # a number that is someone else's now
    lab.start()
    assert machines.domain_states(lab.uri) == {"worker1": "shut off"}


@needs_libvirt
def test_libvirtd_begins_on_the_first_processor_and_runs_on_all(
    labs: tuple[PrivateLibvirt, PrivateLibvirt], monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[set[int]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        began.append(os.sched_getaffinity(0))
        return ran(command, **options)

    mine, ran = os.sched_getaffinity(0), subprocess.run
    monkeypatch.setattr("hoplab.host.libvirtd.subprocess.run", run)
    labs[0].start()
    pid = int((labs[0].paths.run / "libvirtd.pid").read_text())
    threads = [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]
    assert {min(mine)} in began and os.sched_getaffinity(0) == mine
    assert len(threads) > 1 and all(os.sched_getaffinity(thread) == mine for thread in threads)


@needs_libvirt
def test_a_libvirtd_that_does_not_start_says_why(
    labs: tuple[PrivateLibvirt, PrivateLibvirt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libvirtd, "LIBVIRTD_CONF", "no such setting\n")
    with pytest.raises(HostError, match=r"libvirtd did not start: .+") as error:
        labs[0].start()
    assert error.value.log.endswith("libvirtd.log")


@pytest.fixture
def stubbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrivateLibvirt:
    """A lab on a host where root and all tools are there, and nothing is really started."""
    monkeypatch.setattr(LabPaths, "run", tmp_path / "run")
    monkeypatch.setattr("hoplab.host.libvirtd.os.geteuid", lambda: 0)
    monkeypatch.setattr("hoplab.host.libvirtd.shutil.which", lambda tool, path: tool)
    monkeypatch.setattr("hoplab.host.libvirtd.netns.create", lambda name: None)
    return PrivateLibvirt(LabPaths("unit", tmp_path))


def test_a_libvirtd_that_takes_too_long(stubbed: PrivateLibvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("libvirtd", 60)

    monkeypatch.setattr("hoplab.host.libvirtd.subprocess.run", run)
    with pytest.raises(HostError, match="libvirtd did not start within 60 s") as error:
        stubbed.start()
    assert error.value.log == str(stubbed.paths.libvirt / "log" / "libvirtd.log")


def test_a_libvirtd_that_does_not_answer(stubbed: PrivateLibvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("hoplab.host.libvirtd.subprocess.run", run)
    with pytest.raises(HostError, match="libvirtd started and does not answer"):
        stubbed.start()
    assert started[0][:4] == ["ip", "netns", "exec", stubbed.paths.netns]
    assert f"{stubbed.paths.run}:/run/libvirt" in started[0]


def test_a_private_libvirtd_needs_a_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.host.libvirtd.os.geteuid", lambda: 1000)
    with pytest.raises(HostError, match="a private libvirt is made by root, or in namespaces of your own") as error:
        PrivateLibvirt(LabPaths("unit", tmp_path)).start()
    assert "lab:libvirt system" in error.value.remedy


def test_a_private_libvirtd_needs_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.host.libvirtd.os.geteuid", lambda: 0)
    monkeypatch.setattr(
        "hoplab.host.libvirtd.shutil.which", lambda tool, path: None if tool in {"libvirtd", "dnsmasq"} else tool
    )
    with pytest.raises(HostError, match="missing on this host: libvirtd, dnsmasq") as error:
        PrivateLibvirt(LabPaths("unit", tmp_path)).start()
    assert error.value.remedy == "apt-get install --no-install-recommends dnsmasq-base libvirt-daemon-system"


@pytest.mark.parametrize("content", ["", "not a number", "{pid}"])
def test_a_pid_file_that_is_not_ours_ends_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    run = tmp_path / "run" / "unit"
    monkeypatch.setattr(LabPaths, "run", run)
    run.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as somebody:
        (run / "libvirtd.pid").write_text(content.format(pid=somebody.pid))
        assert PrivateLibvirt(LabPaths("unit", tmp_path)).stop() == [str(run)]
        assert somebody.poll() is None
        somebody.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces need root")
def test_directories_are_replaced_for_one_command_only(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "a:b", tmp_path / "theirs"
    ours.mkdir()
    (ours / "file").write_text("ours")
    launch = [sys.executable, "-I", mounts.__file__, f"{ours}:{theirs}", "--", "cat", str(theirs / "file")]
    assert subprocess.run(launch, capture_output=True, text=True, check=True).stdout == "ours"
    assert list(theirs.iterdir()) == []
    failed = subprocess.run(
        [*launch[:3], f"/nonexistent:{theirs}", "--", "true"], capture_output=True, text=True, check=False
    )
    assert failed.stderr == f"cannot bind /nonexistent over {theirs}: No such file or directory\n"
    assert failed.returncode == 1
