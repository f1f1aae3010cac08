"""What the kernel reports of a packet's way through the rules, as text and on the kernel of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from hoplab.core.paths import PROJECT
from hoplab.observe.facts import iptables, nftables
from hoplab.trace.model import Header
from hoplab.trace.nft_trace import Hit, as_saved, commands, parse

# nftables 1.0.6, of iptables-nft's rules and of hoplab's table
REPORT = """\
trace id 583b735b inet hoplab_trace output packet: oif "lo" ip saddr 127.0.0.1 ip daddr 127.0.0.1 ip dscp cs0 ip ecn \
not-ect ip ttl 64 ip id 18680 ip protocol udp ip length 29 udp sport 42373 udp dport 99 udp length 9 @th,64,8 0x78 
trace id 583b735b inet hoplab_trace output rule ip daddr 127.0.0.1 udp dport 99 counter packets 0 bytes 0 meta \
nftrace set 1 # handle 3 (verdict continue)
trace id 583b735b inet hoplab_trace output policy accept 
trace id 583b735b ip nat OUTPUT packet: oif "lo" ip saddr 127.0.0.1 ip daddr 127.0.0.1 ip dscp cs0 ip ecn not-ect ip \
ttl 64 ip id 18680 ip length 29 udp sport 42373 udp dport 99 udp length 9 @th,64,8 0x78 
trace id 583b735b ip nat OUTPUT rule udp dport 99  counter packets 0 bytes 0 dnat to 127.0.0.1:98 # handle 2 \
(verdict accept)
trace id 05dd0e97 inet hoplab_trace prerouting packet: iif "lo" @ll,0,112 0x800 ip saddr 127.0.0.1 ip daddr 127.0.0.1 \
ip dscp cs0 ip ecn not-ect ip ttl 64 ip id 18680 ip protocol udp ip length 29 udp sport 42373 udp dport 98 udp length 9
trace id 05dd0e97 inet hoplab_trace prerouting policy accept 
trace id 05dd0e97 ip filter INPUT rule meta l4proto udp  counter packets 0 bytes 0 jump USER # handle 3 (verdict jump \
USER)
# Warning: table ip filter is managed by iptables-nft, do not touch!
trace id 05dd0e97 ip filter USER rule udp dport 98  meta random & 2147483647 < 2147483648 counter packets 0 bytes 0 \
drop # handle 4 (verdict drop)
""".replace("\\\n", "")
LO = IPv4Address("127.0.0.1")


def test_a_report_is_read() -> None:
    sent, came = parse(REPORT)
    assert (sent.identity, sent.out_dev, sent.in_dev) == ("583b735b", "lo", "")
    assert sent.header == Header(LO, LO, "udp", 42373, 99)
    assert sent.hits == (Hit("ip", "nat", "OUTPUT", "udp dport 99 dnat to 127.0.0.1:98", "accept", handle=2),)
    assert sent.dropped_by is None
    assert (came.in_dev, came.header) == ("lo", Header(LO, LO, "udp", 42373, 98))
    jump, drop = came.hits
    assert (jump.verdict, jump.target, jump.handle) == ("jump", "USER", 3)
    assert came.dropped_by == drop and drop.chain == "USER" and drop.handle == 4


@pytest.mark.parametrize(
    ("line", "hit"),
    [
        ("trace id 1 ip filter FORWARD policy drop ", Hit("ip", "filter", "FORWARD", "policy drop", "drop")),
        ("trace id 1 ip nat KUBE-SERVICES verdict return ", Hit("ip", "nat", "KUBE-SERVICES", "", "return")),
        (
            "trace id 1 ip kube-proxy services rule ip daddr . meta l4proto . th dport vmap @service-ips "
            "(verdict goto service-X)",
            Hit(
                "ip",
                "kube-proxy",
                "services",
                "ip daddr . meta l4proto . th dport vmap @service-ips",
                "goto",
                "service-X",
            ),
        ),
    ],
)
def test_a_policy_the_end_of_a_chain_and_a_map(line: str, hit: Hit) -> None:
    [seen] = parse(line)
    assert seen.hits == (hit,) and seen.header is None


def test_an_echo_request() -> None:
    [seen] = parse(
        'trace id 2 ip raw PREROUTING packet: iif "eth0" ip saddr 10.0.0.1 ip daddr 10.0.0.2 ip ttl 64 '
        "ip protocol icmp ip length 84 icmp type echo-request icmp code net-unreachable icmp id 7 icmp sequence 1"
    )
    assert seen.header == Header(IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"), "icmp")


def test_other_lines_are_left_out() -> None:
    assert parse("add table inet bar\n# new generation 6 by process 9378 (nft)\ntrace id xyz\n") == ()


def test_the_table_is_before_all_others_and_goes_with_its_process() -> None:
    text = commands([Header(LO, IPv4Address("10.0.0.2"), "tcp", dport=80), Header(IPv4Address("10.0.0.2"), LO, "icmp")])
    back = "ip saddr 10.0.0.2 ip daddr 127.0.0.1 meta l4proto icmp"
    assert text.splitlines() == [
        "add table inet hoplab_trace { flags owner; }",
        "add chain inet hoplab_trace prerouting { type filter hook prerouting priority -500; }",
        "add rule inet hoplab_trace prerouting ip saddr 127.0.0.1 ip daddr 10.0.0.2 tcp dport 80 meta nftrace set 1",
        f"add rule inet hoplab_trace prerouting {back} meta nftrace set 1",
        "add chain inet hoplab_trace output { type filter hook output priority -500; }",
        "add rule inet hoplab_trace output ip saddr 127.0.0.1 ip daddr 10.0.0.2 tcp dport 80 meta nftrace set 1",
        f"add rule inet hoplab_trace output {back} meta nftrace set 1",
    ]
    other = commands([Header(IPv6Address("fd00::1"), IPv6Address("fd00::2"), "udp")])
    assert "ip6 saddr fd00::1 ip6 daddr fd00::2 meta l4proto udp meta nftrace set 1" in other


@pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(tool, path="/usr/sbin:/sbin") for tool in ("nft", "iptables-nft")),
    reason="needs root, nft and iptables-nft",
)
def test_the_kernels_own_report() -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.support.nft_trace_namespace"],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["ends"] == {"stdin": [True, False], "kill": [True, False]}  # there; and gone with its process
    seen = parse(found["report"])
    saved, listed = iptables.parse(found["iptables"]), nftables.parse(found["listed"])
    drop = next(packet.dropped_by for packet in seen if packet.dropped_by)
    wanted = '-A USER -p udp -m udp --dport 98 -m comment --comment "not here" -j DROP'
    assert as_saved(drop, listed, saved) == wanted
    dnat = next(hit for packet in seen for hit in packet.hits if hit.table == "nat")
    assert as_saved(dnat, listed, saved).endswith("-j DNAT --to-destination 127.0.0.1:98")
    own = next(hit for packet in seen for hit in packet.hits if hit.table == "own" and hit.handle)
    assert as_saved(own, listed, saved) == own.text == 'udp dport 98 comment "seen"'
    sent = next(packet for packet in seen if packet.out_dev)
    assert sent.header and (sent.header.protocol, sent.header.dst, sent.header.dport) == ("udp", LO, 99)
    assert as_saved(Hit("ip", "nat", "OUTPUT", "gone since", "accept", handle=77), listed, saved) == "gone since"
