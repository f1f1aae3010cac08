"""Blocks of a pcapng file, the format of Wireshark that has several interfaces with names and nanoseconds; pure.

No library in requirements.lock writes it, and a file needs only four kinds of blocks: one section header, a
description of each interface, packets, and at the end the statistics of each interface. All numbers are little-endian.
Format: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

Options = Iterable[tuple[int, bytes]]  # code and value

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6  # types of blocks
BYTE_ORDER = 0x1A2B3C4D
COMMENT = 1  # an option of every block
SHB_OS, SHB_USERAPPL = 3, 4
IF_NAME, IF_TSRESOL, IF_FILTER = 2, 9, 11
ISB_STARTTIME, ISB_ENDTIME, ISB_IFRECV, ISB_IFDROP = 2, 3, 4, 5
NANOSECONDS = 9  # of IF_TSRESOL: a power of ten
FILTER_TEXT = b"\0"  # kind of an IF_FILTER: what follows is a text for libpcap


@dataclass(frozen=True)
class Interface:
    """An interface whose packets are in the file."""

    name: str  # "pod default/web-1 eth0 on worker1"
    link_type: int
    snaplen: int
    filter: str = ""
    comment: str = ""


def section(program: str, system: str = "Linux") -> bytes:
    """Return the block that a file begins with; its length is not known yet."""
    options = ((SHB_OS, system.encode()), (SHB_USERAPPL, program.encode()))
    return _block(SECTION, struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1), options)


def interface(described: Interface) -> bytes:
    """Return the block that describes an interface; packets name it by its number in the file, from 0."""
    options = [(IF_NAME, described.name.encode()), (IF_TSRESOL, bytes([NANOSECONDS]))]
    if described.filter:
        options.append((IF_FILTER, FILTER_TEXT + described.filter.encode()))
    if described.comment:
        options.append((COMMENT, described.comment.encode()))
    return _block(INTERFACE, struct.pack("<HHI", described.link_type, 0, described.snaplen), options)


def packet(number: int, time: int, data: bytes, size: int) -> bytes:
    """Return the block of a packet of an interface; ``time`` is in nanoseconds since 1970, ``size`` in bytes."""
    head = struct.pack("<IIIII", number, *_halves(time), len(data), size)
    return _block(PACKET, head + _padded(data))


def statistics(number: int, began: int, ended: int, received: int, dropped: int) -> bytes:
    """Return the block with what an interface captured: times in nanoseconds since 1970, numbers of packets."""
    options = (
        (ISB_STARTTIME, struct.pack("<II", *_halves(began))),
        (ISB_ENDTIME, struct.pack("<II", *_halves(ended))),
        (ISB_IFRECV, struct.pack("<Q", received)),
        (ISB_IFDROP, struct.pack("<Q", dropped)),
    )
    return _block(STATISTICS, struct.pack("<III", number, *_halves(ended)), options)


def _halves(time: int) -> tuple[int, int]:
    return time >> 32 & 0xFFFFFFFF, time & 0xFFFFFFFF


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes, options: Options = ()) -> bytes:
    """Return a block: its type, its length, the body, its options, and its length again."""
    listed = b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options)
    if listed:
        listed += bytes(4)  # end of options
    length = struct.pack("<I", 12 + len(body) + len(listed))
    return struct.pack("<I", kind) + length + body + listed + length
