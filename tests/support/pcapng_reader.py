"""A reader of pcapng files that shares nothing with the writer: blocks, their options and what is in them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Block:
    """A block: its type, its fixed part, and options by code."""

    kind: int
    body: bytes
    options: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadPacket:
    """A packet of a file."""

    interface: str  # its name
    time: int  # nanoseconds since 1970
    data: bytes
    size: int


FIXED = {0x0A0D0D0A: 16, 1: 8, 5: 12, 6: 20}  # bytes before a block's options, or before the data of a packet


def blocks(data: bytes) -> Iterator[Block]:
    """Yield the blocks of a little-endian file; fail where one is not as the format has it."""
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0 and length >= 12
        assert struct.unpack_from("<I", data, at + length - 4) == (length,)
        body = data[at + 8 : at + length - 4]
        end = FIXED[kind]
        if kind == 6:
            (kept,) = struct.unpack_from("<I", body, 12)
            end += kept + -kept % 4
        yield Block(kind, body[:end], dict(options(body[end:])))
        at += length
    assert at == len(data)


def options(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield codes and values; where there are any, the last one is the end of options."""
    at = 0
    while at < len(data):
        code, size = struct.unpack_from("<HH", data, at)
        if code == 0:
            assert size == 0 and at + 4 == len(data)
            return
        yield code, data[at + 4 : at + 4 + size]
        at += 4 + size + -size % 4
    assert not data, "options without an end"


def names(data: bytes) -> list[str]:
    """Return the names of the interfaces of a file."""
    return [block.options[2].decode() for block in blocks(data) if block.kind == 1]


def packets(data: bytes) -> list[ReadPacket]:
    """Return the packets of a file, in its order."""
    known = names(data)
    found = []
    for block in blocks(data):
        if block.kind == 6:
            number, high, low, kept, size = struct.unpack_from("<5I", block.body)
            found.append(ReadPacket(known[number], high << 32 | low, block.body[20 : 20 + kept], size))
    return found
