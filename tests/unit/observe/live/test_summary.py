"""One line a packet: captured packets of tcpdump, and made-up ones of every kind."""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoplab.observe.live import summary
from hoplab.observe.live.pcap_stream import PcapStream, Record
from tests.support.files import CAPTURED

MACS = bytes.fromhex("021100000002021100000001")


def ipv4(protocol: int, payload: bytes, src: int = 1, dst: int = 2) -> bytes:
    return (
        struct.pack("!BxHxxxxBBxx4B4B", 0x45, 20 + len(payload), 64, protocol, 10, 0, 0, src, 10, 0, 0, dst) + payload
    )


def ipv6(number: int, payload: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(payload), number, 64) + bytes(15) + b"\1" + bytes(15) + b"\2" + payload


SYN = struct.pack("!HHIIBBHHH", 4242, 80, 1, 0, 0x50, 2, 0, 0, 0)
DNS = struct.pack("!HHHH", 4242, 53, 8, 0)
VXLAN = struct.pack("!HHHHB3xI", 40000, 8472, 0, 0, 8, 1 << 8)
ARP = struct.pack("!HHBBH6s4B6s4B", 1, 0x800, 6, 4, 1, MACS[6:], 10, 0, 0, 1, bytes(6), 10, 0, 0, 2)


@pytest.mark.parametrize(
    ("link_type", "frame", "words"),
    [
        (1, MACS + b"\x08\x00" + ipv4(6, SYN), "10.0.0.1:4242 > 10.0.0.2:80 tcp S"),
        (1, MACS + b"\x08\x00" + ipv4(17, DNS), "10.0.0.1:4242 > 10.0.0.2:53 udp"),
        (1, MACS + b"\x08\x00" + ipv4(1, b"\x08\0"), "10.0.0.1 > 10.0.0.2 icmp echo request"),
        (1, MACS + b"\x08\x00" + ipv4(1, b"\x0c\0"), "10.0.0.1 > 10.0.0.2 icmp type 12"),
        (
            1,
            MACS + b"\x08\x00" + ipv4(4, ipv4(6, SYN, 3, 4)),
            "10.0.0.1 > 10.0.0.2 ipip { 10.0.0.3:4242 > 10.0.0.4:80 tcp S }",
        ),
        (1, MACS + b"\x08\x00" + ipv4(50, b""), "10.0.0.1 > 10.0.0.2 esp"),
        (1, MACS + b"\x08\x00" + ipv4(99, b""), "10.0.0.1 > 10.0.0.2 protocol 99"),
        (
            1,
            MACS + b"\x08\x00" + ipv4(17, VXLAN + MACS + b"\x08\x00" + ipv4(6, SYN, 5, 6)),
            "10.0.0.1:40000 > 10.0.0.2:8472 vxlan 1 { 10.0.0.5:4242 > 10.0.0.6:80 tcp S }",
        ),
        (1, MACS + b"\x86\xdd" + ipv6(6, SYN), "[::1]:4242 > [::2]:80 tcp S"),
        (1, MACS + b"\x86\xdd" + ipv6(58, b"\x80"), "::1 > ::2 icmp6"),
        (1, MACS + b"\x08\x06" + ARP, "arp who-has 10.0.0.2 tell 10.0.0.1"),
        (1, MACS + b"\x08\x06" + ARP[:7] + b"\2" + ARP[8:], "arp 10.0.0.1 is-at 02:11:00:00:00:01"),
        (1, MACS + b"\x88\xcc", "02:11:00:00:00:01 > 02:11:00:00:00:02 0x88cc"),
        (1, b"abc", "cut off"),
        (101, ipv4(6, SYN), "10.0.0.1:4242 > 10.0.0.2:80 tcp S"),
        (101, ipv6(17, DNS), "[::1]:4242 > [::2]:53 udp"),
        (276, b"\x08\x00" + bytes(18) + ipv4(6, SYN), "10.0.0.1:4242 > 10.0.0.2:80 tcp S"),
        (147, b"abc", "link type 147,"),
    ],
)
def test_headers_in_words(link_type: int, frame: bytes, words: str) -> None:
    assert summary.described(Record(0, frame, 1500), link_type) == f"{words} 1500 bytes"


def test_the_lines_of_a_real_capture() -> None:
    lines = [
        summary.line("worker1 eth0", record.time, record, 1)
        for record in PcapStream("x").feed((CAPTURED / "vxlan.pcap").read_bytes())
    ]
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{6} worker1 eth0  ", line) for line in lines)
    assert any(
        re.search(r":8472 vxlan 1 \{ 10\.244\.\d\.5:\d+ > 10\.244\.\d\.5:\d+ tcp S \} \d+ bytes$", line)
        for line in lines
    )


@given(st.binary(max_size=120), st.sampled_from([1, 101, 276, 113]))
def test_no_bytes_are_too_odd_for_a_line(frame: bytes, link_type: int) -> None:
    assert summary.described(Record(0, frame, len(frame)), link_type).endswith(f"{len(frame)} bytes")
