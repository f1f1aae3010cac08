"""Captures: the commands around tcpdump, and both for real between two network namespaces."""

from __future__ import annotations

import base64
import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from hoplab.host import netns
from hoplab.observe import capture, pcap
from hoplab.observe.capture import COMMAND, Capture
from hoplab.observe.pcap import CapturedPacket, CaptureError
from hoplab.observe.script import Output, Script
from tests.support.files import CAPTURED
from tests.support.scripts import ran

PCAP = (CAPTURED / "vxlan.pcap").read_bytes()  # of eth0, as tcpdump 4.99 wrote it
A, B = IPv4Address("10.244.0.5"), IPv4Address("10.244.1.5")


def test_reading_the_outputs_of_a_batch() -> None:
    encoded = base64.b64encode(PCAP).decode()
    outputs = {
        "capture.outer.start": Output(0, ""),
        COMMAND: Output(28, "", "curl: timed out"),  # the command's own business
        "capture.outer": Output(0, f"eth0\n{encoded}"),
        "before": Output(0, ""),
    }
    assert capture.read(outputs) == {"outer": pcap.parse(PCAP, "eth0")}
    assert capture.read({COMMAND: Output(0, "")}) == {}
    with pytest.raises(CaptureError, match="this is no capture file: it is not base64"):
        capture.read({"capture.outer": Output(0, "eth0\nd4c3b2a1?")})


@pytest.mark.parametrize(
    ("key", "output", "why"),
    [
        ("capture.outer.start", Output(1, "", "tcpdump: eth7: No such device exists\n"), "tcpdump: eth7: No such dev"),
        ("capture.outer", Output(127, ""), "127"),
    ],
)
def test_a_capture_that_failed_says_why(key: str, output: Output, why: str) -> None:
    with pytest.raises(CaptureError) as caught:
        capture.read({key: output})
    assert caught.value.message.startswith(f"the capture 'outer' failed: {why}")
    assert caught.value.remedy == "try the same tcpdump on the node: ./lab ssh NODE sudo tcpdump -i INTERFACE FILTER"


# The commands, with a tcpdump that only says what it would


# It writes late: when it is told for the second time to say how far it is.
FAKE = r"""#!/bin/sh
echo "$@" >{folder}/arguments
late=0
say() {
  late=$((late + 1))
  [ $late -ne 2 ] || cat {folder}/real.pcap
  echo "tcpdump: $late packets captured, 3 packets received by filter, 1 packet dropped by kernel" >&2
}
trap say USR1
trap 'echo "$late packets captured" >&2; exit 0' TERM
{says}
while :; do sleep 0.01; done
"""
LISTENS = 'echo "tcpdump: listening on eth0, link-type EN10MB" >&2'


@pytest.fixture
def place(tmp_path: Path) -> str:
    (tmp_path / "bin").mkdir()
    (tmp_path / "real.pcap").write_bytes(PCAP)
    return str(tmp_path / "captures")


def left(place: str) -> list[Path]:
    """Files of captures that are still there."""
    return list(Path(place).parent.glob(f"{Path(place).name}*"))


def run(commands: Mapping[str, str], place: str, says: str = LISTENS) -> dict[str, Output]:
    """The commands as a node would run them, but for the tcpdump they find."""
    folder = Path(place).parent
    fake = folder / "bin" / "tcpdump"
    fake.write_text(FAKE.replace("{folder}", str(folder)).replace("{says}", says))
    fake.chmod(0o755)
    script = Script({"path": f"export PATH={folder}/bin:$PATH", **commands}, {})
    found = ran(script)
    found.pop("path")
    return found


