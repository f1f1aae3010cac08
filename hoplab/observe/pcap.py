"""Packets of a capture file: pcap records parsed into frozen values; pure.

pcap and the few headers have fixed layouts. No library fits: scapy's license is incompatible
with hoplab's, and dpkt is unmaintained and has no VXLAN.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from hoplab.core.errors import LabError

VXLAN_PORTS = (8472, 4789)  # Linux's own default, which flannel uses, and IANA's

_ORDERS = {  # byte order and unit of the fractions of a second, by the first bytes of a capture file
    bytes.fromhex("d4c3b2a1"): ("<", 1e-6),
    bytes.fromhex("a1b2c3d4"): (">", 1e-6),
    bytes.fromhex("4d3cb2a1"): ("<", 1e-9),
    bytes.fromhex("a1b23c4d"): (">", 1e-9),
}
FILE_HEADER, RECORD_HEADER, COOKED_HEADER = 24, 16, 20  # bytes
ETHERNET, RAW_IP = 1, 101  # link types; an IPIP interface has no Ethernet header
COOKED = 276  # link type of Linux' device `any`: the protocol and the interface's index in place of the link layer
VNI_VALID = 0x08  # flag of VXLAN


class CaptureError(LabError):
    """A capture that failed, or a capture file that can't be read."""


@dataclass(frozen=True)
class CapturedPacket:
    """One packet on one interface. ``str(packet)`` is like a line of tcpdump."""

    time: float  # seconds since 1970
    dev: str
    eth_src: str = ""
    eth_dst: str = ""
    protocol: str = ""  # "tcp", "udp", "icmp", "ipip", "arp"; a number for others: "0x88cc" of Ethernet, "132" of IPv4
    src: IPv4Address | IPv6Address | None = None
    dst: IPv4Address | IPv6Address | None = None
    ttl: int = 0  # the hop limit of IPv6 too
    sport: int = 0
    dport: int = 0
    flags: str = ""  # of TCP, as tcpdump writes them: "S", "S.", "P.", "F."
    icmp_type: int | None = None  # 8 echo request, 0 echo reply, 3 unreachable
    arp_op: int = 0  # 1 request, 2 reply: src is the sender's address, dst the target's
    vni: int | None = None  # VXLAN's network identifier
    inner: CapturedPacket | None = None  # the packet in a VXLAN or IPIP packet

    def __str__(self) -> str:
        if self.protocol == "arp":
            return (
                f"ARP, Request who-has {self.dst} tell {self.src}"
                if self.arp_op == 1
                else f"ARP, Reply {self.src} is-at {self.eth_src}"
            )
        if self.src is None or self.dst is None:
            return f"{self.eth_src} > {self.eth_dst}, ethertype {self.protocol}"
        ports = (f".{self.sport}", f".{self.dport}") if self.protocol in ("tcp", "udp") else ("", "")
        return f"IP{'6' if self.src.version == 6 else ''} {self.src}{ports[0]} > {self.dst}{ports[1]}: {self._summary}"

    @property
    def _summary(self) -> str:
        if self.vni is not None:
            return f"VXLAN, vni {self.vni}: {self.inner}"
        match self.protocol:
            case "tcp":
                return f"Flags [{self.flags}]"
            case "udp":
                return "UDP"
            case "ipip" if self.inner:
                return f"IPIP: {self.inner}"
            case "icmp":
                return f"ICMP {_ICMP.get(self.icmp_type, f'type {self.icmp_type}')}"
            case number:
                return f"ip-proto-{number}"


_ICMP: Mapping[int | None, str] = {0: "echo reply", 3: "unreachable", 8: "echo request", 11: "time exceeded"}
_PROTOCOLS = {1: "icmp", 4: "ipip", 6: "tcp", 17: "udp"}
_PROTOCOLS6 = {6: "tcp", 17: "udp"}
_TCP_FLAGS = ((0x01, "F"), (0x02, "S"), (0x04, "R"), (0x08, "P"), (0x10, "."), (0x20, "U"))  # in tcpdump's order


