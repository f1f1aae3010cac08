"""Captures: packets that tcpdump wrote, the commands around it, and both for real between two network namespaces."""

from __future__ import annotations

import base64
import contextlib
import os
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoplab.host import netns
from hoplab.observe import capture, pcap
from hoplab.observe.capture import COMMAND, Capture
from hoplab.observe.pcap import CapturedPacket, CaptureError
from hoplab.observe.script import Output, Script
from tests.support.files import CAPTURED

PCAP = (CAPTURED / "vxlan.pcap").read_bytes()  # of eth0, as tcpdump 4.99 wrote it
NEAR, FAR = "52:54:00:00:00:20", "52:54:00:00:00:21"
A, B = IPv4Address("10.244.0.5"), IPv4Address("10.244.1.5")


def capture_file(*frames: bytes, order: str = "<", magic: int = 0xA1B2C3D4, link_type: int = 1) -> bytes:
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)
    return head + b"".join(struct.pack(f"{order}4I", 1000, 500, len(each), len(each)) + each for each in frames)


def ethernet(kind: int, body: bytes) -> bytes:
    return bytes.fromhex((FAR + NEAR).replace(":", "")) + struct.pack("!H", kind) + body


def ipv4(protocol: int, body: bytes, *, fragment: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x46, 0, 0, 0, fragment, 64, protocol, 0)
    return ethernet(0x0800, head + A.packed + B.packed + bytes(4) + body)  # with an option of four bytes


def ipv6(protocol: int, body: bytes) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
    return ethernet(0x86DD, head + IPv6Address("fd00:244:0:1::5").packed + IPv6Address("fd00:244::5").packed + body)


def only(data: bytes) -> CapturedPacket:
    (packet,) = pcap.parse(data, "eth0")
    return packet


# Reading


def test_outer_and_inner_headers_of_a_real_capture() -> None:
    packets = pcap.parse(PCAP, "eth0")
    assert len(packets) == 18
    syn = next(packet for packet in packets if packet.inner and packet.inner.flags == "S")
    assert (syn.eth_src, syn.eth_dst, syn.dev) == (NEAR, FAR, "eth0")
    assert (syn.protocol, str(syn.src), str(syn.dst), syn.dport) == ("udp", "192.168.77.20", "192.168.77.21", 8472)
    assert (syn.vni, syn.ttl) == (1, 64)
    inner = syn.inner
    assert inner and (inner.src, inner.dst, inner.dport, inner.protocol) == (A, B, 8080, "tcp")
    assert (inner.eth_src, inner.eth_dst) == ("0a:58:0a:f4:00:20", "0a:58:0a:f4:00:21")
    assert (inner.vni, inner.inner, inner.time) == (None, None, syn.time)
    assert [packet.inner.icmp_type for packet in packets if packet.inner and packet.inner.protocol == "icmp"] == [8, 0]
    assert [packet.arp_op for packet in packets if packet.protocol == "arp"] == [1, 2]
    assert 1.7e9 < packets[0].time <= packets[-1].time


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump")
def test_tcpdump_reads_the_same_packets(tmp_path: Path) -> None:
    """What tcpdump prints more than a packet's str (TCP's numbers, lengths) comes after it."""
    file = tmp_path / "x.pcap"
    file.write_bytes(PCAP)
    done = subprocess.run(["tcpdump", "-t", "-n", "-r", str(file)], capture_output=True, text=True, check=True)
    lines = done.stdout.replace("OTV, flags [I] (0x08), overlay 0, instance 1\n", "VXLAN, vni 1: ").splitlines()
    packets = pcap.parse(PCAP, "eth0")
    assert len(lines) == len(packets)
    for packet, line in zip(packets, lines, strict=True):
        same = str(packet).removesuffix("UDP").removesuffix("unreachable").strip()
        assert line.startswith(same), line