def test_a_capture_is_started_flushed_ended_and_removed(place: str) -> None:
    captures = {"outer": Capture("eth0", "udp port 8472 and host '10.0.0.1'")}
    commands = {**capture.start(captures, place), COMMAND: f"ls {place}.*", **capture.stop(captures, place)}
    found = run(commands, place)
    assert found["capture.outer.start"] == Output(0, "")
    assert found[COMMAND].out.split() == [f"{place}.outer.{what}" for what in ("log.pcap", "pcap", "pid")]
    assert found["capture.outer"].code == 0, found["capture.outer"].err
    assert capture.read(found) == {"outer": pcap.parse(PCAP, "eth0")}
    assert left(place) == []
    given = (Path(place).parent / "arguments").read_text()
    assert given == "-i eth0 -U --immediate-mode -s 256 -c 10000 -w - udp port 8472 and host '10.0.0.1'\n"


def test_tcpdump_outlives_the_login_and_nothing_of_it_is_left_in_the_end(place: str) -> None:
    captures = {"one": Capture("eth0"), "two": Capture("eth0")}
    started = run(capture.start(captures, place), place)
    pids = [int(Path(f"{place}.{name}.pid").read_text()) for name in captures]
    assert all(os.getpgid(pid) not in (pid, os.getpgid(0)) for pid in pids)  # timeout leads a group of their own
    found = run(capture.stop(captures, place), place)
    assert set(capture.read({**started, **found})) == {"one", "two"}
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert left(place) == []


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_tcpdump_that_does_not_listen_is_no_capture(place: str, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    captures = {"outer": Capture("eth7")}
    says = "echo 'tcpdump: eth7: No such device exists' >&2; exit 1"
    commands = {key: f"{shell} -c {shlex.quote(command)}" for key, command in capture.start(captures, place).items()}
    found = run({**commands, **capture.stop(captures, place)}, place, says)
    assert found["capture.outer.start"] == Output(1, "", "tcpdump: eth7: No such device exists\n")
    assert found["capture.outer"].code == 1 and left(place) == []


def test_a_tcpdump_that_never_listens_is_given_up_and_ended(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MAX_SECONDS", 1)
    says = f"echo $$ >{place}.fake; echo 'tcpdump: waiting' >&2"
    found = run(capture.start({"outer": Capture("eth0")}, place), place, says)
    assert found["capture.outer.start"].code == 1 and "tcpdump: waiting" in found["capture.outer.start"].err
    pid = Path(f"{place}.fake").read_text().strip()
    assert not Path(f"/proc/{pid}").exists()


def test_a_tcpdump_that_has_ended_early_is_a_failure(place: str) -> None:
    captures = {"outer": Capture("eth0")}
    started = run(capture.start(captures, place), place, says=f"{LISTENS}; sleep 0.2; exit 0")
    assert started["capture.outer.start"].code == 0
    pid = Path(f"{place}.outer.pid").read_text().strip()
    subprocess.run(["timeout", "10", "tail", "--pid", pid, "-f", "/dev/null"], check=True)
    with pytest.raises(CaptureError, match="'outer' failed: tcpdump has ended early: after 10000 packets or 300 sec"):
        capture.read(run(capture.stop(captures, place), place))
    assert left(place) == []


def test_what_the_kernel_still_counts_is_waited_for_not_for_ever(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "FLUSH_TRIES", 2)
    captures = {"outer": Capture("lo")}
    said = "tcpdump: 1 packet captured, 2 packets received by filter, 0 packets dropped by kernel"
    says = f"cat {Path(place).parent}/real.pcap; {LISTENS}; trap 'echo {said} >&2' USR1"
    found = run({**capture.start(captures, place), **capture.stop(captures, place)}, place, says)
    assert capture.read(found)["outer"][0].dev == "lo"


def test_a_pods_interface_is_captured_in_its_namespace() -> None:
    commands = capture.start({"pod": Capture("eth0", netns="cni-1b4e")}, "/run/x")
    assert "nsenter --net=/run/netns/cni-1b4e timeout 300 tcpdump -i eth0" in commands["capture.pod.start"]


def test_around_puts_the_command_in_the_middle_and_every_batch_has_a_place_of_its_own() -> None:
    first, second = (capture.around("true", {"a": Capture("eth0"), "b": Capture("cni0")}) for _ in range(2))
    assert list(first) == ["capture.a.start", "capture.b.start", COMMAND, "capture.a", "capture.b"]
    assert first[COMMAND] == "true"
    assert first["capture.a"] != second["capture.a"]


# For real


@pytest.fixture
def nodes() -> Iterator[tuple[str, str]]:
    """Two network namespaces, joined by a veth pair and, on top of it, by VXLAN."""
    both = (f"hoplab-cap-a{os.getpid()}", f"hoplab-cap-b{os.getpid()}")
    try:
        for name in both:
            netns.create(name)
            with netns.entered(name):
                for which in ("all", "default"):
                    Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")
        ip(f"-n {both[0]} link add eth0 type veth peer name eth0 netns {both[1]}")
        for name, own, other in (*zip(both, (20, 21), (21, 20), strict=True),):
            ip(f"-n {name} address add 192.168.77.{own}/24 dev eth0")
            ip(f"-n {name} link set eth0 up")
            wire = f"local 192.168.77.{own} remote 192.168.77.{other} dev eth0"
            ip(f"-n {name} link add flannel.1 type vxlan id 1 dstport 8472 {wire}")
            ip(f"-n {name} address add 10.244.{own - 20}.5/16 dev flannel.1")
            ip(f"-n {name} link set flannel.1 up")
        yield both
    finally:
        for name in both:
            netns.delete(name)


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


def lacking() -> str:
    missing = [] if os.geteuid() == 0 else ["root"]
    return ", ".join([*missing, *(tool for tool in ("ip", "tcpdump", "nsenter") if shutil.which(tool) is None)])


@pytest.mark.skipif(bool(lacking()), reason=f"needs {lacking()}")
def test_one_request_is_seen_outside_and_inside_of_vxlan(
    nodes: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = nodes
    place = tmp_path / "captures"
    monkeypatch.setattr(capture, "new_place", lambda: str(place))
    with netns.entered(far):
        server = socket.create_server(("10.244.1.5", 8080))
    ask = "import socket; s = socket.create_connection(('10.244.1.5', 8080), 5); s.sendall(b'?'); s.recv(9)"
    commands = capture.around(
        f"{sys.executable} -S -c {shlex.quote(ask)}",
        {
            "outer": Capture("eth0", "udp port 8472"),
            "inner": Capture("flannel.1", "tcp port 8080"),
            "far": Capture("flannel.1", "tcp dst port 8080", netns=far),
            "nothing": Capture("eth0", "tcp"),
        },
    )
    script = Script(commands, {})
    with server, contextlib.suppress(OSError):
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        with netns.entered(near):
            found = ran(script)
    assert found[COMMAND].code == 0, found[COMMAND].err
    seen = capture.read(found)

    def syn(packets: tuple[CapturedPacket, ...]) -> CapturedPacket:
        return next(packet for packet in packets if packet.flags == "S")

    inside = syn(seen["inner"])
    assert (inside.src, inside.dst, inside.dport, inside.ttl) == (A, B, 8080, 64)
    outside = next(packet for packet in seen["outer"] if packet.inner and packet.inner.flags == "S")
    assert (str(outside.src), str(outside.dst), outside.vni) == ("192.168.77.20", "192.168.77.21", 1)
    assert outside.inner and str(outside.inner) == str(inside) == str(syn(seen["far"]))
    assert any(packet.inner and packet.inner.src == B and packet.inner.flags == "S." for packet in seen["outer"])
    assert all(packet.dst == B for packet in seen["far"])
    assert seen["nothing"] == ()
    assert left(str(place)) == []


def answer(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(9)
        connection.sendall(b"!")


@pytest.mark.skipif(bool(lacking()), reason=f"needs {lacking()}")
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (Capture("eth7"), r"tcpdump: eth7: .*No such device"),
        (Capture("lo", "no such filter"), "tcpdump: can't parse filter expression: syntax error"),
    ],
)
def test_the_real_tcpdump_says_what_is_wrong(wrong: Capture, why: str) -> None:
    script = Script(capture.around("true", {"x": wrong}), {})
    found = ran(script)
    with pytest.raises(CaptureError, match=why):
        capture.read(found)