def decode(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except ValueError:
        raise _unreadable("it is not base64") from None


def parse(data: bytes, dev: str) -> tuple[CapturedPacket, ...]:
    """Return the packets of a capture file as ``tcpdump -w`` writes it; raise CaptureError for another file."""
    order, fraction = _ORDERS.get(data[:4], ("", 0.0))
    if not order or len(data) < FILE_HEADER:
        raise _unreadable(f"it does not begin as one: {data[:4].hex(' ') or 'it is empty'}")
    (link_type,) = struct.unpack_from(f"{order}I", data, 20)
    if link_type not in (ETHERNET, RAW_IP):
        raise _unreadable(f"its link type is {link_type}; only Ethernet, {ETHERNET}, and IP, {RAW_IP}, are known")
    packets, at = [], FILE_HEADER
    while at < len(data):
        if at + RECORD_HEADER > len(data):
            raise _unreadable("it ends in the middle of a packet")
        seconds, rest, size = struct.unpack_from(f"{order}3I", data, at)
        at += RECORD_HEADER + size
        if at > len(data):
            raise _unreadable("it ends in the middle of a packet")
        packet = decoded(data[at - size : at], link_type, CapturedPacket(seconds + rest * fraction, dev))
        assert packet  # of a known link type
        packets.append(packet)
    return tuple(packets)


def decoded(frame: bytes, link_type: int, packet: CapturedPacket) -> CapturedPacket | None:
    """Return the packet with the fields of a frame's headers; None where the link type is not known."""
    if link_type == ETHERNET:
        return _ethernet(packet, frame)
    if link_type == RAW_IP:
        return (_ipv6 if frame[:1] and frame[0] >> 4 == 6 else _ipv4)(packet, frame, False)
    if link_type == COOKED:
        return _of_ethertype(packet, int.from_bytes(frame[:2], "big"), frame[COOKED_HEADER:])
    return None


def _unreadable(why: str) -> CaptureError:
    return CaptureError(f"this is no capture file: {why}", remedy="capture again; tcpdump may have been killed")


def _ethernet(packet: CapturedPacket, frame: bytes, *, wrapped: bool = False) -> CapturedPacket:
    """Return the packet with the fields of a frame; a header that is cut off leaves its fields empty."""
    if len(frame) < 14:
        return packet
    dst, src, kind = struct.unpack_from("!6s6sH", frame)
    packet = replace(packet, eth_src=src.hex(":"), eth_dst=dst.hex(":"))
    return _of_ethertype(packet, kind, frame[14:], wrapped)


def _of_ethertype(packet: CapturedPacket, kind: int, body: bytes, wrapped: bool = False) -> CapturedPacket:
    packet = replace(packet, protocol=f"{kind:#06x}")
    match kind:
        case 0x0800:
            return _ipv4(packet, body, wrapped)
        case 0x86DD:
            return _ipv6(packet, body, wrapped)
        case 0x0806:
            return _arp(packet, body)
        case _:
            return packet


def _arp(packet: CapturedPacket, body: bytes) -> CapturedPacket:
    if len(body) < 28:
        return packet
    op, src, dst = struct.unpack_from("!6xH6x4s6x4s", body)
    return replace(packet, protocol="arp", arp_op=op, src=IPv4Address(src), dst=IPv4Address(dst))


def _ipv4(packet: CapturedPacket, body: bytes, wrapped: bool) -> CapturedPacket:
    if len(body) < 20:
        return packet
    size, fragment, ttl, number, src, dst = struct.unpack_from("!B5xHBB2x4s4s", body)
    protocol = _PROTOCOLS.get(number, str(number))
    packet = replace(packet, protocol=protocol, ttl=ttl, src=IPv4Address(src), dst=IPv4Address(dst))
    if fragment & 0x1FFF:  # a later fragment: it has no transport header
        return packet
    return _payload(packet, body[(size & 0xF) * 4 :], wrapped)


def _ipv6(packet: CapturedPacket, body: bytes, wrapped: bool) -> CapturedPacket:
    """Return the packet with the fields of the IPv6 header; of extension headers only the number."""
    if len(body) < 40:
        return packet
    number, ttl, src, dst = struct.unpack_from("!6xBB16s16s", body)
    protocol = _PROTOCOLS6.get(number, str(number))
    packet = replace(packet, protocol=protocol, ttl=ttl, src=IPv6Address(src), dst=IPv6Address(dst))
    return _payload(packet, body[40:], wrapped)


def _payload(packet: CapturedPacket, payload: bytes, wrapped: bool) -> CapturedPacket:
    """Return the packet with the fields of an IP packet's payload."""
    match packet.protocol:
        case "tcp" if len(payload) >= 14:
            sport, dport, bits = struct.unpack_from("!HH9xB", payload)
            flags = "".join(letter for bit, letter in _TCP_FLAGS if bits & bit) or "none"
            return replace(packet, sport=sport, dport=dport, flags=flags)
        case "udp" if len(payload) >= 8:
            sport, dport = struct.unpack_from("!HH", payload)
            packet = replace(packet, sport=sport, dport=dport)
            return packet if wrapped or dport not in VXLAN_PORTS else _vxlan(packet, payload[8:])
        case "icmp" if payload:
            return replace(packet, icmp_type=payload[0])
        case "ipip" if not wrapped:
            return replace(packet, inner=_ipv4(CapturedPacket(packet.time, packet.dev), payload, wrapped=True))
        case _:
            return packet


def _vxlan(packet: CapturedPacket, body: bytes) -> CapturedPacket:
    if len(body) < 8 or not body[0] & VNI_VALID:
        return packet
    inner = _ethernet(CapturedPacket(packet.time, packet.dev), body[8:], wrapped=True)
    return replace(packet, vni=int.from_bytes(body[4:7], "big"), inner=inner)
