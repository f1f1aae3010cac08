"""A packet as it was seen at an interface, from the bytes of it; pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Literal

from hoplab.observe.pcap import VXLAN_PORTS
from hoplab.trace.live.identity import HEADER, ICMP, ICMP_ERRORS, IN_VXLAN, IPIP, QUOTED, TCP, UDP, Identity
from hoplab.trace.model import Direction, Header, Place

Leg = Literal["there", "back", "carrier"]
OTHER_HOST, OUTGOING = 3, 4  # kinds of packets, linux/if_packet.h
NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", IPIP: "ipencap"}
SYN, RST, ACK = 0x02, 0x04, 0x10
UNREACHABLE = {0: "net", 1: "host", 2: "protocol", 3: "port", 9: "net", 10: "host", 13: "administratively"}


@dataclass(frozen=True)
class Raw:
    """What passed the filter at an interface."""

    place: Place
    dev: str
    kind: int  # linux/if_packet.h
    time: int  # nanoseconds since 1970, of this machine's clock
    order: int  # of arrival here; of one namespace it is the order of the kernel
    data: bytes  # from the IP header on


@dataclass(frozen=True)
class Sighting:
    """The traced packet, or its reply, at an interface."""

    place: Place
    dev: str
    direction: Direction
    leg: Leg
    header: Header  # the outer one, where another packet carries it
    time: int
    order: int
    inner: Header | None = None
    wrapped: str = ""  # "VXLAN, VNI 1", "IPIP"
    what: str = ""  # of a reply that refuses: "reset", "ICMP port unreachable"
    size: int = 0  # bytes of the IP packet
    second: bool = False  # of the connection that a proxy opens

    @property
    def itself(self) -> Header:
        """Return the addresses of the packet, also where another one carries it."""
        return self.inner or self.header


def read(raws: Iterable[Raw], identity: Identity) -> tuple[Sighting, ...]:
    """Return where the packet and its reply were seen, in the order of time; each only once at an interface.

    A TCP sender repeats a packet that is not answered: the first one counts. Packets of UDP that carry others
    encrypted have the leg "carrier".
    """
    found: list[Sighting] = []
    questions: set[Header] = set()
    for raw in sorted(raws, key=lambda raw: (raw.time, raw.order)):
        if raw.place.kind == "pod" and raw.kind == OTHER_HOST:
            continue  # a copy that a bridge sent to all of its ports
        seen = _read(raw, identity, questions)
        if seen is None:
            continue
        if seen.leg == "there":
            questions.add(seen.itself)
        if seen.leg == "carrier" or not any(_alike(seen, known) for known in found):
            found.append(seen)
    return tuple(found)


def _alike(one: Sighting, other: Sighting) -> bool:
    return (one.place, one.dev, one.direction, one.leg, one.second, bool(one.inner)) == (
        other.place,
        other.dev,
        other.direction,
        other.leg,
        other.second,
        bool(other.inner),
    )


def _read(raw: Raw, identity: Identity, questions: set[Header]) -> Sighting | None:
    outer = header_of(raw.data)
    if outer is None:
        return None
    inner, packet, wrapped = None, raw.data, ""
    if opened := _opened(raw.data):
        packet, wrapped = opened
        inner = header_of(packet)
    direction: Direction = "out" if raw.kind == OUTGOING else "in"
    seen = Sighting(
        raw.place, raw.dev, direction, "carrier", outer, raw.time, raw.order, inner, wrapped, size=len(raw.data)
    )
    if identity.found_in(packet):
        return _of_first(seen, packet, identity, questions)
    if second := _of_second(seen, packet, identity, questions):
        return second
    return seen if outer.protocol == "udp" and not inner else None


def _opened(data: bytes) -> tuple[bytes, str] | None:
    """Return the packet that a packet carries, and how."""
    if len(data) < HEADER + 8:
        return None
    if data[9] == IPIP:
        return data[HEADER:], "IPIP"
    if data[9] == UDP and int.from_bytes(data[HEADER + 2 : HEADER + 4], "big") in VXLAN_PORTS and len(data) > IN_VXLAN:
        return data[IN_VXLAN:], f"VXLAN, VNI {int.from_bytes(data[HEADER + 12 : HEADER + 15], 'big')}"
    return None


def header_of(packet: bytes) -> Header | None:
    """Return the addresses and ports of an IP packet; None where it is too short for them."""
    if len(packet) < HEADER + 4 or packet[0] >> 4 != 4:
        return None
    src, dst = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    protocol = NAMES.get(packet[9], str(packet[9]))
    if packet[9] not in (TCP, UDP):
        return Header(src, dst, protocol)
    sport, dport = struct.unpack_from("!HH", packet, HEADER)
    return Header(src, dst, protocol, sport, dport)


def _of_first(seen: Sighting, packet: bytes, identity: Identity, questions: set[Header]) -> Sighting | None:
    """Return a sighting of the packet itself, or of its reply; None for one that comes later in the connection."""
    if packet[9] == ICMP and packet[HEADER] in ICMP_ERRORS and identity.found_in(packet[QUOTED:]):
        return replace(seen, leg="back", what=_error(packet))
    if packet[9] == TCP:
        flags = packet[HEADER + 13]
        if flags & (SYN | ACK) == SYN:
            return replace(seen, leg="there")
        if flags & RST:
            return replace(seen, leg="back", what="reset")
        return replace(seen, leg="back") if flags & SYN else None
    if packet[9] == ICMP:
        return replace(seen, leg="there" if packet[HEADER] == 8 else "back")
    own = seen.itself
    answer = replace(own, src=own.dst, dst=own.src, sport=own.dport, dport=own.sport) in questions
    return replace(seen, leg="back" if answer else "there")


def _error(packet: bytes) -> str:
    kind, code = packet[HEADER], packet[HEADER + 1]
    if kind != ICMP_ERRORS[0]:
        return "ICMP time exceeded" if kind == ICMP_ERRORS[1] else "ICMP parameter problem"
    word = UNREACHABLE.get(code, f"code {code}")
    return "ICMP administratively prohibited" if code == 13 else f"ICMP {word} unreachable"


def _of_second(seen: Sighting, packet: bytes, identity: Identity, questions: set[Header]) -> Sighting | None:
    """Return a sighting of the request that a proxy passes on, or of the first of its answer."""
    own = seen.itself
    if own.protocol != "tcp" or len(packet) < HEADER + 13:
        return None
    start = HEADER + (packet[HEADER + 12] >> 4) * 4
    total = int.from_bytes(packet[2:4], "big")
    if total <= start:  # it carries no data
        return None
    if identity.nonce.encode() in packet[start:] and (own.dst, own.dport) in identity.endpoints:
        return replace(seen, leg="there", second=True)
    answer = replace(own, src=own.dst, dst=own.src, sport=own.dport, dport=own.sport)
    return replace(seen, leg="back", second=True) if answer in questions else None
