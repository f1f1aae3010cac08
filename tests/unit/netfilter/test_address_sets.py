"""Packets and the ipsets that rules name: kube-proxy's of IPVS mode (kubernetes 65459), fail2ban's, crowdsec's."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from hoplab.netfilter.iptables import matches, walk, with_sets
from hoplab.netfilter.packet import Packet
from hoplab.observe.facts.ipset import IPSET
from hoplab.observe.facts.iptables import IPTABLES, Rule

POD, DNS = IPv4Address("10.244.1.2"), IPv4Address("10.96.0.10")
PACKET = Packet(POD, DNS, "udp", 53)
SETS = """\
create KUBE-LOOP-BACK hash:ip,port,ip family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x1f1b3a8c
add KUBE-LOOP-BACK 10.244.1.2,tcp:53,10.244.1.2
create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x7a4f1d25
add KUBE-CLUSTER-IP 10.96.0.10,udp:53
create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
add KUBE-NODE-PORT-TCP 53
create blacklist hash:net family inet hashsize 65536 maxelem 131072 timeout 300
add blacklist 203.0.113.7 timeout 2123
add blacklist 10.244.0.0/16
create fail2ban hash:ip family inet hashsize 1024 maxelem 65536 netmask 24 comment
add fail2ban 10.244.1.0 comment "seen 5 times, \\"root\\""
create all list:set size 8
add all fail2ban
add all KUBE-CLUSTER-IP
create torn list:set size 8
add torn nowhere
create macs hash:mac hashsize 1024 maxelem 65536
add macs 02:00:00:00:00:01
create odd hash:ip family inet
add odd somewhere
create six hash:net family inet6
add six fd00:244::/48
create short hash:ip,port family inet
add short 10.96.0.10
"""


def rule(match: str) -> Rule:
    text = f"*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set {match} -j DROP\nCOMMIT\n"
    return with_sets(IPTABLES.parse(text).chains("filter"), IPSET.parse(SETS))["FORWARD"].rules[0]


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ("--match-set KUBE-CLUSTER-IP dst,dst", True),
        ("! --match-set KUBE-CLUSTER-IP dst,dst", False),
        ("--match-set KUBE-CLUSTER-IP src,dst", False),
        ("--match-set KUBE-CLUSTER-IP dst", None),  # fewer words than dimensions
        ("--match-set KUBE-LOOP-BACK dst,dst,src", False),
        ("--match-set KUBE-NODE-PORT-TCP dst", True),
        ("--match-set KUBE-NODE-PORT-TCP src", False),  # an ephemeral port
        ("--match-set blacklist src", True),
        ("--match-set blacklist dst", False),
        ("--match-set blacklist src,src", True),  # more words than dimensions
        ("--match-set fail2ban src", True),  # a member stands for its range
        ("--match-set fail2ban dst,dst", False),
        ("--match-set all src", True),
        ("--match-set all dst,dst", True),
        ("--match-set all dst", None),
        ("--match-set torn dst", None),
        ("--match-set macs src", None),
        ("--match-set odd src", None),
        ("--match-set six src", False),
        ("--match-set short dst,dst", None),
        ("--match-set gone src", None),
        ("--match-set blacklist", None),
        ("--match-set blacklist src --return-nomatch", None),
    ],
)
def test_a_packet_is_in_a_set_or_not(match: str, hit: bool | None) -> None:
    assert matches(rule(match), PACKET) is hit


def test_members_are_of_one_family_and_protocol() -> None:
    six = Packet(IPv6Address("fd00:244::5"), IPv6Address("fd00:77::1"))
    assert matches(rule("--match-set six src"), six) is True
    assert matches(rule("--match-set blacklist src"), six) is False
    assert matches(rule("--match-set KUBE-CLUSTER-IP dst,dst"), replace(PACKET, protocol="tcp")) is False
    ranges = IPSET.parse("create r hash:ip,port family inet\nadd r 10.96.0.10,udp:50-60\n")
    text = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set --match-set r dst,dst -j DROP\nCOMMIT\n"
    chains = with_sets(IPTABLES.parse(text).chains("filter"), ranges)
    assert [outcome.verdict for outcome in walk(chains, "FORWARD", PACKET)] == ["DROP"]
