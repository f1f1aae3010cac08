"""Network namespaces: made once, entered by one thread, removed without a trace."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoplab.core.errors import HostError
from hoplab.host import netns

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")


@pytest.fixture
def name() -> Iterator[str]:
    name = f"hoplab-unit-{os.getpid()}"
    yield name
    netns.delete(name)


def interfaces() -> list[str]:
    return [interface for _, interface in socket.if_nameindex()]


@needs_root
def test_a_namespace_is_made_once_and_removed_once(name: str) -> None:
    assert not netns.exists(name)
    netns.create(name)
    netns.create(name)
    assert netns.exists(name)
    assert netns.delete(name)
    assert not netns.delete(name)
    assert not netns.exists(name)


@needs_root
def test_inside_there_is_a_loopback_that_is_up_and_packets_are_forwarded(name: str) -> None:
    netns.create(name)
    outside = interfaces()
    with netns.entered(name):
        assert interfaces() == ["lo"]
        assert Path("/proc/thread-self/net/route").exists()
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == "1\n"
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=1).close()
    assert interfaces() == outside


@needs_root
@pytest.mark.skipif(not netns.BRIDGED.exists(), reason="this kernel has no br_netfilter (modprobe br_netfilter)")
def test_what_a_bridge_forwards_does_not_meet_iptables(name: str) -> None:
    netns.create(name)
    with netns.entered(name):
        (netns.BRIDGED / "bridge-nf-call-iptables").write_text("1")  # as where the module is loaded later
    netns.create(name)
    with netns.entered(name):
        found = {setting.name: setting.read_text() for setting in netns.BRIDGED.glob("bridge-nf-call-*")}
    assert found == dict.fromkeys(found, "0\n") and "bridge-nf-call-iptables" in found


@needs_root
def test_sockets_threads_and_processes_made_inside_stay_there(name: str) -> None:
    netns.create(name)
    seen: list[list[str]] = []
    with netns.entered(name):
        thread = threading.Thread(target=lambda: seen.append(interfaces()))
        thread.start()
        thread.join()
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(b"hello\n")
        child.stdin.flush()
        child.stdout.readline()
        assert seen == [["lo"]]
        assert netns.processes(name) == [child.pid]
        assert netns.end_processes(name) == [f"cat (pid {child.pid})"]
    assert netns.processes(name) == []


@needs_root
def test_other_threads_stay_where_they_are(name: str) -> None:
    netns.create(name)
    seen: list[list[str]] = []
    enter, done = threading.Event(), threading.Event()

    def other() -> None:
        enter.wait(5)
        seen.append(interfaces())
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with netns.entered(name):
        enter.set()
        assert done.wait(5)
    thread.join()
    assert seen == [interfaces()]


@needs_root
def test_the_thread_comes_back_after_a_failure(name: str) -> None:
    netns.create(name)
    outside = interfaces()
    with pytest.raises(RuntimeError), netns.entered(name):
        raise RuntimeError
    assert interfaces() == outside


@needs_root
def test_a_file_left_by_a_reboot_is_not_a_namespace_and_is_replaced(name: str) -> None:
    netns.NAMED.mkdir(exist_ok=True)
    (netns.NAMED / name).touch()
    assert not netns.exists(name)
    assert not netns.delete(name)
    (netns.NAMED / name).touch()
    netns.create(name)
    assert netns.exists(name)


def test_entering_no_namespace_stays() -> None:
    before = interfaces()
    with netns.entered(""):
        assert interfaces() == before


def test_entering_a_missing_namespace_is_a_host_error() -> None:
    assert netns.processes("hoplab-none") == []
    with (
        pytest.raises(HostError, match="there is no network namespace hoplab-none") as error,
        netns.entered("hoplab-none"),
    ):
        pass
    assert error.value.remedy == "start the lab: ./lab start"


def test_a_host_without_iproute2_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.host.netns.shutil.which", lambda name, path: None)
    with pytest.raises(HostError, match="the command `ip` is missing") as error:
        netns.create("hoplab-none")
    assert error.value.remedy == "apt-get install --no-install-recommends iproute2"


def test_an_error_of_ip_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.host.netns.os.geteuid", lambda: 1000)
    with pytest.raises(HostError, match=r"`ip -n hoplab-none link` failed: .+") as error:
        netns.ip("-n", "hoplab-none", "link")
    assert error.value.remedy.startswith("run as root")


def test_a_refused_setns_is_a_host_error() -> None:
    with pytest.raises(HostError, match="cannot enter a network namespace: Bad file descriptor"):
        netns._setns(-1)
