"""A packet is known by four bytes of it: the filter of a socket, the rules of nftables and the reader agree."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest

from hoplab.core.ip import IPAddress
from hoplab.trace.live.identity import Identity, Step
from hoplab.trace.live.sightings import Raw, Sighting, header_of, read
from hoplab.trace.model import Header, Place

ONE, OTHER, NODE1, NODE2 = (IPv4Address(text) for text in ("10.244.0.5", "10.244.1.5", "10.0.0.1", "10.0.0.2"))
ONE6, OTHER6, NODE16, NODE26 = (IPv6Address(text) for text in ("fd00::5", "fd00:1::5", "2001::1", "2001::2"))
NODES6 = (NODE16, NODE26)
NODE = Place("node", "worker1")
OUT, IN, OTHER_HOST = 4, 0, 3
SYN, SYN_ACK, RST_ACK, ACK, PUSH = 0x02, 0x12, 0x14, 0x10, 0x18


def ip(src: IPAddress, dst: IPAddress, number: int, payload: bytes) -> bytes:
    if src.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(payload), number, 64) + src.packed + dst.packed + payload
    return struct.pack("!BBHIBBH", 0x45, 0, 20 + len(payload), 0, 64, number, 0) + src.packed + dst.packed + payload


def tcp(
    src: IPAddress, dst: IPAddress, ports: tuple[int, int], numbers: tuple[int, int], flags: int, data: bytes = b""
) -> bytes:
    return ip(src, dst, 6, struct.pack("!HHIIBBHI", *ports, *numbers, 0x50, flags, 0, 0) + data)


def vxlan(packet: bytes, nodes: tuple[IPAddress, IPAddress] = (NODE1, NODE2)) -> bytes:
    return ip(*nodes, 17, struct.pack("!HHHHBBBB", 40000, 8472, 0, 0, 8, 0, 0, 0) + b"\0\0\1\0" + bytes(14) + packet)


def icmp_error(about: bytes, code: int = 3) -> bytes:
    return ip(OTHER, ONE, 1, struct.pack("!BBHI", 3, code, 0, 0) + about[:28])


def icmp6_error(about: bytes, kind: int = 1, code: int = 4) -> bytes:
    return ip(OTHER6, ONE6, 58, struct.pack("!BBHI", kind, code, 0, 0) + about)


def passes(program: Sequence[Step], packet: bytes) -> bool:
    """Run a filter as the kernel does: a load behind the end of the packet rejects it."""
    at, value = 0, 0
    while True:
        code, yes, no, operand = program[at]
        if code == 0x06:
            return operand > 0
        if code == 0x15:
            at += 1 + (yes if value == operand else no)
            continue
        size = {0x20: 4, 0x28: 2, 0x30: 1}[code]
        if operand + size > len(packet):
            return False
        value = int.from_bytes(packet[operand : operand + size], "big")
        at += 1


TCP = Identity("tcp", 0x12345678, 80)
SENT = tcp(ONE, OTHER, (40000, 80), (0x12345678, 0), SYN)
REPLY = tcp(OTHER, ONE, (80, 40000), (99, 0x12345679), SYN_ACK)


@pytest.mark.parametrize(
    ("packet", "leg", "what"),
    [
        (SENT, "there", ""),
        (REPLY, "back", ""),
        (tcp(OTHER, ONE, (80, 40000), (0, 0x12345679), RST_ACK), "back", "reset"),
        (icmp_error(SENT), "back", "ICMP port unreachable"),
        (icmp_error(SENT, 13), "back", "ICMP administratively prohibited"),
        (vxlan(SENT), "there", ""),
        (vxlan(REPLY), "back", ""),
        (vxlan(icmp_error(SENT)), "back", "ICMP port unreachable"),
        (ip(NODE1, NODE2, 4, SENT), "there", ""),
        (ip(NODE1, NODE2, 4, icmp_error(SENT)), "back", "ICMP port unreachable"),
    ],
)
def test_tcp_is_known_bare_and_carried(packet: bytes, leg: str, what: str) -> None:
    assert passes(TCP.filter(), packet)
    [seen] = read([Raw(NODE, "eth0", OUT, 1, 1, packet)], TCP)
    assert (seen.leg, seen.what, seen.direction) == (leg, what, "out")
    assert bool(seen.inner) == (header_of(packet) != seen.itself)


@pytest.mark.parametrize(
    "packet",
    [
        tcp(ONE, OTHER, (40000, 80), (0x12345679, 1), SYN),
        vxlan(tcp(ONE, OTHER, (40000, 80), (1, 2), SYN)),
        icmp_error(tcp(ONE, OTHER, (40000, 80), (1, 2), SYN)),
        ip(ONE, OTHER, 17, struct.pack("!HHHH", 53, 53, 8, 0)),
        b"",
        SENT[:22],
    ],
)
def test_other_packets_are_not(packet: bytes) -> None:
    assert not passes(TCP.filter(), packet)
    assert not TCP.found_in(packet)


def test_a_copy_for_another_host_is_no_packet_of_a_pod() -> None:
    """A bridge sends a frame to all ports where it knows none for the receiver; its own ports see frames for others."""
    pod = Place("pod", "default/web")
    assert read([Raw(pod, "eth0", OTHER_HOST, 1, 1, SENT)], TCP) == ()
    assert len(read([Raw(NODE, "veth0", OTHER_HOST, 1, 1, SENT), Raw(pod, "eth0", IN, 2, 2, SENT)], TCP)) == 2


def test_later_packets_of_the_connection_and_the_same_one_again_are_left_out() -> None:
    data = tcp(OTHER, ONE, (80, 40000), (100, 0x12345679), ACK)
    again = [Raw(NODE, "eth0", OUT, moment, moment, SENT) for moment in (5, 3)]
    seen = read([*again, Raw(NODE, "eth0", IN, 6, 6, data), Raw(NODE, "eth0", IN, 7, 7, SENT)], TCP)
    assert [(one.time, one.direction) for one in seen] == [(3, "out"), (7, "in")]


@pytest.mark.parametrize(("protocol", "port", "number"), [("udp", 9999, 17), ("udp", 53, 17), ("icmp", 0, 1)])
def test_udp_and_icmp_carry_a_nonce(protocol: str, port: int, number: int) -> None:
    identity = Identity.of(protocol, port, 0xDEADBEEF)
    head = struct.pack("!HHHH", 40000, port, 8, 0) if protocol == "udp" else b""
    back_head = struct.pack("!HHHH", port, 40000, 8, 0) if protocol == "udp" else b""
    payload = identity.payload()
    sent, reply = ip(ONE, OTHER, number, head + payload), ip(OTHER, ONE, number, back_head + payload)
    if protocol == "icmp":
        reply = ip(OTHER, ONE, 1, b"\0" + payload[1:])
        total = sum(struct.unpack(f"!{len(payload) // 2}H", payload))
        assert (total & 0xFFFF) + (total >> 16) in (0xFFFF, 0x1FFFE)
    raws = [Raw(NODE, "eth0", kind, kind, kind, packet) for kind, packet in ((IN, sent), (OUT, reply))]
    for packet in (sent, reply, vxlan(sent), ip(NODE1, NODE2, 4, reply)):
        assert passes(identity.filter(), packet)
    assert [seen.leg for seen in read(raws, identity)] == ["there", "back"]


def test_a_dns_question_has_a_name_of_letters() -> None:
    identity = Identity.of("udp", 53, 0xFF00AB01)
    question = identity.payload()
    assert (
        question[12:13] == b"\4"
        and question[13:17].isalpha()
        and question[17:].startswith(b"\7cluster\5local\0\0\1\0\1")
    )
    assert struct.pack("!I", identity.value) == question[13:17]


def test_a_sequence_number_is_never_nothing() -> None:
    assert Identity.of("tcp", 80, 0).value == 1
    assert Identity.of("tcp", 80, 0xFFFFFFFF).value == 0xFFFFFFFE


def test_the_request_that_a_proxy_passes_on_is_a_second_connection() -> None:
    identity = Identity("tcp", 7, 80, ((OTHER, 8080),))
    request = tcp(NODE1, OTHER, (50000, 8080), (1, 2), PUSH, f"GET /?{identity.nonce} HTTP/1.1".encode())
    answer = tcp(OTHER, NODE1, (8080, 50000), (2, 3), PUSH, b"HTTP/1.1 200 OK")
    other = tcp(NODE1, OTHER, (50001, 8080), (1, 2), PUSH, b"GET / HTTP/1.1")
    bare = tcp(OTHER, NODE1, (8080, 50000), (2, 3), ACK)
    assert passes(identity.filter(), request) and passes(identity.filter(), vxlan(answer))
    raws = [Raw(NODE, "eth0", IN, at, at, packet) for at, packet in enumerate((other, request, bare))]
    seen = read([*raws, Raw(NODE, "eth0", OUT, 9, 9, answer)], identity)
    assert [(one.leg, one.second, one.header.sport) for one in seen] == [("there", True, 50000), ("back", True, 8080)]


def test_packets_that_carry_it_encrypted_pass_where_their_port_is_named() -> None:
    encrypted = ip(NODE1, NODE2, 17, struct.pack("!HHHH", 51820, 51820, 8, 0) + bytes(32))
    assert not passes(TCP.filter(), encrypted) and passes(TCP.filter([51820]), encrypted)
    [seen] = read([Raw(NODE, "eth0", OUT, 1, 1, encrypted)], TCP)
    assert seen == Sighting(
        NODE, "eth0", "out", "carrier", Header(NODE1, NODE2, "udp", 51820, 51820), 1, 1, size=len(encrypted)
    )


def test_rules_of_nftables_match_the_same() -> None:
    rules = Identity("udp", 0x41424344, 9999).rules()
    assert rules[0] == "meta l4proto udp @th,64,32 1094861636"
    assert "udp dport 8472 @th,464,32 1094861636" in rules and "meta l4proto 4 @th,224,32 1094861636" in rules
    assert len(rules) == 5 and len(TCP.rules()) == 10
    proxied = Identity("tcp", 7, 80, ((OTHER, 8080),)).rules()
    assert proxied[-2:] == ("ip daddr 10.244.1.5 tcp dport 8080", "ip saddr 10.244.1.5 tcp sport 8080")


# IPv6

TCP6 = Identity("tcp", 0x12345678, 80, version=6)
SENT6 = tcp(ONE6, OTHER6, (40000, 80), (0x12345678, 0), SYN)
REPLY6 = tcp(OTHER6, ONE6, (80, 40000), (99, 0x12345679), SYN_ACK)


@pytest.mark.parametrize(
    ("packet", "leg", "what", "wrapped"),
    [
        (SENT6, "there", "", ""),
        (REPLY6, "back", "", ""),
        (tcp(OTHER6, ONE6, (80, 40000), (0, 0x12345679), RST_ACK), "back", "reset", ""),
        (icmp6_error(SENT6), "back", "ICMPv6 port unreachable", ""),
        (icmp6_error(SENT6, 1, 0), "back", "ICMPv6 net unreachable", ""),
        (icmp6_error(SENT6, 1, 1), "back", "ICMPv6 administratively prohibited", ""),
        (icmp6_error(SENT6, 1, 9), "back", "ICMPv6 code 9 unreachable", ""),
        (icmp6_error(SENT6, 3, 0), "back", "ICMPv6 time exceeded", ""),
        (icmp6_error(SENT6, 2, 0), "back", "ICMPv6 packet too big", ""),
        (vxlan(SENT6, NODES6), "there", "", "VXLAN, VNI 1"),
        (vxlan(SENT6), "there", "", "VXLAN, VNI 1"),  # in a packet of IPv4
        (vxlan(REPLY6, NODES6), "back", "", "VXLAN, VNI 1"),
        (vxlan(icmp6_error(SENT6), NODES6), "back", "ICMPv6 port unreachable", "VXLAN, VNI 1"),
        (ip(NODE1, NODE2, 41, SENT6), "there", "", "IPIP"),
        (ip(NODE16, NODE26, 41, icmp6_error(SENT6)), "back", "ICMPv6 port unreachable", "IPIP"),
    ],
)
def test_tcp_of_ipv6_is_known_bare_and_carried(packet: bytes, leg: str, what: str, wrapped: str) -> None:
    assert passes(TCP6.filter(), packet)
    [seen] = read([Raw(NODE, "eth0", OUT, 1, 1, packet)], TCP6)
    assert (seen.leg, seen.what, seen.wrapped) == (leg, what, wrapped)
    assert {seen.itself.src, seen.itself.dst} == {ONE6, OTHER6}
    assert seen.inner is None or seen.header.protocol in ("udp", "ipv6")


def test_packets_of_the_other_family_are_not_it() -> None:
    for identity, packet in ((TCP6, SENT), (TCP, SENT6), (TCP6, vxlan(SENT, NODES6)), (TCP6, SENT6[:46])):
        assert not passes(identity.filter(), packet)
        assert not identity.found_in(packet)
    assert passes(TCP.filter(), vxlan(SENT, NODES6))  # IPv4 in VXLAN over IPv6
    [seen] = read([Raw(NODE, "eth0", OUT, 1, 1, vxlan(SENT, NODES6))], TCP)
    assert (seen.header.src, seen.itself.src) == (NODE16, ONE)
    other = tcp(ONE6, OTHER6, (40000, 80), (0x12345679, 1), SYN)
    assert not passes(TCP6.filter(), other) and not passes(TCP6.filter(), icmp6_error(other))


@pytest.mark.parametrize(("protocol", "port", "number"), [("udp", 9999, 17), ("udp", 53, 17), ("ipv6-icmp", 0, 58)])
def test_udp_of_ipv6_and_icmpv6_carry_a_nonce(protocol: str, port: int, number: int) -> None:
    identity = Identity.of(protocol, port, 0xDEADBEEF, version=6)
    payload = identity.payload()
    sent = ip(ONE6, OTHER6, number, (struct.pack("!HHHH", 40000, port, 8, 0) if number == 17 else b"") + payload)
    reply = ip(OTHER6, ONE6, number, struct.pack("!HHHH", port, 40000, 8, 0) + payload)
    if number == 58:
        assert payload[:4] == b"\x80\0\0\0"  # the kernel computes its checksum
        reply = ip(OTHER6, ONE6, number, b"\x81" + payload[1:])
    for packet in (sent, reply, vxlan(sent, NODES6), vxlan(reply)):
        assert passes(identity.filter(), packet)
    raws = [Raw(NODE, "eth0", kind, kind, kind, packet) for kind, packet in ((IN, sent), (OUT, reply))]
    seen = read(raws, identity)
    assert [one.leg for one in seen] == ["there", "back"] and seen[0].header.protocol == protocol


def test_a_second_connection_may_be_of_another_family() -> None:
    for to, sender in ((OTHER, NODE1), (OTHER6, NODE16)):
        identity = Identity("tcp", 7, 80, ((to, 8080),), version=10 - to.version)
        request = tcp(sender, to, (50000, 8080), (1, 2), PUSH, f"GET /?{identity.nonce} HTTP/1.1".encode())
        answer = tcp(to, sender, (8080, 50000), (2, 3), PUSH, b"HTTP/1.1 200 OK")
        assert passes(identity.filter(), vxlan(request)) and passes(identity.filter(), answer)
        assert not passes(identity.filter(), tcp(sender, to, (50000, 8081), (1, 2), SYN))
        raws = [Raw(NODE, "eth0", IN, at, at, packet) for at, packet in enumerate((request, answer))]
        assert [(one.leg, one.second) for one in read(raws, identity)] == [("there", True), ("back", True)]
    assert identity.rules()[-2:] == ("ip6 daddr fd00:1::5 tcp dport 8080", "ip6 saddr fd00:1::5 tcp sport 8080")


def test_filters_are_small_enough_for_the_kernel() -> None:
    many: list[tuple[IPAddress, int]] = [(ONE6, port) for port in range(10)]
    assert len(Identity("tcp", 7, 80, tuple(many), version=6).filter([51820])) < 4096
    assert all(step[1] < 256 and step[2] < 256 for step in TCP6.filter())


def test_encrypted_carriers_of_ipv6_pass_where_their_port_is_named() -> None:
    encrypted = ip(NODE16, NODE26, 17, struct.pack("!HHHH", 51820, 51820, 8, 0) + bytes(32))
    assert not passes(TCP6.filter(), encrypted) and passes(TCP6.filter([51820]), encrypted)
    [seen] = read([Raw(NODE, "eth0", OUT, 1, 1, encrypted)], TCP6)
    assert (seen.leg, seen.header) == ("carrier", Header(NODE16, NODE26, "udp", 51820, 51820))


def test_rules_of_nftables_match_packets_of_ipv6() -> None:
    rules = Identity("udp", 0x41424344, 9999, version=6).rules()
    assert rules == (
        "meta l4proto udp @th,64,32 1094861636",
        "meta l4proto 41 @th,384,32 1094861636",
        "icmpv6 type { destination-unreachable, time-exceeded } @th,448,32 1094861636",
        "udp dport 8472 @th,624,32 1094861636",
        "udp dport 4789 @th,624,32 1094861636",
    )
    assert Identity("ipv6-icmp", 1, version=6).rules()[0] == "meta l4proto ipv6-icmp @th,64,32 1"
