"""The table of iptables' extensions: every one that is installed here is in it, and what is evaluated is right."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from hoplab.netfilter.extensions import MATCHES, TARGETS, Effect, chance, matches
from hoplab.netfilter.hooks import reply_to
from hoplab.netfilter.packet import Packet, port_in
from hoplab.observe.facts.iptables import IPTABLES, Rule

POD, OUTSIDE = IPv4Address("10.244.0.5"), IPv4Address("192.168.77.1")
NEW = Packet(POD, OUTSIDE, dport=80, in_dev="cni0", out_dev="eth0", mark=0x4001)
PING = replace(NEW, protocol="icmp", icmp_type=8)
PING6 = Packet(IPv6Address("fd00::1"), IPv6Address("fd00::2"), "ipv6-icmp", icmp_type=128)
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu/xtables")


def rule(text: str) -> Rule:
    (found,) = IPTABLES.parse(f"*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD {text}\nCOMMIT\n").rules("filter", "FORWARD")
    return found


def matched(text: str, packet: Packet = NEW) -> bool | None:
    found = rule(f"{text} -j DROP")
    assert not found.unread
    return matches(found, packet)


@pytest.mark.skipif(not LIBRARIES.is_dir(), reason="needs the extensions of iptables")
def test_every_extension_of_iptables_is_in_the_table() -> None:
    installed = {
        found[1] for file in LIBRARIES.iterdir() if (found := re.fullmatch(r"lib(?:xt|ipt|ip6t)_(\w+)\.so", file.name))
    } - {"standard", "NAT"}  # ACCEPT and DROP; what DNAT and SNAT share
    assert len(installed) > 80
    assert {name for name in installed if name.isupper()} <= set(TARGETS)
    assert {name for name in installed if not name.isupper()} <= set(MATCHES)


def test_targets_that_do_not_end_the_walk() -> None:
    for name in ("CONNMARK", "SET", "TEE", "CLASSIFY", "DSCP", "TRACE", "LOG", "NFLOG", "CT", "TCPMSS", "MARK", "HL"):
        assert TARGETS[name] is Effect.CONTINUES
    for name in ("ACCEPT", "DROP", "REJECT", "DNAT", "REDIRECT", "TPROXY", "MASQUERADE", "NETMAP", "SNAT"):
        assert TARGETS[name] is Effect.ENDS
    assert {TARGETS[name] for name in ("NFQUEUE", "SYNPROXY", "CLUSTERIP")} == {Effect.OPEN}


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ("-s 10.0.0.0/255.0.255.0", True),  # the second byte is free, and the last
        ("-s 10.0.1.0/255.0.255.0", False),
        ("! -s 10.0.0.0/255.0.255.0", False),
        ("-s fd00::/8", False),
        ("-p 6", True),
        ("-p all", True),
        ("-p sctp -m sctp --dport 80", False),
        ("-m state --state NEW", True),
        ("-m state --state RELATED,ESTABLISHED", False),
        ("-m state ! --state INVALID", True),
        ("-m conntrack --ctstate NEW --ctdir ORIGINAL", True),
        ("-m conntrack --ctstate DNAT", False),
        ("-m conntrack --ctproto 6", True),
        ("-m conntrack --ctexpire 10", None),
        ("-p tcp -m tcp --sport 80", False),  # a client's port is an ephemeral one
        ("-p tcp -m tcp --sport 1024:65535", True),
        ("-p tcp -m tcp --sport 40000:50000", None),
        ("-p tcp -m tcp --dport 80: ", True),
        ("-p tcp -m multiport --ports 22,80", True),
        ("-p tcp -m multiport --sports 22,80", False),
        ("-p tcp -m tcp --dport http", None),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", True),
        ("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN", False),
        ("-p tcp -m tcp --tcp-flags ALL NONE", False),
        ("-p tcp -m tcp --tcp-flags FIN,SYN ODD", None),
        ("-p icmp -m icmp --icmp-type 8", False),
        ("-m iprange --src-range 10.244.0.1-10.244.0.9", True),
        ("-m iprange ! --dst-range 192.168.77.0-192.168.77.9", False),
        ("-m connmark --mark 0x1", False),  # not the packet's mark
        ("-m connmark --mark 0x0/0xff", True),
        ("-m mark --mark 0x1/0xf", True),
        ("-m mark ! --mark 0xe00/0xf00 -m mark ! --mark 0xd00/0xf00", True),
        ("-m owner --uid-owner 1337", False),  # a packet that arrived has no socket
        ("-m owner ! --uid-owner 1337", True),
        ("-m physdev --physdev-is-bridged", False),
        ("-m physdev ! --physdev-in veth1", True),
        ("-m pkttype --pkt-type unicast", True),
        ("-m pkttype --pkt-type multicast", False),
        ("-m addrtype --dst-type UNICAST", True),
        ("-m addrtype --dst-type LOCAL,MULTICAST", False),
        ("-m addrtype --dst-type BLACKHOLE", None),
        ("-m addrtype --src-type LOCAL --limit-iface-out", False),
        ("-m comment --comment x -m nfacct --nfacct-name y", True),
        ("-m recent --rcheck --seconds 10 --name x --mask 255.255.255.255 --rsource", False),
        ("-m recent --set --name x --rsource", True),
        ("-m policy --dir out --pol ipsec", False),
        ("-m policy --dir in --pol none", True),
        ("-m limit --limit 3/min", None),
        ("-m hashlimit --hashlimit-upto 10/sec --hashlimit-burst 5 --hashlimit-name x", None),
        ('-m string --string "-A" --algo bm', None),
        ('-m u32 --u32 "0x0=0x1"', None),
        ("-m mac --mac-source 02:00:00:00:00:01", None),
        ("-m time --timestart 09:00:00 --timestop 17:00:00", None),
        ("-m socket --transparent", False),  # the socket of a transparent proxy takes none of these packets
        ("-m socket", None),
        ("-m quota2 --name x", None),  # of an extension that is not in the table
        ("-m limit --limit 3/min -s 10.9.0.0/16", False),  # unknown, but the rest does not match
        ("-f", False),
        ("! -f", True),
        ("-p", None),
    ],
)
def test_matches(match: str, hit: bool | None) -> None:
    assert matched(match) is hit


@pytest.mark.parametrize(
    ("match", "packet", "hit"),
    [
        ("-p tcp -m tcp --dport 80", replace(NEW, dport=0), False),  # a reply's
        ("-p tcp -m tcp --sport 80", replace(NEW, sport=80), True),
        ("-p tcp -m tcp --tcp-flags SYN SYN", replace(NEW, state="ESTABLISHED"), None),
        ("-m conntrack --ctdir REPLY", replace(NEW, state="ESTABLISHED"), None),
        ("-m conntrack --ctstate DNAT", replace(NEW, status="dnat"), True),
        ("-m conntrack --ctstate SNAT", replace(NEW, state="ESTABLISHED"), None),
        ("-m connmark --mark 0x1", replace(NEW, state="ESTABLISHED"), None),
        ("-m connmark --mark 0x0", replace(NEW, state="INVALID"), False),
        ("-m connmark ! --mark 0x1", replace(NEW, state="UNTRACKED"), False),
        ("-m conntrack ! --ctdir REPLY", replace(NEW, state="INVALID"), False),
        ("-m owner --uid-owner 0", replace(NEW, in_dev=""), None),
        ("-p ipv6-icmp", Packet(IPv6Address("fd00::1"), IPv6Address("fd00::2"), "icmpv6"), True),
        ("-p icmp -m icmp --icmp-type 8", PING, True),
        ("-p icmp -m icmp ! --icmp-type 0", PING, True),
        ("-p icmp -m icmp --icmp-type 8/1", PING, False),
        ("-p icmp -m icmp --icmp-type any", replace(PING, icmp_type=None), True),
        ("-p icmp -m icmp --icmp-type 3/4", replace(PING, icmp_type=None), None),
        ("-p icmp -m icmp --icmp-type echo", PING, None),
        ("-p ipv6-icmp -m icmp6 --icmpv6-type 135", PING6, False),
        ("-p ipv6-icmp -m icmp6 --icmpv6-type 129", reply_to(PING6), True),
        ("-s fd00::/16 -d fd00::2", Packet(IPv6Address("fd00::1"), IPv6Address("fd00::2")), True),
        ("-m addrtype --dst-type LOCAL", replace(NEW, dst_is_local=True), True),
        ("-m addrtype --src-type MULTICAST", replace(NEW, src=IPv4Address("224.0.0.1")), True),
        ("-m rpfilter --validmark --invert", replace(NEW, reverse_path=True), False),
        ("-m rpfilter --validmark --invert", replace(NEW, reverse_path=False), True),
        ("-m rpfilter --loose", replace(NEW, reverse_path=True), True),
        ("-m rpfilter", NEW, None),
    ],
)
def test_matches_of_other_packets(match: str, packet: Packet, hit: bool | None) -> None:
    assert matched(match, packet) is hit


def test_a_bridged_packet_has_ports() -> None:
    bridged = replace(NEW, out_dev="cni0", port_in="veth1", port_out="veth2")
    for match in ("is-bridged", "is-in", "is-out", "in veth+", "out veth2"):
        assert matched(f"-m physdev --physdev-{match}", bridged) is True
    routed = replace(bridged, out_dev="docker0")
    assert matched("-m physdev --physdev-is-bridged", routed) is False


def test_chance() -> None:
    assert chance(rule("-m statistic --mode random --probability 0.25000000000 -j DROP")) == 0.25
    assert chance(rule("-m statistic --mode nth --every 4 --packet 0 -j DROP")) == 0.25
    assert chance(rule("-m statistic --mode random --probability much -j DROP")) is None
    assert chance(rule("-j DROP")) is None


def test_an_ephemeral_port() -> None:
    assert [port_in(ports, 0) for ports in (range(1, 65536), range(1, 1024), range(1024, 40000))] == [True, False, None]
    assert port_in(range(80, 81), 80) is True
