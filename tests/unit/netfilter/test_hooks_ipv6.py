"""Packets of IPv6 at the hooks of a host: what differs from those of IPv4."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

from hoplab.netfilter.hooks import Firewall
from hoplab.netfilter.packet import Packet
from hoplab.observe.facts import Facts
from hoplab.observe.script import Output

FORWARDED = Packet(IPv6Address("fd00:244::5"), IPv6Address("2001:db8::9"), in_dev="cni0", out_dev="eth0")
BRIDGED = Packet(
    *(IPv6Address("fd00:244::5"), IPv6Address("fd00:244::6")),
    in_dev="cni0",
    out_dev="cni0",
    port_in="veth1",
    port_out="veth2",
)


def host(ip6tables: str, *, bridged: str = "1", **more: str) -> Firewall:
    texts = {
        **dict.fromkeys(("iptables", "ip6tables_legacy", "nft_ruleset", "ipset"), ""),
        "ip6tables": ip6tables,
        "addresses6": "[]",
        "sysctls": f"/proc/sys/net/bridge/bridge-nf-call-iptables:{bridged}\n",
        **more,
    }
    return Firewall(Facts("worker1", {name: Output(0, text) for name, text in texts.items()}))


def saved(table: str, chain: str, rule: str) -> str:
    return f"*{table}\n:{chain} ACCEPT [0:0]\n-A {chain} {rule}\nCOMMIT\n"


def test_masquerade_of_ipv6_takes_the_source_of_a_packet_of_the_host() -> None:
    """A link-local address of the interface is none for a packet that leaves the link."""

    def addresses(**of: list[str]) -> str:
        def item(text: str) -> dict[str, Any]:
            scope = "link" if text.startswith("fe80") else "global"
            return {"family": "inet6", "local": text, "prefixlen": 64, "scope": scope}

        return json.dumps([{"ifname": dev, "addr_info": list(map(item, found))} for dev, found in of.items()])

    known = addresses(cali1=["fe80::1"], eth0=["fe80::2", "fd00:77::20", "2001:db8::20"])
    firewall = host(saved("nat", "POSTROUTING", "-j MASQUERADE"), addresses6=known)
    for dev, dst, source in (
        ("eth0", "2001:db8::9", "2001:db8::20"),  # the one with most bits in common
        ("eth0", "fd00:77::1", "fd00:77::20"),
        ("cali1", "fd00:244::9", "fd00:77::20"),
        ("cali1", "fe80::9", "fe80::1"),
    ):
        sent = firewall.traverse(replace(FORWARDED, dst=IPv6Address(dst), out_dev=dev)).packets[0]
        assert str(sent.src) == source
    bare = host(saved("nat", "POSTROUTING", "-j MASQUERADE"))
    assert bare.traverse(FORWARDED).packets[0].src == FORWARDED.src


def test_bridged_packets_of_ipv6_meet_its_hooks_by_a_switch_of_their_own() -> None:
    rules = saved("filter", "FORWARD", "-j DROP")
    switch = "/proc/sys/net/bridge/bridge-nf-call-ip6tables:{}\n"
    assert host(rules, bridged="0", sysctls6=switch.format(1)).traverse(BRIDGED).drops
    assert host(rules, bridged="1", sysctls6=switch.format(0)).traverse(BRIDGED).passes
    assert host(rules).traverse(BRIDGED).drops  # an older recording has one switch
