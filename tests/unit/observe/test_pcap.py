"""Capture files: real ones, hand-made ones and damaged ones."""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoplab.observe import pcap
from hoplab.observe.pcap import CapturedPacket, CaptureError
from tests.support.files import CAPTURED

PCAP = (CAPTURED / "vxlan.pcap").read_bytes()  # of eth0, as tcpdump 4.99 wrote it
NEAR, FAR = "52:54:00:00:00:20", "52:54:00:00:00:21"
A, B = IPv4Address("10.244.0.5"), IPv4Address("10.244.1.5")


def capture_file(*frames: bytes, order: str = "<", magic: int = 0xA1B2C3D4, link_type: int = 1) -> bytes:
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link_type)
    return head + b"".join(struct.pack(f"{order}4I", 1000, 500, len(frame), len(frame)) + frame for frame in frames)


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
