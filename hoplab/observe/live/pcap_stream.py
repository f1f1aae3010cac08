"""Packets out of the output of ``tcpdump -w -``, which arrives in pieces of any size; pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hoplab.observe.pcap import FILE_HEADER, RECORD_HEADER, CaptureError

_ORDERS = {  # byte order and nanoseconds in a unit of the fractions of a second, by the first bytes
    bytes.fromhex("d4c3b2a1"): ("<", 1000),
    bytes.fromhex("a1b2c3d4"): (">", 1000),
    bytes.fromhex("4d3cb2a1"): ("<", 1),
    bytes.fromhex("a1b23c4d"): (">", 1),
}
SECOND = 1_000_000_000  # nanoseconds
MAX_PACKET = 1 << 24  # bytes; tcpdump's own limit for -s is 256 KiB


@dataclass(frozen=True)
class Header:
    """The beginning of a capture."""

    link_type: int  # 1 Ethernet, 101 IP without a link layer, 276 Linux' "cooked" packets of the device `any`
    snaplen: int  # bytes of a packet that are kept at most


@dataclass(frozen=True)
class Record:
    """One packet, as captured."""

    time: int  # nanoseconds since 1970, of the clock of the host that captured it
    data: bytes  # at most snaplen bytes
    size: int  # bytes that it had on the wire


class PcapStream:
    """A capture that is read piece by piece; ``header`` is None until its beginning has arrived."""

    def __init__(self, place: str) -> None:
        self.header: Header | None = None
        self._place = place
        self._rest = b""
        self._order, self._unit = "", 0

    def feed(self, piece: bytes) -> list[Record]:
        """Return the packets that are complete with this piece; raise CaptureError where it is no capture."""
        data, at = self._rest + piece, 0
        if self.header is None:
            if len(data) < FILE_HEADER:
                self._rest = data
                return []
            at = self._begin(data)
        found = []
        while at + RECORD_HEADER <= len(data):
            seconds, fraction, kept, size = struct.unpack_from(f"{self._order}4I", data, at)
            if kept > MAX_PACKET:
                raise self._unreadable(f"a packet in it has {kept} bytes")
            end = at + RECORD_HEADER + kept
            if end > len(data):
                break
            time = seconds * SECOND + fraction * self._unit
            found.append(Record(time, data[at + RECORD_HEADER : end], size))
            at = end
        self._rest = data[at:]
        return found

    def _begin(self, data: bytes) -> int:
        """Read the file's header; return where its first packet begins."""
        self._order, self._unit = _ORDERS.get(data[:4], ("", 0))
        if not self._order:
            raise self._unreadable(f"it begins with {data[:4].hex(' ')}")
        snaplen, link_type = struct.unpack_from(f"{self._order}2I", data, 16)
        self.header = Header(link_type & 0xFFFF, snaplen)  # the upper half has the length of a frame's checksum
        return FILE_HEADER

    def _unreadable(self, why: str) -> CaptureError:
        return CaptureError(f"the capture of {self._place} can't be read: {why}", remedy="start it again")
