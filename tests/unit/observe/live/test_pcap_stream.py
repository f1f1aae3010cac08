"""A capture read in pieces of any size: the same packets as in one piece, and what is no capture."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoplab.observe import pcap
from hoplab.observe.live.pcap_stream import Header, PcapStream, Record
from hoplab.observe.pcap import CaptureError
from tests.support.files import CAPTURED

VXLAN = (CAPTURED / "vxlan.pcap").read_bytes()  # as tcpdump 4.99 wrote it
NANO, MICRO = 0xA1B23C4D, 0xA1B2C3D4


def made(order: str, magic: int, *packets: tuple[int, int, bytes, int], link_type: int = 1) -> bytes:
    """A capture with packets of seconds, fraction, data and size."""
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 256, link_type)
    return head + b"".join(struct.pack(f"{order}4I", s, f, len(data), size) + data for s, f, data, size in packets)


def test_a_real_capture_gives_what_the_whole_file_gives() -> None:
    stream = PcapStream("eth0")
    records = stream.feed(VXLAN)
    whole = pcap.parse(VXLAN, "eth0")
    assert stream.header == Header(1, 256)
    assert [pcap.decoded(record.data, 1, pcap.CapturedPacket(0, "eth0")) for record in records] == [
        pcap.decoded(record.data, 1, pcap.CapturedPacket(0, "eth0")) for record in PcapStream("x").feed(VXLAN)
    ]
    assert [round(record.time / 1e9, 6) for record in records] == [round(packet.time, 6) for packet in whole]


@pytest.mark.parametrize(
    ("order", "magic", "time"),
    [("<", NANO, 5_000_000_007), (">", NANO, 5_000_000_007), ("<", MICRO, 5_000_007_000), (">", MICRO, 5_000_007_000)],
)
def test_both_byte_orders_and_both_resolutions(order: str, magic: int, time: int) -> None:
    stream = PcapStream("eth0")
    assert stream.feed(made(order, magic, (5, 7, b"abc", 1500), link_type=0xF0000065)) == [Record(time, b"abc", 1500)]
    assert stream.header == Header(101, 256)


@given(st.lists(st.binary(max_size=90), max_size=6), st.lists(st.integers(1, 50), min_size=1))
def test_pieces_of_any_size_give_the_same_packets(packets: list[bytes], sizes: list[int]) -> None:
    data = made("<", NANO, *((number, number, packet, len(packet)) for number, packet in enumerate(packets)))
    stream, found, at = PcapStream("eth0"), [], 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        found += stream.feed(data[at : at + size])
        at += size
    assert found == PcapStream("eth0").feed(data)
    assert [record.data for record in found] == packets


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"tcpdump: no such device  ", "it begins with 74 63 70 64"),
        (made("<", NANO, (0, 0, b"", 0))[:-8] + b"\xff\xff\xff\xff" * 2, "a packet in it has 4294967295 bytes"),
    ],
)
def test_what_is_no_capture_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(CaptureError) as caught:
        PcapStream("node worker1 eth0").feed(data)
    assert caught.value.message == f"the capture of node worker1 eth0 can't be read: {why}"
    assert caught.value.remedy == "start it again"