@pytest.mark.parametrize(
    ("order", "magic"), [("<", 0xA1B2C3D4), (">", 0xA1B2C3D4), ("<", 0xA1B23C4D), (">", 0xA1B23C4D)]
)
def test_both_byte_orders_and_units_of_time(order: str, magic: int) -> None:
    packet = only(capture_file(ipv4(17, struct.pack("!HHHH", 1234, 53, 8, 0)), order=order, magic=magic))
    assert packet.time == pytest.approx(1000.0005 if magic == 0xA1B2C3D4 else 1000.0000005, abs=1e-9)
    assert (packet.sport, packet.dport, packet.src, packet.dst) == (1234, 53, A, B)
    assert str(packet) == "IP 10.244.0.5.1234 > 10.244.1.5.53: UDP"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (ipv4(6, struct.pack("!HHIIBBHHH", 1, 80, 0, 0, 0x50, 0x12, 0, 0, 0)),
         "IP 10.244.0.5.1 > 10.244.1.5.80: Flags [S.]"),
        (ipv4(6, struct.pack("!HHIIBBHHH", 1, 80, 0, 0, 0x50, 0x00, 0, 0, 0)),
         "IP 10.244.0.5.1 > 10.244.1.5.80: Flags [none]"),
        (ipv4(6, b"cut"), "IP 10.244.0.5.0 > 10.244.1.5.0: Flags []"),
        (ipv4(17, b"cut"), "IP 10.244.0.5.0 > 10.244.1.5.0: UDP"),
        (ipv4(17, struct.pack("!HHHH", 9, 8472, 8, 0) + bytes(8)), "IP 10.244.0.5.9 > 10.244.1.5.8472: UDP"),
        (ipv4(17, struct.pack("!HHHH", 9, 4789, 8, 0) + b"\x08\0\0\0\0\x01\0\0"),
         "IP 10.244.0.5.9 > 10.244.1.5.4789: VXLAN, vni 256:  > , ethertype"),
        (ipv4(17, b"no header", fragment=1), "IP 10.244.0.5.0 > 10.244.1.5.0: UDP"),
        (ipv4(1, bytes([3])), "IP 10.244.0.5 > 10.244.1.5: ICMP unreachable"),
        (
            ipv6(6, struct.pack("!HHIIBB", 40000, 8080, 1, 0, 0x50, 2)),
            "IP6 fd00:244:0:1::5.40000 > fd00:244::5.8080: Flags [S]",
        ),
        (ipv6(58, bytes([135])), "IP6 fd00:244:0:1::5 > fd00:244::5: ip-proto-58"),
        (
            ipv6(17, struct.pack("!HHHH", 9, 8472, 0, 0) + bytes.fromhex("0800000000000100") + ipv6(17, bytes(8))),
            "IP6 fd00:244:0:1::5.9 > fd00:244::5.8472: VXLAN, vni 1: IP6 fd00:244:0:1::5.0 > fd00:244::5.0: UDP",
        ),
        (ipv4(1, bytes([13])), "IP 10.244.0.5 > 10.244.1.5: ICMP type 13"),
        (ipv4(1, b""), "IP 10.244.0.5 > 10.244.1.5: ICMP type None"),
        (ipv4(4, ipv4(1, bytes([8]))[14:]),
         "IP 10.244.0.5 > 10.244.1.5: IPIP: IP 10.244.0.5 > 10.244.1.5: ICMP echo request"),
        (ipv4(132, b""), "IP 10.244.0.5 > 10.244.1.5: ip-proto-132"),
        (ethernet(0x0800, b"cut"), f"{NEAR} > {FAR}, ethertype 0x0800"),
        (ethernet(0x0806, b"cut"), f"{NEAR} > {FAR}, ethertype 0x0806"),
        (ethernet(0x86DD, b""), f"{NEAR} > {FAR}, ethertype 0x86dd"),
        (b"cut", " > , ethertype"),
    ],
)  # fmt: skip
def test_packets_of_all_kinds_read_as_tcpdump_prints_them(data: bytes, said: str) -> None:
    assert str(only(capture_file(data))).rstrip() == said


def test_what_is_in_a_vxlan_packet_is_looked_into_once() -> None:
    wrap = struct.pack("!HHHH", 9, 8472, 8, 0) + b"\x08\0\0\0\0\0\x01\0"
    data = ipv4(1, bytes([8]))
    for _ in range(300):
        data = ipv4(17, wrap + data)
    outer = only(capture_file(data))
    assert outer.inner and outer.inner.dport == 8472 and outer.inner.vni is None


def test_an_interface_that_wraps_in_ip_has_no_ethernet() -> None:
    packet = only(capture_file(ipv4(1, bytes([8]))[14:], link_type=101))
    assert (packet.src, packet.dst, packet.icmp_type, packet.eth_src) == (A, B, 8, "")


def test_what_is_in_an_ipip_packet_is_looked_into_once() -> None:
    data = ipv4(1, bytes([8]))
    for _ in range(300):
        data = ipv4(4, data[14:])
    outer = only(capture_file(data))
    assert outer.inner and outer.inner.protocol == "ipip" and outer.inner.inner is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it does not begin as one: it is empty"),
        (b"\x0a\x0d\x0d\x0a" + bytes(30), "it does not begin as one: 0a 0d 0d 0a"),  # pcapng
        (PCAP[:20], "it does not begin as one: d4 c3 b2 a1"),
        (PCAP[:30], "it ends in the middle of a packet"),
        (PCAP[:-1], "it ends in the middle of a packet"),
        (capture_file(link_type=276), "its link type is 276; only Ethernet, 1, and IP, 101, are known"),  # -i any
    ],
)
def test_what_is_no_capture_file_is_named(data: bytes, why: str) -> None:
    with pytest.raises(CaptureError) as caught:
        pcap.parse(data, "eth0")
    assert caught.value.message == f"this is no capture file: {why}"
    assert caught.value.remedy == "capture again; tcpdump may have been killed"


@given(st.binary() | st.binary().map(lambda body: PCAP[:24] + body))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    with contextlib.suppress(CaptureError):
        pcap.parse(data, "eth0")


