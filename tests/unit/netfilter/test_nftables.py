"""Packets walked through rules of nftables, and through those of both kinds in the kernel's order."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from hoplab.netfilter.nftables import walk
from hoplab.netfilter.packet import Packet
from hoplab.netfilter.ruleset import filtered, postrouting, prerouting
from hoplab.observe.facts import Facts
from hoplab.observe.facts.nft_expressions import Nat
from hoplab.observe.facts.nftables import NFTABLES, Table
from hoplab.observe.script import Output
from tests.support.files import CAPTURED

POD, OTHER, OUTSIDE, NODE = (
    IPv4Address(text) for text in ("10.244.0.5", "10.244.1.5", "192.168.77.1", "192.168.77.20")
)
STICKY = IPv4Address("10.104.1.1")
PACKET = Packet(POD, OUTSIDE, dport=80)


@pytest.fixture(scope="module")
def proxy() -> Table:
    found = NFTABLES.parse((CAPTURED / "nft-kube-proxy.json").read_text()).table()
    assert found
    return found


def ends(
    *rules: list[dict[str, Any]], packet: Packet = PACKET, policy: str = "accept", sets: tuple[dict[str, Any], ...] = ()
) -> list[str]:
    """The verdicts of a packet that enters `first`; a rule is a list of expressions, after the name of its chain."""
    own = {"family": "ip", "table": "kube-proxy"}
    base = {"type": "filter", "hook": "forward", "prio": 0, "policy": policy}
    objects: list[dict[str, Any]] = [{"table": {"family": "ip", "name": "kube-proxy"}}]
    objects += [{"chain": {**own, "name": "first", **base}}, {"chain": {**own, "name": "second"}}]
    objects += [{"set": {**own, "type": "ipv4_addr", **fields}} for fields in sets]
    for rule in rules:
        objects.append({"rule": {**own, "chain": rule[0]["chain"], "expr": rule[1:]}})
    table = NFTABLES.parse(json.dumps({"nftables": objects})).table()
    assert table
    return [end.verdict for end in walk(table, "first", packet)]


FIRST, SECOND = {"chain": "first"}, {"chain": "second"}
DROP, ACCEPT, RETURN = {"drop": None}, {"accept": None}, {"return": None}
JUMP, GOTO = {"jump": {"target": "second"}}, {"goto": {"target": "second"}}


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
DPORT = {"payload": {"protocol": "th", "field": "dport"}}


@pytest.mark.parametrize(
    ("condition", "hits"),
    [
        (match(SADDR, "10.244.0.5"), True),
        (match(SADDR, {"prefix": {"addr": "10.244.0.0", "len": 16}}), True),
        (match(SADDR, {"prefix": {"addr": "10.244.0.0", "len": 16}}, "!="), False),
        (match(SADDR, {"range": ["10.244.0.1", "10.244.0.4"]}), False),
        (match(SADDR, {"range": ["10.244.0.1", "10.244.0.9"]}), True),
        (match(SADDR, "@pods"), True),
        (match(DPORT, {"range": [79, 81]}), True),
        (match(DPORT, {"set": [22, 443]}), False),
        (match({"meta": {"key": "l4proto"}}, "tcp"), True),
        (match({"payload": {"protocol": "udp", "field": "dport"}}, 80), False),
        (match({"meta": {"key": "oifname"}}, "eth*"), True),
        (match({"meta": {"key": "mark"}}, 0x4000), False),
        (match({"&": [{"meta": {"key": "mark"}}, 0x4000]}, 0, "!="), False),
        (match({"ct": {"key": "state"}}, ["established", "new"], "in"), True),
        (match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), False),
    ],
)
def test_conditions(condition: dict[str, Any], hits: bool) -> None:
    packet = replace(PACKET, out_dev="eth0")
    pods = {"name": "pods", "elem": [{"prefix": {"addr": "10.244.0.0", "len": 24}}]}
    assert ends([FIRST, condition, DROP], packet=packet, sets=(pods,)) == (["DROP"] if hits else ["ACCEPT"])


def test_what_a_packet_does_not_tell_may_be_so_or_not() -> None:
    assert ends([FIRST, match({"meta": {"key": "skuid"}}, 0), DROP]) == ["DROP", "ACCEPT"]
    assert ends([FIRST, match(SADDR, "@nobody-knows-it"), DROP]) == ["DROP", "ACCEPT"]
    assert ends([FIRST, {"xt": None}, DROP]) == ["DROP", "ACCEPT"]


def test_chains_are_called_and_returned_from() -> None:
    assert ends([FIRST, JUMP], [FIRST, DROP], [SECOND, match(DPORT, 22), DROP]) == ["DROP"]
    assert ends([FIRST, GOTO], [FIRST, DROP], [SECOND, match(DPORT, 22), DROP]) == ["ACCEPT"]
    assert ends([FIRST, JUMP], [FIRST, DROP], [SECOND, RETURN], [SECOND, ACCEPT]) == ["DROP"]
    assert ends([FIRST, {"continue": None}], [FIRST, {"reject": None}]) == ["REJECT"]
    assert ends(policy="drop") == ["DROP"]
    assert ends([FIRST, JUMP], [SECOND, {"jump": {"target": "first"}}]) == ["ACCEPT"]


def test_a_service_leads_to_its_endpoints_by_lot(proxy: Table) -> None:
    found = walk(proxy, "nat-prerouting", Packet(POD, IPv4Address("10.96.0.10"), "udp", 53))
    assert [(end.verdict, end.to, end.probability) for end in found] == [
        ("DNAT", "10.244.0.2:53", 0.5),
        ("DNAT", "10.244.1.2:53", 0.5),
    ]
    assert found[0].chains == ("nat-prerouting", "services", "service-FY5PMXPG-kube-system/kube-dns/udp/dns")
    (nobody,) = walk(proxy, "nat-prerouting", Packet(POD, IPv4Address("10.96.0.99"), "udp", 53))
    assert (nobody.verdict, nobody.to) == ("ACCEPT", "")


def test_a_number_that_leads_nowhere_has_its_share(proxy: Table) -> None:
    chain = proxy.chains["service-FY5PMXPG-kube-system/kube-dns/udp/dns"]
    protocol, dnat = chain.rules[0].expressions
    assert isinstance(dnat, Nat) and dnat.chosen
    drawn = replace(dnat, chosen=replace(dnat.chosen, key=("numgen random mod 4",)))
    rule = replace(chain.rules[0], expressions=(protocol, drawn))
    broken = replace(proxy, chains={**proxy.chains, chain.name: replace(chain, rules=(rule,))})
    found = walk(broken, "nat-prerouting", Packet(POD, IPv4Address("10.96.0.10"), "udp", 53))
    assert [(end.verdict, end.probability) for end in found] == [
        ("DNAT", 0.25), ("DNAT", 0.25), ("ACCEPT", 0.25), ("ACCEPT", 0.25)
    ]  # fmt: skip


def test_a_client_that_is_remembered_goes_where_it_was(proxy: Table) -> None:
    packet = Packet(POD, STICKY)
    assert [len(walk(proxy, "nat-prerouting", sent)) for sent in (packet, replace(packet, known=True))] == [1, 2]
    (end,) = walk(proxy, "nat-prerouting", packet)
    assert end.to == "10.244.1.3:8080" and end.chains[-1].startswith("endpoint-33OLLWVQ-demo/sticky")


def test_marks_come_and_go(proxy: Table) -> None:
    (end,) = walk(proxy, "nat-prerouting", Packet(OUTSIDE, STICKY))
    assert end.packet.mark == 0x4000
    (end,) = walk(proxy, "nat-postrouting", Packet(OUTSIDE, OTHER, mark=0x4001))
    assert (end.verdict, end.packet.mark) == ("MASQUERADE", 0x1)
    (end,) = walk(proxy, "nat-postrouting", Packet(OTHER, OTHER, mark=0x1))
    assert (end.verdict, end.packet.mark) == ("ACCEPT", 0x1)
    hairpin = Packet(IPv4Address("10.244.0.2"), IPv4Address("10.244.0.2"), "udp", 53, status="dnat")
    assert walk(proxy, "nat-postrouting", hairpin)[0].verdict == "MASQUERADE"


def test_node_ports_are_for_the_nodes_own_addresses(proxy: Table) -> None:
    (end,) = walk(proxy, "nat-prerouting", Packet(OUTSIDE, NODE, dport=30080, dst_is_local=True))
    assert (end.verdict, end.packet.mark) == ("DNAT", 0x4000)
    (end,) = walk(proxy, "nat-prerouting", Packet(OUTSIDE, OTHER, dport=30080))
    assert end.verdict == "ACCEPT"


def host(iptables: str, nftables: str) -> Facts:
    return Facts("worker1", {"iptables": Output(0, iptables), "nftables": Output(0, nftables)})


def test_both_kinds_of_rules_are_met() -> None:
    """The kernel calls iptables' chains and kube-proxy's table at the same hooks, whatever the first one did not do."""
    rule = "-A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE"
    both = host(f"*nat\n:POSTROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n", (CAPTURED / "nft-kube-proxy.json").read_text())
    (end,) = postrouting(both, Packet(POD, OUTSIDE))
    assert end.verdict == "MASQUERADE" and end.chains == ("POSTROUTING",)
    (end,) = postrouting(both, Packet(OUTSIDE, OTHER, mark=0x4000))
    assert end.verdict == "MASQUERADE" and end.chains == ("nat-postrouting", "masquerading")
    assert {end.to for end in prerouting(both, Packet(POD, IPv4Address("10.96.0.10"), "udp", 53))} == {
        "10.244.0.2:53",
        "10.244.1.2:53",
    }
    (end,) = filtered(both, "forward", Packet(POD, IPv4Address("10.103.7.7")))
    assert end.verdict == "REJECT"
    (end,) = filtered(both, "forward", Packet(POD, OTHER))
    assert end.verdict == "ACCEPT"
    (end,) = filtered(both, "input", Packet(OUTSIDE, NODE, dport=30081, dst_is_local=True))
    assert end.verdict == "DROP"


def test_where_no_rule_is_everything_passes() -> None:
    (end,) = prerouting(host("", ""), Packet(POD, OUTSIDE))
    assert (end.verdict, end.path, end.last) == ("ACCEPT", (), None)
