"""A packet as it was seen at an interface, from the bytes of it; pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from hoplab.observe.pcap import VXLAN_PORTS
from hoplab.trace.live.identity import IN_VXLAN, LAYOUTS, QUOTED, TCP, UDP, Identity, Layout, layout_of
from hoplab.trace.model import ICMP6, Direction, Header, Place

Leg = Literal["there", "back", "carrier"]
OTHER_HOST, OUTGOING = 3, 4  # kinds of packets, linux/if_packet.h
V4, V6 = LAYOUTS[4], LAYOUTS[6]
NAMES = {TCP: "tcp", UDP: "udp", V4.icmp: "icmp", V6.icmp: ICMP6, V4.inside: "ipencap", V6.inside: "ipv6"}
SYN, RST, ACK = 0x02, 0x04, 0x10
UNREACHABLE = {0: "net", 1: "host", 2: "protocol", 3: "port", 9: "net", 10: "host", 13: "administratively"}
UNREACHABLE6 = {0: "net", 1: "administratively", 2: "beyond scope", 3: "address", 4: "port", 6: "route rejected"}
PROHIBITED = "administratively"


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
    layout = layout_of(data)
    if layout is None or len(data) < layout.header + 8:
        return None
    number, rest = layout.number(data), data[layout.header :]
    if number in (V4.inside, V6.inside):
        return rest, "IPIP"
    if number == UDP and int.from_bytes(rest[2:4], "big") in VXLAN_PORTS and len(rest) > IN_VXLAN:
        return rest[IN_VXLAN:], f"VXLAN, VNI {int.from_bytes(rest[12:15], 'big')}"
    return None


def header_of(packet: bytes) -> Header | None:
    """Return the addresses and ports of an IP packet; None where it is too short for them."""
    layout = layout_of(packet)
    if layout is None or len(packet) < layout.header + 4:
        return None
    src, dst = layout.ends(packet)
    number = layout.number(packet)
    if number not in (TCP, UDP):
        return Header(src, dst, NAMES.get(number, str(number)))
    sport, dport = struct.unpack_from("!HH", packet, layout.header)
    return Header(src, dst, NAMES[number], sport, dport)


def _of_first(seen: Sighting, packet: bytes, identity: Identity, questions: set[Header]) -> Sighting | None:
    """Return a sighting of the packet itself, or of its reply; None for one that comes later in the connection."""
    layout = identity.layout
    number, rest = layout.number(packet), packet[layout.header :]
    if number == layout.icmp and rest[0] in layout.errors and identity.found_in(rest[QUOTED:]):
        return replace(seen, leg="back", what=_error(layout, rest[0], rest[1]))
    if number == TCP:
        flags = rest[13]
        if flags & (SYN | ACK) == SYN:
            return replace(seen, leg="there")
        if flags & RST:
            return replace(seen, leg="back", what="reset")
        return replace(seen, leg="back") if flags & SYN else None
    if number == layout.icmp:
        return replace(seen, leg="there" if rest[0] == layout.echo else "back")
    own = seen.itself
    answer = replace(own, src=own.dst, dst=own.src, sport=own.dport, dport=own.sport) in questions
    return replace(seen, leg="back" if answer else "there")


def _error(layout: Layout, kind: int, code: int) -> str:
    name = "ICMP" if layout is V4 else "ICMPv6"
    unreachable, *others = layout.errors
    if kind != unreachable:
        words = ("time exceeded", "parameter problem", "packet too big")
        return f"{name} {dict(zip(others, words, strict=False))[kind]}"
    word = (UNREACHABLE if layout is V4 else UNREACHABLE6).get(code, f"code {code}")
    return f"{name} {word} prohibited" if word == PROHIBITED else f"{name} {word} unreachable"


def _of_second(seen: Sighting, packet: bytes, identity: Identity, questions: set[Header]) -> Sighting | None:
    """Return a sighting of the request that a proxy passes on, or of the first of its answer."""
    own = seen.itself
    layout = layout_of(packet)
    if layout is None or own.protocol != "tcp" or len(packet) < layout.header + 13:
        return None
    start = layout.header + (packet[layout.header + 12] >> 4) * 4
    if layout.length(packet) <= start:  # it carries no data
        return None
    if identity.nonce.encode() in packet[start:] and (own.dst, own.dport) in identity.endpoints:
        return replace(seen, leg="there", second=True)
    answer = replace(own, src=own.dst, dst=own.src, sport=own.dport, dport=own.sport)
    return replace(seen, leg="back", second=True) if answer in questions else None
