"""What makes one packet known at every interface: four bytes of it that no address translation changes; pure.

TCP's are the initial sequence number, which the sender chooses (the reply acknowledges it plus 1). UDP and ICMP carry
a nonce; so does the question to a DNS server, whose answer repeats it. A packet in VXLAN or IPIP is found inside of it,
an ICMP error by the packet that it quotes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from hoplab.core.ip import IPAddress
from hoplab.observe.pcap import VXLAN_PORTS

TCP, UDP, ICMP, IPIP = 6, 17, 1, 4  # protocol numbers of IPv4
NUMBERS = {"tcp": TCP, "udp": UDP, "icmp": ICMP}
HEADER = 20  # bytes of IPv4 without options, as all are that are looked at
SEQUENCE, ACKNOWLEDGED = 4, 8  # offsets in TCP's header
PAYLOAD = 8  # offset of the payload behind the header of UDP, and of an echo request
IN_VXLAN = HEADER + 8 + 8 + 14  # offset of the packet in VXLAN: UDP, VXLAN and Ethernet before it
QUOTED = HEADER + 8  # offset of the packet that an ICMP error quotes
DNS_PORT = 53
DNS_NAME = 13  # offset of the first letter of the name in a question
DNS_REST = b"\7cluster\5local\0"  # of the name: the cluster's server answers itself, and forwards nothing
ICMP_ERRORS = (3, 11, 12)  # types
LETTERS = b"abcdefghijklmnopqrstuvwxyz"

Step = tuple[int, int, int, int]  # of a filter: struct sock_filter of linux/filter.h
_LOAD = {4: 0x20, 2: 0x28, 1: 0x30}  # a word, half a word, a byte at an offset
_EQUAL, _RETURN = 0x15, 0x06
_WHOLE = 0x40000


@dataclass(frozen=True)
class Field:
    """A number at an offset of a packet, as it begins with its IP header."""

    offset: int
    size: int  # bytes
    value: int


@dataclass(frozen=True)
class Identity:
    """The packet that is traced."""

    protocol: str  # "tcp", "udp", "icmp"
    value: int  # 32 bits
    port: int = 0  # that it is sent to
    endpoints: tuple[tuple[IPAddress, int], ...] = ()  # those of a second connection, which a proxy opens

    @classmethod
    def of(cls, protocol: str, port: int, random: int, endpoints: Iterable[tuple[IPAddress, int]] = ()) -> Identity:
        """Return an identity of 32 random bits; those of a DNS name become letters."""
        value = random & 0xFFFFFFFF or 1
        if protocol == "udp" and port == DNS_PORT:
            value = int.from_bytes(bytes(LETTERS[byte % len(LETTERS)] for byte in struct.pack("!I", value)), "big")
        if protocol == "tcp" and value == 0xFFFFFFFF:
            value -= 1  # so that the acknowledged number is not 0
        return cls(protocol, value, port, tuple(endpoints))

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
        return ((ICMP, PAYLOAD, self.value),)

    def payload(self) -> bytes:
        """Return what is sent behind the header of UDP, or a whole echo request; nothing of TCP."""
        four = struct.pack("!I", self.value)
        if self.protocol == "icmp":
            body = four + b" hoplab trace".ljust(52)
            return struct.pack("!BBHHH", 8, 0, _checksum(self.value & 0xFFFF, body), self.value & 0xFFFF, 1) + body
        if self.protocol == "udp" and self.port == DNS_PORT:
            head = struct.pack("!HHHHHH", self.value & 0xFFFF, 0x0100, 1, 0, 0, 0)
            return head + b"\4" + four + DNS_REST + struct.pack("!HH", 1, 1)
        return four + b" hoplab trace" if self.protocol == "udp" else b""

    def found_in(self, packet: bytes) -> bool:
        """Return whether an IP packet is it, its reply, or an ICMP error about it; not one that carries it."""
        if len(packet) < HEADER:
            return False
        if packet[9] == ICMP and len(packet) > QUOTED and packet[HEADER] in ICMP_ERRORS:
            return self.found_in(packet[QUOTED:])
        return any(
            packet[9] == number and packet[HEADER + offset : HEADER + offset + 4] == struct.pack("!I", value)
            for number, offset, value in self.marks
        )

    def rules(self) -> tuple[str, ...]:
        """Return what packets match in nftables: it, its reply, errors about it, and what carries these."""
        found = []
        for protocol, offset, value in self.marks:
            number = {TCP: "tcp", UDP: "udp", ICMP: "icmp"}[protocol]
            found += [
                f"meta l4proto {number} @th,{offset * 8},32 {value}",
                f"meta l4proto 4 @th,{(HEADER + offset) * 8},32 {value}",
                f"icmp type {{ destination-unreachable, time-exceeded }} @th,{(QUOTED + offset) * 8},32 {value}",
                *(f"udp dport {port} @th,{(IN_VXLAN + offset) * 8},32 {value}" for port in VXLAN_PORTS),
            ]
        for address, port in self.endpoints:
            found += [f"ip daddr {address} tcp dport {port}", f"ip saddr {address} tcp sport {port}"]
        return tuple(found)

    def filter(self, carriers: Iterable[int] = ()) -> tuple[Step, ...]:
        """Return the filter of a socket for the same; also for all UDP of the ports ``carriers``, which encrypt it."""
        alternatives: list[list[Field]] = []
        for at, before in _layers():
            alternatives += [
                [*before, Field(at + 9, 1, number), Field(at + HEADER + offset, 4, value)]
                for number, offset, value in self.marks
            ]
            for address, port in self.endpoints:
                for side, where in ((12, 0), (16, 2)):
                    alternatives.append(
                        [
                            *before,
                            Field(at + 9, 1, TCP),
                            Field(at + side, 4, int(address)),
                            Field(at + HEADER + where, 2, port),
                        ]
                    )
        alternatives += [[Field(9, 1, UDP), Field(HEADER + 2, 2, port)] for port in carriers]
        return _assembled(alternatives)


def _layers() -> Iterator[tuple[int, list[Field]]]:
    """Yield where a packet may begin, and what is before it then; the longer ones of a kind come later."""
    yield 0, []
    yield HEADER, [Field(9, 1, IPIP)]
    for port in VXLAN_PORTS:
        yield IN_VXLAN, [Field(9, 1, UDP), Field(HEADER + 2, 2, port)]
    for kind in ICMP_ERRORS:
        error = [Field(9, 1, ICMP), Field(HEADER, 1, kind)]
        yield QUOTED, error
        yield HEADER + QUOTED, [Field(9, 1, IPIP), *(_moved(field, HEADER) for field in error)]
        for port in VXLAN_PORTS:
            outer = [Field(9, 1, UDP), Field(HEADER + 2, 2, port)]
            yield IN_VXLAN + QUOTED, [*outer, *(_moved(field, IN_VXLAN) for field in error)]


def _moved(field: Field, by: int) -> Field:
    return Field(field.offset + by, field.size, field.value)


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
