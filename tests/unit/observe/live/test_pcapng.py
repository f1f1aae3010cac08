"""pcapng: each block byte for byte, round trips, and what tshark makes of it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoplab.observe.live import pcapng
from hoplab.observe.live.pcapng import Interface
from tests.support import pcapng_reader
from tests.support.files import CAPTURED

POD = Interface("pod a/b", 1, 262144, "tcp", "12 ms")
FRAME = bytes.fromhex("ffffffffffff0211000000010806") + bytes(28)


def test_the_section_is_as_the_format_has_it() -> None:
    assert pcapng.section("hoplab 1") == (
        b"\x0a\x0d\x0d\x0a"
        + struct.pack("<I", 28 + 12 + 12 + 4)
        + b"\x4d\x3c\x2b\x1a\x01\0\0\0"  # byte order, version 1.0
        + b"\xff" * 8  # a length that is not known
        + b"\x03\0\x05\0Linux\0\0\0"
        + b"\x04\0\x08\0hoplab 1"
        + bytes(4)
        + struct.pack("<I", 56)
    )


def test_an_interface_has_name_resolution_filter_and_comment() -> None:
    assert pcapng.interface(POD) == (
        b"\x01\0\0\0"
        + struct.pack("<I", 20 + 12 + 8 + 8 + 12 + 4)
        + b"\x01\0\0\0\0\0\x04\0"  # Ethernet, reserved, 262144 bytes
        + b"\x02\0\x07\0pod a/b\0"
        + b"\x09\0\x01\0\x09\0\0\0"  # 10 ** -9 seconds
        + b"\x0b\0\x04\0\0tcp"  # a text for libpcap
        + b"\x01\0\x05\00012 ms\0\0\0".replace(b"\x00012", b"\x0012")
        + bytes(4)
        + struct.pack("<I", 64)
    )


def test_a_packet_is_padded_and_keeps_nanoseconds() -> None:
    time = 1_795_902_780_123_456_789
    assert pcapng.packet(3, time, b"abcde", 1500) == (
        b"\x06\0\0\0"
        + struct.pack("<I", 32 + 8)
        + struct.pack("<IIIII", 3, time >> 32, time & 0xFFFFFFFF, 5, 1500)
        + b"abcde\0\0\0"
        + struct.pack("<I", 40)
    )


def test_statistics_have_times_and_numbers() -> None:
    assert pcapng.statistics(1, 1 << 32, 2 << 32 | 7, 10, 4) == (
        b"\x05\0\0\0"
        + struct.pack("<I", 24 + 12 * 4 + 4)
        + struct.pack("<III", 1, 2, 7)
        + b"\x02\0\x08\0\x01\0\0\0\0\0\0\0"
        + b"\x03\0\x08\0\x02\0\0\0\x07\0\0\0"
        + b"\x04\0\x08\0\x0a\0\0\0\0\0\0\0"
        + b"\x05\0\x08\0\x04\0\0\0\0\0\0\0"
        + bytes(4)
        + struct.pack("<I", 76)
    )


@given(
    st.lists(st.text(max_size=40), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**63), st.binary(max_size=70), st.integers(0, 2**16))),
)
def test_what_is_written_is_read_again(interfaces: list[str], packets: list[tuple[int, int, bytes, int]]) -> None:
    of_known = [(number % len(interfaces), time, data, size) for number, time, data, size in packets]
    file = pcapng.section("hoplab")
    file += b"".join(pcapng.interface(Interface(name, 1, 0, name, name)) for name in interfaces)
    file += b"".join(pcapng.packet(*packet) for packet in of_known)
    assert pcapng_reader.names(file) == interfaces
    assert [(found.interface, found.time, found.data, found.size) for found in pcapng_reader.packets(file)] == [
        (interfaces[number], time, data, size) for number, time, data, size in of_known
    ]


def written(folder: Path) -> Path:
    """A file with two interfaces of different kinds, packets of both and their statistics."""
    record = (CAPTURED / "vxlan.pcap").read_bytes()[40:100]
    blocks = [
        pcapng.section("hoplab 1"),
        pcapng.interface(POD),
        pcapng.interface(Interface("node worker1 tunl0", 101, 256)),
        pcapng.packet(0, 1_795_902_780_123_456_789, FRAME, len(FRAME)),
        pcapng.packet(1, 1_795_902_780_123_456_790, b"\x45" + bytes(3), 1500),
        pcapng.packet(0, 1_795_902_780_123_456_791, record, 90),
        pcapng.statistics(0, 1_795_902_780_000_000_000, 1_795_902_781_000_000_000, 2, 0),
        pcapng.statistics(1, 1_795_902_780_000_000_000, 1_795_902_781_000_000_000, 1, 5),
    ]
    file = folder / "written.pcapng"
    file.write_bytes(b"".join(blocks))
    return file


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_tshark_reads_it_without_a_warning(tmp_path: Path) -> None:
    fields = [word for name in ("frame.interface_name", "frame.time_epoch", "frame.len") for word in ("-e", name)]
    done = subprocess.run(
        ["tshark", "-n", "-r", written(tmp_path), "-T", "fields", *fields],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TZ": "UTC"},
    )
    said = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    assert said == []
    assert [line.split("\t") for line in done.stdout.splitlines()] == [
        ["pod a/b", "1795902780.123456789", "42"],
        ["node worker1 tunl0", "1795902780.123456790", "1500"],
        ["pod a/b", "1795902780.123456791", "90"],
    ]


@pytest.mark.skipif(shutil.which("capinfos") is None, reason="needs capinfos")
def test_capinfos_knows_the_interfaces(tmp_path: Path) -> None:
    done = subprocess.run(["capinfos", written(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    for words in (
        "pod a/b",
        "node worker1 tunl0",
        "nanoseconds (9)",
        "Filter string = tcp",
        "Number of stat entries = 1",
    ):
        assert words in done.stdout, done.stdout
