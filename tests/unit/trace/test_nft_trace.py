"""What the kernel reports of a packet's way through the rules, as netlink's messages."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from hoplab.observe.facts import iptables, nftables
from hoplab.trace.model import Header
from hoplab.trace.nft_trace import HOOKS, TABLE, Hit, as_saved, commands, made, parse

PACKET = bytes.fromhex("45000028000040003f0600000af400050af40105")  # 10.244.0.5 > 10.244.1.5, TCP
PORTS = struct.pack("!HH16x", 42373, 8080)
IP, INET, TRACED, NEW_RULE = 2, 1, 0x0A11, 0x0A06
TABLE_, CHAIN, HANDLE, TYPE, VERDICT, ID, NETWORK, TRANSPORT, POLICY = 1, 2, 3, 4, 5, 6, 8, 9, 16
A_POLICY, A_RETURN, A_RULE = 1, 2, 3


def attribute(kind: int, value: bytes | int | str) -> bytes:
    if isinstance(value, str):
        value = value.encode() + b"\0"
    elif isinstance(value, int):
        value = struct.pack("!I", value & 0xFFFFFFFF)
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def message(kind: int, family: int, *parts: bytes) -> bytes:
    body = struct.pack("=BBH", family, 0, 0) + b"".join(parts)
    return struct.pack("=IHHII", len(body) + 16, kind, 0, 0, 0) + body


def traced(family: int, table: str, chain: str, *more: bytes, packet: int = 7) -> bytes:
    where = attribute(TABLE_, table) + attribute(CHAIN, chain) + attribute(ID, packet)
    return message(TRACED, family, where, *more)


def matched(handle: int, code: int, target: str = "") -> bytes:
    verdict = attribute(1, code) + (attribute(2, target) if target else b"")
    return attribute(HANDLE, struct.pack("!Q", handle)) + attribute(TYPE, A_RULE) + attribute(VERDICT | 0x8000, verdict)


def test_a_report_is_read() -> None:
    header = attribute(NETWORK, PACKET) + attribute(TRANSPORT, PORTS)
    own = traced(INET, TABLE, "prerouting", header, matched(3, -1))
    jump = traced(IP, "filter", "FORWARD", matched(4, -3, "KUBE-FORWARD"))
    end = traced(IP, "filter", "KUBE-FORWARD", attribute(TYPE, A_RETURN), attribute(VERDICT, attribute(1, -5)))
    policy = traced(IP, "filter", "FORWARD", attribute(TYPE, A_POLICY), attribute(POLICY, 0))
    [seen] = parse([own + jump, end, policy])
    assert seen.identity == 7
    assert seen.header == Header(IPv4Address("10.244.0.5"), IPv4Address("10.244.1.5"), "tcp", 42373, 8080)
    assert seen.hits == (
        Hit("ip", "filter", "FORWARD", "jump", "KUBE-FORWARD", 4),
        Hit("ip", "filter", "KUBE-FORWARD", "return"),
        Hit("ip", "filter", "FORWARD", "drop", policy=True),
    )
    assert seen.dropped_by == seen.hits[2]


def test_packets_are_told_apart_and_other_messages_are_left_out() -> None:
    one, two = (traced(IP, "nat", "OUTPUT", matched(2, 1), packet=packet) for packet in (1, 2))
    assert [seen.identity for seen in parse([one, message(0x0A00, IP), two, b"cut", one])] == [1, 2]
    assert parse([one])[0].dropped_by is None and parse([one])[0].header is None


def test_the_table_is_there_once_both_hooks_have_a_rule() -> None:
    rules = [message(NEW_RULE, INET, attribute(1, TABLE), attribute(2, hook)) for hook in HOOKS]
    others = message(NEW_RULE, IP, attribute(1, "nat"), attribute(2, HOOKS[1]))
    assert made(rules) and made([b"".join(rules)])
    assert not made(rules[:1]) and not made([*rules[:1], others])


def test_the_table_is_before_all_others_and_goes_with_its_process() -> None:
    assert commands(["tcp dport 80", "meta l4proto icmp", "tcp dport 80"]) == (
        "table inet hoplab_trace { flags owner; "
        "chain prerouting { type filter hook prerouting priority -500; "
        "tcp dport 80 meta nftrace set 1; meta l4proto icmp meta nftrace set 1; }; "
        "chain output { type filter hook output priority -500; "
        "tcp dport 80 meta nftrace set 1; meta l4proto icmp meta nftrace set 1; }; }\n"
    )


def test_a_rule_in_the_words_of_its_user() -> None:
    texts = {
        family: f"*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -s {source} -j DROP\n-A FORWARD -j ACCEPT\nCOMMIT\n"
        for family, source in (("ip", "10.0.0.1/32"), ("ip6", "fd00::1/128"))
    }
    saved = {family: iptables.parse(text) for family, text in texts.items()}
    listed = nftables.parse(
        '{"nftables": [{"table": {"family": "inet", "name": "own"}},'
        ' {"chain": {"family": "inet", "table": "own", "name": "input"}},'
        ' {"rule": {"family": "inet", "table": "own", "chain": "input", "handle": 9, "comment": "seen", "expr":'
        ' [{"drop": null}]}}]}'
    )
    handles = {"ip filter FORWARD": [7, 12], "inet own input": [9]}
    known = Hit("ip", "filter", "FORWARD", "drop", handle=7)
    assert as_saved(known, handles, saved, listed) == "-A FORWARD -s 10.0.0.1/32 -j DROP"
    both = {**handles, "ip6 filter FORWARD": [7, 12]}
    assert as_saved(Hit("ip6", "filter", "FORWARD", "drop", handle=7), both, saved, listed) == (
        "-A FORWARD -s fd00::1/128 -j DROP"
    )
    assert as_saved(Hit("ip", "filter", "FORWARD", "drop", policy=True), handles, saved, listed) == "policy drop"
    assert as_saved(Hit("inet", "own", "input", "drop", handle=9), handles, saved, listed) == 'drop comment "seen"'
    changed = {"ip filter FORWARD": [5, 7, 12]}
    assert as_saved(known, changed, saved, listed) == "the rule with handle 7"
    assert as_saved(Hit("ip", "nat", "X", "return"), handles, saved, listed) == "end of the chain"
