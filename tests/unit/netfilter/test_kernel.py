"""The walk through all hooks, compared with the kernel: made-up rules on a router, and which packets arrive."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from ipaddress import IPv4Address

import pytest

from hoplab.core.paths import PROJECT
from hoplab.netfilter.hooks import Firewall
from hoplab.netfilter.packet import Packet
from hoplab.observe.facts import Facts
from hoplab.observe.script import Output
from tests.support.router_namespace import CLIENT, PORTS, SERVER

CASES, RULES = 24, 6  # a case takes about a second beside machines that run

MATCHES = (
    *(
        "-s 10.9.1.0/24",
        "-s 10.9.0.0/255.255.0.255",
        "! -s 10.9.0.2/255.255.0.255",
        "-d 10.9.2.2/32",
        "! -d 10.9.2.2/32",
    ),
    *("-p udp -m udp --dport 53", "-p udp -m udp ! --dport 53", "-p udp -m multiport --dports 53,80", "-p tcp"),
    *(
        "-p udp -m udp --sport 1024:65535",
        "-p udp -m udp --sport 1:1023",
        "-m state --state NEW",
        "-m pkttype --pkt-type unicast",
    ),
    *("-m state --state ESTABLISHED", "-m conntrack --ctstate INVALID", "-m conntrack ! --ctstate UNTRACKED"),
    *("-m conntrack --ctdir ORIGINAL", "-m mark --mark 0x1/0x1", "-m mark ! --mark 0x0", "-m connmark --mark 0x2"),
    *("-m addrtype --dst-type LOCAL", "-m addrtype --dst-type UNICAST", "-m iprange --dst-range 10.9.2.1-10.9.2.9"),
    *('-m comment --comment "-j"', "-m recent --rcheck --name nobody --rsource"),
)
TARGETS = (
    *("-j ACCEPT", "-j DROP", "-j RETURN", "-j USER", "-g USER", "-j LOG", "", "-j MARK --set-xmark 0x1/0x1"),
    *("-j MARK --set-xmark 0x0/0xffffffff", "-j CONNMARK --set-xmark 0x2/0xffffffff", "-j CONNMARK --restore-mark"),
)
CHAINS = {
    "raw": ("PREROUTING",),
    "mangle": ("PREROUTING", "FORWARD", "POSTROUTING"),
    "filter": ("FORWARD",),
}
MORE = {"raw": ("-j CT --notrack",), "mangle": ("-j TOS --set-tos 0x10/0xff",), "filter": ("-j REJECT",)}
INTERFACES = {
    "PREROUTING": ("-i c0", "-i s+"),
    "FORWARD": ("-i c0 -o s0", "! -o s0"),
    "POSTROUTING": ("-o s0", "-o c+"),
}

NFT_MATCHES = (
    *("ip saddr 10.9.1.0/24", "ip daddr != 10.9.2.2", "udp dport 53", "udp dport != 53", "th dport > 60"),
    *("ip daddr . udp dport { 10.9.2.2 . 53, 10.9.2.2 . 8000-9000 }", "meta l4proto { tcp, udp }", "iifname c*", ""),
    *("ct state new", "ct state invalid", "meta mark 1", "meta mark & 3 != 1", "ip6 saddr fd00::1"),
    *("meta nfproto ipv4", "fib daddr type local", "ip saddr { 10.9.1.1-10.9.1.9 }", "tcp dport != 22"),
    *("udp sport >= 1024", "ct direction original"),
)  # fmt: skip
NFT_VERDICTS = (
    "accept",
    "drop",
    "counter",
    "meta mark set 1",
    "meta mark set meta mark | 2",
    "return",
    "jump user",
    "goto user",
)


def iptables(chance: random.Random) -> str:
    """A text for iptables-restore."""
    tables = []
    for table, chains in CHAINS.items():
        lines = [
            f"*{table}",
            *(f":{chain} {chance.choice(['ACCEPT'] * 9 + ['DROP'])} [0:0]" for chain in chains),
            ":USER - [0:0]",
        ]
        for _ in range(chance.randrange(RULES)):
            chain = chance.choice((*chains, "USER"))
            matches = chance.sample(MATCHES, chance.choice((1, 1, 2)))
            if chain != "USER" and chance.random() < 0.3:
                matches = [chance.choice(INTERFACES[chain]), *matches[:1]]
            if sum("-p " in match for match in matches) > 1 or sum("-s " in match for match in matches) > 1:
                matches = matches[:1]
            if sum("-d " in match for match in matches) > 1:
                matches = matches[:1]
            jump = chance.choice((*TARGETS, *MORE[table]))
            if chain == "USER" and "USER" in jump:
                continue
            lines.append(f"-A {chain} {' '.join(matches)} {jump}")
        tables += [*lines, "COMMIT"]
    return "\n".join(tables) + "\n"


def nft(chance: random.Random) -> str:
    """A text for `nft -f`."""
    family = chance.choice(("ip", "inet"))
    known = [match for match in NFT_MATCHES if family == "inet" or not match.startswith(("ip6", "meta nfproto"))]
    lines = [f"table {family} made_up {{", "chain user {"]
    lines += [f"{chance.choice(known)} {chance.choice(NFT_VERDICTS[:6])}" for _ in range(2)]
    lines.append("}")
    for hook in ("prerouting", "forward", "postrouting"):
        priority = chance.choice((-310, -160, -10, 0, 10, 110))
        lines.append(f"chain {hook} {{ type filter hook {hook} priority {priority}; policy accept;")
        lines += [f"{chance.choice(known)} {chance.choice(NFT_VERDICTS)}" for _ in range(chance.randrange(4))]
        lines.append("}")
    return "\n".join([*lines, "}", ""])


def case(seed: int) -> dict[str, str]:
    chance = random.Random(seed)
    made = {"iptables": iptables(chance), "legacy": iptables(chance), "nft": nft(chance)}
    return {kind: text for kind, text in made.items() if chance.random() < 0.6}


@pytest.mark.skipif(
    os.geteuid() != 0
    or not all(
        shutil.which(tool, path="/usr/sbin:/sbin") for tool in ("nft", "iptables-legacy", "iptables-nft", "ipset")
    ),
    reason="needs root, nft and both kinds of iptables",
)
def test_a_packet_arrives_where_the_walk_says_so() -> None:
    cases = [case(seed) for seed in range(CASES)]
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.support.router_namespace"],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=False,
        timeout=100,
    )
    if "iptables-legacy" in done.stderr:
        pytest.skip(f"needs a kernel with iptables-legacy: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    arrived = 0
    for made, seen in zip(cases, json.loads(done.stdout), strict=True):
        outputs = {name: Output(0, text) for name, text in {**seen["facts"], "sysctls": ""}.items()}
        firewall = Firewall(Facts("router", outputs))
        for port in PORTS:
            packet = Packet(IPv4Address(CLIENT), IPv4Address(SERVER), "udp", port, in_dev="c0", out_dev="s0")
            found = firewall.traverse(packet)
            assert not found.unknown, found
            assert found.passes == (port in seen["arrived"]), f"{port}: {found}\n" + "\n".join(made.values())
        arrived += len(seen["arrived"])
    assert CASES // 2 < arrived < len(PORTS) * CASES - CASES // 2  # both happen often
