"""What nftables reads from a packet: keys and values of every kind, known or not."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from hoplab.netfilter.nft_values import matches
from hoplab.netfilter.packet import Packet
from hoplab.observe.facts.nft_expressions import Match, elements, expression
from hoplab.observe.facts.nftables import Set, Table

POD, DNS = IPv4Address("10.244.0.5"), IPv4Address("10.96.0.10")
UDP = Packet(POD, DNS, "udp", 53, in_dev="cni0", out_dev="eth0", mark=0x4001)
TCP = replace(UDP, protocol="tcp", dport=80)
SIX = Packet(IPv6Address("fd00:244::5"), IPv6Address("fd00:96::a"), "tcp", 80, in_dev="cni0")
PING6 = replace(SIX, protocol="ipv6-icmp", icmp_type=128)
ANSWER = replace(TCP, state="ESTABLISHED")


def payload(text: str) -> dict[str, Any]:
    protocol, name = text.split()
    return {"payload": {"protocol": protocol, "field": name}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def ct(key: str) -> dict[str, Any]:
    return {"ct": {"key": key}}


def hit(left: Any, right: Any, packet: Packet, op: str = "==", **sets: Any) -> bool | None:
    found = expression({"match": {"op": op, "left": left, "right": right}})
    assert isinstance(found, Match)
    named = {name: Set(name, ("",), "", elements(members)) for name, members in sets.items()}
    return matches(Table("inet", "t", {}, named), found, packet)


PAIR = {"concat": [payload("ip daddr"), payload("udp dport")]}


@pytest.mark.parametrize(
    ("left", "right", "packet", "found"),
    [
        (PAIR, {"set": [{"concat": ["10.96.0.10", 53]}, {"concat": ["10.96.0.1", 443]}]}, UDP, True),
        (PAIR, {"set": [{"concat": ["10.96.0.10", 54]}]}, UDP, False),
        (PAIR, {"set": [{"concat": [{"prefix": {"addr": "10.96.0.0", "len": 16}}, {"range": [50, 60]}]}]}, UDP, True),
        (PAIR, {"set": [{"elem": {"val": {"concat": ["10.96.0.10", 53]}, "counter": {"packets": 1}}}]}, UDP, True),
        (PAIR, {"set": [{"concat": ["10.96.0.10", 53]}]}, TCP, False),
        (payload("ip saddr"), {"range": ["10.244.0.1", "10.244.0.9"]}, UDP, True),
        (payload("ip6 saddr"), {"range": ["fd00:244::1", "fd00:244::9"]}, SIX, True),
        (payload("ip6 daddr"), {"prefix": {"addr": "fd00:96::", "len": 112}}, SIX, True),
        (payload("ip saddr"), "fd00:244::5", SIX, False),
        (payload("ip6 saddr"), "10.244.0.5", UDP, False),
        (payload("arp op"), 1, UDP, False),
        (payload("ip version"), 4, UDP, True),
        (payload("ip protocol"), 17, UDP, True),
        (payload("ip6 nexthdr"), "tcp", SIX, True),
        (meta("l4proto"), {"set": ["tcp", "udp"]}, UDP, True),
        (meta("nfproto"), "ipv6", SIX, True),
        (meta("protocol"), "ip", UDP, True),
        (payload("ether type"), "ip6", UDP, False),
        (meta("pkttype"), "unicast", UDP, True),
        (meta("pkttype"), "broadcast", UDP, False),
        (meta("iif"), "cni0", UDP, True),
        (meta("oifname"), {"set": ["eth0", "eth1"]}, UDP, True),
        (meta("oifname"), "eth*", UDP, True),
        (meta("iifgroup"), 1, UDP, None),
        (meta("skuid"), 1000, UDP, False),  # a packet that arrived has no socket
        (meta("skuid"), 1000, replace(UDP, in_dev=""), None),
        (meta("mark"), 0x4001, UDP, True),
        ({"&": [meta("mark"), 0xFF00]}, 0x4000, UDP, True),
        ({"&": [meta("mark"), ct("mark")]}, 1, UDP, None),
        (ct("mark"), 0, UDP, True),
        (ct("mark"), 0, ANSWER, None),
        (ct("state"), {"set": ["established", "related"]}, ANSWER, True),
        (ct("direction"), "original", UDP, True),
        (ct("direction"), "original", ANSWER, None),
        (ct("direction"), "original", replace(UDP, state="INVALID"), False),
        (ct("state"), "invalid", replace(UDP, state="INVALID"), True),
        (ct("status"), "assured", UDP, None),
        (payload("udp sport"), 53, UDP, False),  # a client's port is an ephemeral one
        (payload("th sport"), {"range": [1024, 65535]}, UDP, True),
        (payload("th sport"), {"range": [40000, 50000]}, UDP, None),
        (payload("th sport"), "http", UDP, False),
        (payload("th dport"), 53, replace(UDP, protocol="icmp"), False),
        (payload("sctp dport"), 53, UDP, False),
        (payload("icmp type"), "echo-request", replace(UDP, protocol="icmp"), None),
        (payload("icmp type"), "echo-request", UDP, False),
        (payload("icmp type"), "echo-request", replace(UDP, protocol="icmp", icmp_type=8), True),
        (payload("icmp type"), {"set": ["echo-reply", "redirect"]}, replace(UDP, protocol="icmp", icmp_type=0), True),
        (payload("icmpv6 type"), "nd-neighbor-solicit", PING6, False),
        (payload("icmpv6 type"), "echo-request", PING6, True),
        ({"fib": {"result": "type", "flags": "daddr"}}, "local", replace(UDP, dst_is_local=True), True),
        ({"fib": {"result": "type", "flags": ["saddr"]}}, "multicast", UDP, False),
        ({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False, UDP, None),
        (payload("tcp flags"), "syn", TCP, True),
        (payload("tcp flags"), ["syn", "ack"], TCP, False),
        (payload("tcp flags"), "syn", ANSWER, None),
        (payload("tcp flags"), "syn", UDP, False),
        ({"&": [payload("tcp flags"), ["fin", "syn", "rst", "ack"]]}, "syn", TCP, True),
        ({"&": [payload("tcp flags"), {"|": ["syn", "ack"]}]}, 0x2, TCP, True),
        ({"&": [payload("tcp flags"), ["fin", "syn"]]}, "fin", TCP, False),
        ({"&": [payload("tcp flags"), ["fin"]]}, {"odd": 1}, TCP, None),
        (payload("ip saddr"), "@pods", UDP, True),
        (payload("ip saddr"), "@gone", UDP, None),
        (payload("ip saddr"), "@affinity-x", UDP, False),
        (payload("ip saddr"), "@affinity-x", replace(UDP, known=True), None),
        (payload("ip saddr"), {"set": []}, UDP, False),
        (payload("ip saddr"), {"concat": ["10.244.0.5", 1]}, UDP, False),
    ],
)  # fmt: skip
def test_matches(left: Any, right: Any, packet: Packet, found: bool | None) -> None:
    sets: dict[str, Any] = {"pods": ["10.244.0.5"], "affinity-x": ["10.244.0.5"]}
    assert hit(left, right, packet, **sets) is found
    applies = hit(left, right, packet, "!=", **sets)
    assert applies is (None if found is None else not found) or applies is False  # its header is not in the packet


@pytest.mark.parametrize(
    ("left", "op", "right", "packet", "found"),
    [
        ("th dport", ">=", 50, UDP, True),
        ("th dport", "<", 53, UDP, False),
        ("th dport", "<=", 53, UDP, True),
        ("th sport", ">", 1023, UDP, True),
        ("th sport", "<", 1024, UDP, False),
        ("th sport", "<", 0, UDP, False),
        ("th sport", ">", 40000, UDP, None),
        ("th dport", ">", "http", UDP, None),
        ("ip ttl", ">", 1, UDP, None),
        ("th dport", "~", 53, UDP, None),
        ("tcp flags", "in", ["syn", "ack"], TCP, True),
        ("tcp flags", "in", "ack", TCP, False),
    ],
)
def test_comparisons(left: str, op: str, right: object, packet: Packet, found: bool | None) -> None:
    assert hit(payload(left), right, packet, op) is found


def test_a_header_that_is_not_there_matches_in_neither_way() -> None:
    """nft leaves out that `tcp dport != 22` is about TCP alone; the kernel does not."""
    for left in ("tcp dport", "ip6 saddr", "icmp type"):
        assert hit(payload(left), 22, UDP) is False and hit(payload(left), 22, UDP, "!=") is False
    assert hit(payload("tcp dport"), 22, TCP, "!=") is True
    assert hit(payload("tcp flags"), "syn", TCP, "<") is None
