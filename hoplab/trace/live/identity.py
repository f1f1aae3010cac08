"""What makes one packet known at every interface: four bytes of it that no address translation changes; pure.

TCP's are the initial sequence number, which the sender chooses (the reply acknowledges it plus 1). UDP and ICMP carry
a nonce; so does the question to a DNS server, whose answer repeats it. A packet in VXLAN or IPIP is found inside of it,
an ICMP error by the packet that it quotes. Packets of IPv6 are those without extension headers, as all of a trace are;
what carries a packet may be of the other family.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address

from hoplab.core.ip import IPAddress
from hoplab.observe.pcap import VXLAN_PORTS
from hoplab.trace.model import ICMP6

TCP, UDP = 6, 17  # numbers of protocols
SEQUENCE, ACKNOWLEDGED = 4, 8  # offsets in TCP's header
PAYLOAD = 8  # offset of the payload behind the header of UDP, and of an echo request
IN_VXLAN = 8 + 8 + 14  # offset of the packet behind the IP header in VXLAN: UDP, VXLAN and Ethernet before it
QUOTED = 8  # offset of the packet that an ICMP error quotes, behind the IP header
DNS_PORT = 53
DNS_NAME = 13  # offset of the first letter of the name in a question
DNS_REST = b"\7cluster\5local\0"  # of the name: the cluster's server answers itself, and forwards nothing
LETTERS = b"abcdefghijklmnopqrstuvwxyz"

Step = tuple[int, int, int, int]  # of a filter: struct sock_filter of linux/filter.h
_LOAD = {4: 0x20, 2: 0x28, 1: 0x30}  # a word, half a word, a byte at an offset
_EQUAL, _RETURN = 0x15, 0x06
_WHOLE = 0x40000


@dataclass(frozen=True)
class Layout:
    """Where the packets of a family have what is looked at."""

    header: int  # bytes of its header, without options
    protocol: int  # offset of the number of what follows
    addresses: tuple[int, int]  # offsets of source and destination
    size: int  # bytes of an address
    icmp: int  # number of its ICMP
    inside: int  # number that stands for a packet of this family in another one
    echo: int  # type of an echo request
    errors: tuple[int, ...]  # types of ICMP that quote a packet: unreachable, time exceeded, parameter problem, ...
    nft: str  # ICMP as nftables names it
    key: str  # the family, as nftables does

    def number(self, packet: bytes) -> int:
        return packet[self.protocol]

    def ends(self, packet: bytes) -> tuple[IPAddress, IPAddress]:
        src, dst = (ip_address(packet[at : at + self.size]) for at in self.addresses)
        return src, dst

    def length(self, packet: bytes) -> int:
        """Return the bytes of a packet, by its header."""
        if self is LAYOUTS[4]:
            return int.from_bytes(packet[2:4], "big")
        return self.header + int.from_bytes(packet[4:6], "big")


LAYOUTS = {
    4: Layout(20, 9, (12, 16), 4, 1, 4, 8, (3, 11, 12), "icmp", "ip"),
    6: Layout(40, 6, (8, 24), 16, 58, 41, 128, (1, 3, 4, 2), "icmpv6", "ip6"),
}


def layout_of(packet: bytes) -> Layout | None:
    """Return the layout of a packet; None where it is of no family, or shorter than its header."""
    found = LAYOUTS.get(packet[0] >> 4) if packet else None
    return found if found and len(packet) >= found.header else None


@dataclass(frozen=True)
class Field:
    """A number at an offset of a packet, as it begins with its IP header."""

    offset: int
    size: int  # bytes
    value: int


@dataclass(frozen=True)
class Identity:
    """The packet that is traced."""

    protocol: str  # "tcp", "udp", "icmp", "ipv6-icmp"
    value: int  # 32 bits
    port: int = 0  # that it is sent to
    endpoints: tuple[tuple[IPAddress, int], ...] = ()  # those of a second connection, which a proxy opens
    version: int = 4  # of IP

    @classmethod
    def of(
        cls,
        protocol: str,
        port: int,
        random: int,
        endpoints: Iterable[tuple[IPAddress, int]] = (),
        version: int = 4,
    ) -> Identity:
        """Return an identity of 32 random bits; those of a DNS name become letters."""
        value = random & 0xFFFFFFFF or 1
        if protocol == "udp" and port == DNS_PORT:
            value = int.from_bytes(bytes(LETTERS[byte % len(LETTERS)] for byte in struct.pack("!I", value)), "big")
        if protocol == "tcp" and value == 0xFFFFFFFF:
            value -= 1  # so that the acknowledged number is not 0
        return cls(protocol, value, port, tuple(endpoints), version)

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.version]

    @property
    def nonce(self) -> str:
        """Return it as text, for a request that a proxy passes on."""
        return f"hoplab-{self.value:08x}"

    @cached_property
    def marks(self) -> tuple[tuple[int, int, int], ...]:
        """Return protocol number, offset behind the IP header, and number; any of them is it."""
        if self.protocol == "tcp":
            return ((TCP, SEQUENCE, self.value), (TCP, ACKNOWLEDGED, self.value + 1))
        if self.protocol == "udp":
            return ((UDP, PAYLOAD + (DNS_NAME if self.port == DNS_PORT else 0), self.value),)
        return ((self.layout.icmp, PAYLOAD, self.value),)

    def payload(self) -> bytes:
        """Return what is sent behind the header of UDP, or a whole echo request; nothing of TCP."""
        four = struct.pack("!I", self.value)
        if self.protocol in ("icmp", ICMP6):
            body = four + b" hoplab trace".ljust(52)
            check = 0 if self.protocol == ICMP6 else _checksum(self.value & 0xFFFF, body)  # the kernel's, of IPv6
            return struct.pack("!BBHHH", self.layout.echo, 0, check, self.value & 0xFFFF, 1) + body
        if self.protocol == "udp" and self.port == DNS_PORT:
            head = struct.pack("!HHHHHH", self.value & 0xFFFF, 0x0100, 1, 0, 0, 0)
            return head + b"\4" + four + DNS_REST + struct.pack("!HH", 1, 1)
        return four + b" hoplab trace" if self.protocol == "udp" else b""

    def found_in(self, packet: bytes) -> bool:
        """Return whether an IP packet is it, its reply, or an ICMP error about it; not one that carries it."""
        layout = layout_of(packet)
        if layout is not self.layout:
            return False
        number, rest = layout.number(packet), packet[layout.header :]
        if number == layout.icmp and len(rest) > QUOTED and rest[0] in layout.errors:
            return self.found_in(rest[QUOTED:])
        return any(
            number == wanted and rest[offset : offset + 4] == struct.pack("!I", value)
            for wanted, offset, value in self.marks
        )

    def rules(self) -> tuple[str, ...]:
        """Return what packets match in nftables: it, its reply, errors about it, and what carries these."""
        found, own = [], self.layout
        for protocol, offset, value in self.marks:
            name = {TCP: "tcp", UDP: "udp", LAYOUTS[4].icmp: "icmp", LAYOUTS[6].icmp: "ipv6-icmp"}[protocol]
            errors = f"{own.nft} type {{ destination-unreachable, time-exceeded }}"
            found += [
                f"meta l4proto {name} @th,{offset * 8},32 {value}",
                f"meta l4proto {own.inside} @th,{(own.header + offset) * 8},32 {value}",
                f"{errors} @th,{(QUOTED + own.header + offset) * 8},32 {value}",
                *(f"udp dport {port} @th,{(IN_VXLAN + own.header + offset) * 8},32 {value}" for port in VXLAN_PORTS),
            ]
        for address, port in self.endpoints:
            key = LAYOUTS[address.version].key
            found += [f"{key} daddr {address} tcp dport {port}", f"{key} saddr {address} tcp sport {port}"]
        return tuple(found)

    def filter(self, carriers: Iterable[int] = ()) -> tuple[Step, ...]:
        """Return the filter of a socket for the same; also for all UDP of the ports ``carriers``, which encrypt it."""
        alternatives: list[list[Field]] = []
        for at, before in (*_carried(self.layout), *_quoted(self.layout)):
            alternatives += [[*before, *_marked(self.layout, at, *mark)] for mark in self.marks]
        for address, port in self.endpoints:
            layout = LAYOUTS[address.version]
            for at, before in _carried(layout):
                for side, where in zip(layout.addresses, (0, 2), strict=True):
                    ends = _words(at + side, address.packed)
                    ports = Field(at + layout.header + where, 2, port)
                    alternatives.append([*before, Field(at + layout.protocol, 1, TCP), *ends, ports])
        for outer in LAYOUTS.values():
            alternatives += [list(_to_port(outer, port)) for port in carriers]
        return _assembled(alternatives)


def _marked(layout: Layout, at: int, number: int, offset: int, value: int) -> Iterator[Field]:
    yield Field(at + layout.protocol, 1, number)
    yield Field(at + layout.header + offset, 4, value)


def _words(at: int, packed: bytes) -> Iterator[Field]:
    for start in range(0, len(packed), 4):
        yield Field(at + start, 4, int.from_bytes(packed[start : start + 4], "big"))


def _to_port(outer: Layout, port: int) -> Iterator[Field]:
    yield Field(outer.protocol, 1, UDP)
    yield Field(outer.header + 2, 2, port)


def _carried(layout: Layout) -> Iterator[tuple[int, list[Field]]]:
    """Yield where a packet of a family may begin, and what is before it then; the longer ones of a kind come later."""
    yield 0, []
    for outer in LAYOUTS.values():
        yield outer.header, [Field(outer.protocol, 1, layout.inside)]
        for port in VXLAN_PORTS:
            yield outer.header + IN_VXLAN, list(_to_port(outer, port))


def _quoted(layout: Layout) -> Iterator[tuple[int, list[Field]]]:
    """Yield the same of a packet that an ICMP error quotes."""
    for kind in layout.errors:
        for at, before in _carried(layout):
            error = [Field(at + layout.protocol, 1, layout.icmp), Field(at + layout.header, 1, kind)]
            yield at + layout.header + QUOTED, [*before, *error]


def _assembled(alternatives: Sequence[Sequence[Field]]) -> tuple[Step, ...]:
    """Return a program that accepts what has all fields of one of the alternatives.

    The kernel rejects a packet that is too short for a field: fields that are farther back come in later alternatives,
    or behind a field that only longer packets have.
    """
    steps: list[Step] = []
    for fields in alternatives:
        for number, field in enumerate(fields):
            left = 2 * (len(fields) - number - 1) + 1  # steps to the next alternative
            steps += [(_LOAD[field.size], 0, 0, field.offset), (_EQUAL, 0, left, field.value)]
        steps.append((_RETURN, 0, 0, _WHOLE))
    return (*steps, (_RETURN, 0, 0, 0))


def _checksum(identifier: int, body: bytes) -> int:
    total: int = 0x0800 + identifier + 1 + sum(struct.unpack(f"!{len(body) // 2}H", body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