@given(st.lists(st.tuples(st.integers(24, len(PCAP) - 1), st.integers(0, 255)), min_size=1, max_size=20))
def test_no_damage_crashes_the_reader(damage: list[tuple[int, int]]) -> None:
    data = bytearray(PCAP)
    for at, value in damage:
        data[at] = value
    with contextlib.suppress(CaptureError):
        [str(packet) for packet in pcap.parse(bytes(data), "eth0")]


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


def run(commands: Mapping[str, str], place: str, says: str = LISTENS) -> dict[str, Output]:
    """The commands as a node would run them, but for the tcpdump they find."""
    folder = Path(place).parent
    fake = folder / "bin" / "tcpdump"
    fake.write_text(FAKE.replace("{folder}", str(folder)).replace("{says}", says))
    fake.chmod(0o755)
    script = Script({"path": f"export PATH={folder}/bin:$PATH", **commands}, {})
    done = subprocess.run(["sh", "-c", script.text], capture_output=True, text=True, check=True, timeout=60)
    assert script.end in done.stdout
    found = script.split(done.stdout)
    found.pop("path")
    return found


def test_a_capture_is_started_flushed_ended_and_removed(place: str) -> None:
    captures = {"outer": Capture("eth0", "udp port 8472 and host '10.0.0.1'")}
    commands = {**capture.start(captures, place), COMMAND: f"ls {place}", **capture.stop(captures, place)}
    found = run(commands, place)
    assert found["capture.outer.start"] == Output(0, "")
    assert found[COMMAND].out.split() == ["outer.log.pcap", "outer.pcap", "outer.pid"]
    assert found["capture.outer"].code == 0, found["capture.outer"].err
    assert capture.read(found) == {"outer": pcap.parse(PCAP, "eth0")}
    assert not Path(place).exists()
    given = (Path(place).parent / "arguments").read_text()
    assert given == "-i eth0 -U --immediate-mode -s 256 -c 10000 -w - udp port 8472 and host '10.0.0.1'\n"


def test_tcpdump_outlives_the_login_and_nothing_of_it_is_left_in_the_end(place: str) -> None:
    captures = {"one": Capture("eth0"), "two": Capture("eth0")}
    started = run(capture.start(captures, place), place)
    pids = [int(Path(place, f"{name}.pid").read_text()) for name in captures]
    assert all(os.getsid(pid) not in (pid, os.getsid(0)) for pid in pids)  # timeout leads a session of their own
    found = run(capture.stop(captures, place), place)
    assert set(capture.read({**started, **found})) == {"one", "two"}
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not Path(place).exists()


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_tcpdump_that_does_not_listen_is_no_capture(place: str, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    captures = {"outer": Capture("eth7")}
    says = "echo 'tcpdump: eth7: No such device exists' >&2; exit 1"
    commands = {key: f"{shell} -c {shlex.quote(command)}" for key, command in capture.start(captures, place).items()}
    found = run({**commands, **capture.stop(captures, place)}, place, says)
    assert found["capture.outer.start"] == Output(1, "", "tcpdump: eth7: No such device exists\n")
    assert found["capture.outer"] == found["capture.outer.start"] and not Path(place).exists()


def test_a_tcpdump_that_never_listens_is_given_up_and_ended(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "LISTEN_TRIES", 3)
    found = run(capture.start({"outer": Capture("eth0")}, place), place, says="echo 'tcpdump: waiting' >&2")
    assert found["capture.outer.start"].code == 1
    pid = int(Path(place, "outer.pid").read_text())
    ended = subprocess.run(["timeout", "10", "tail", "--pid", str(pid), "-f", "/dev/null"], check=False)
    assert ended.returncode == 0


def test_what_the_kernel_still_counts_is_waited_for_not_for_ever(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "FLUSH_TRIES", 2)
    captures = {"outer": Capture("lo")}
    said = "tcpdump: 1 packet captured, 2 packets received by filter, 0 packets dropped by kernel"
    says = f"cat {Path(place).parent}/real.pcap; {LISTENS}; trap 'echo {said} >&2' USR1"
    found = run({**capture.start(captures, place), **capture.stop(captures, place)}, place, says)
    assert capture.read(found)["outer"][0].dev == "lo"


def test_a_pods_interface_is_captured_in_its_namespace() -> None:
    commands = capture.start({"pod": Capture("eth0", netns="cni-1b4e")}, "/run/x")
    assert "exec nsenter --net=/run/netns/cni-1b4e tcpdump -i eth0" in commands["capture.pod.start"]


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
            done = subprocess.run(["sh", "-c", script.text], capture_output=True, text=True, check=True, timeout=60)
    found = script.split(done.stdout)
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
    assert not place.exists()


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
    done = subprocess.run(["sh", "-c", script.text], capture_output=True, text=True, check=True, timeout=60)
    with pytest.raises(CaptureError, match=why):
        capture.read(script.split(done.stdout))
