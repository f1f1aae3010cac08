"""The route of a packet by policy rules: VRFs, selectors that are not known, entries that could not be read."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from hoplab.observe.facts import Facts, links, routes, rules
from hoplab.observe.routing import UNKNOWN, Decision, Flow, decide, decide_on
from hoplab.observe.script import Output

POD = IPv4Address("10.244.1.7")
MAIN = {"dst": "10.244.1.0/24", "gateway": "10.244.1.0", "dev": "flannel.1"}
DEFAULT = {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"}
VPN = {"dst": "10.244.0.0/16", "dev": "wg0", "table": "52"}
USUAL = [
    {"priority": 0, "src": "all", "table": "local"},
    {"priority": 32766, "src": "all", "table": "main"},
    {"priority": 32767, "src": "all", "table": "default"},
]


def decided(*policy: Any, flow: Flow[IPv4Address] | None = None, table: Any = (MAIN, DEFAULT, VPN), **more: Any) -> Any:
    return decide(
        flow or Flow(POD),
        routes.parse(json.dumps(table)),
        rules.parse(json.dumps([*policy, *USUAL])),
        links.parse(json.dumps(more.get("interfaces", []))),
    )


def test_the_rule_is_named_unless_every_kernel_has_it() -> None:
    assert str(decided()) == "10.244.1.0/24 via 10.244.1.0 dev flannel.1"
    taken = decided({"priority": 5270, "src": "all", "table": "52"})
    assert (taken.table, taken.rule.priority) == ("52", 5270)
    assert str(taken) == "10.244.0.0/16 dev wg0 by rule 5270: from all lookup 52"
    assert taken.direct and not decided().direct


VIA_VPN = {"priority": 9, "src": "all", "table": "52"}


@pytest.mark.parametrize(
    ("rule", "flow", "taken"),
    [
        ({}, Flow(POD), True),
        ({"src": "10.55.0.0", "srclen": 16}, Flow(POD, IPv4Address("10.55.0.9")), True),
        ({"src": "10.55.0.0", "srclen": 16}, Flow(POD, IPv4Address("10.56.0.9")), False),
        ({"src": "10.55.0.0", "srclen": 16}, Flow(POD), False),
        ({"src": "0.0.0.0", "srclen": 8}, Flow(POD), True),  # what has no source address yet
        ({"dst": "10.244.1.7"}, Flow(POD), True),
        ({"dst": "10.244.1.8"}, Flow(POD), False),
        ({"not": None, "dst": "10.244.1.8"}, Flow(POD), True),
        ({"fwmark": "0xca6c"}, Flow(POD, mark=0xCA6C), True),
        ({"fwmark": "0xca6c"}, Flow(POD, mark=0x1CA6C), False),
        ({"fwmark": "0x1", "fwmask": "0xff"}, Flow(POD, mark=0x101), True),
        ({"tos": "0x10"}, Flow(POD, tos=16), True),
        ({"tos": "0x10"}, Flow(POD), False),
        ({"iif": "lo"}, Flow(POD), True),
        ({"iif": "lo"}, Flow(POD, iif="eth0"), False),
        ({"iif": "eth0"}, Flow(POD, iif="eth0"), True),
        ({"iif": "eth0", "iif_detached": None}, Flow(POD, iif="eth0"), False),
        ({"oif": "wg0"}, Flow(POD, oif="wg0"), True),
        ({"oif": "wg0"}, Flow(POD), False),
        ({"ipproto": "tcp", "dport": 80}, Flow(POD, protocol="tcp", dport=80), True),
        ({"ipproto": "tcp", "dport": 80}, Flow(POD, protocol="tcp", dport=81), False),
        ({"ipproto": "6"}, Flow(POD, protocol="udp"), False),
        ({"ipproto": "6"}, Flow(POD, protocol="tcp"), True),
        ({"sport_start": 5, "sport_end": 9}, Flow(POD, sport=9), True),
        ({"uid_start": 1, "uid_end": 9}, Flow(POD, uid=0), False),
        ({"suppress_prefixlen": 15}, Flow(POD), True),
        ({"suppress_prefixlen": 16}, Flow(POD), False),
        ({"suppress_ifgroup": "vpn"}, Flow(POD), False),
        ({"suppress_ifgroup": "lan"}, Flow(POD), True),
    ],
)
def test_a_rule_takes_the_packets_that_it_selects(rule: Any, flow: Flow[IPv4Address], taken: bool) -> None:
    found = decided({**VIA_VPN, **rule}, flow=flow, interfaces=[{"ifname": "wg0", "group": "vpn"}])
    assert (found.table == "52") == taken


def test_a_goto_skips_rules_and_a_throw_ends_its_table() -> None:
    jump = {"priority": 5, "src": "all", "goto": 32766}
    assert decided(jump, VIA_VPN).table == "main"
    assert decided({**jump, "goto": 7}, VIA_VPN).table == "52"  # there is no rule 7
    assert decided({"priority": 5, "src": "all", "nop": None}, VIA_VPN).table == "52"
    thrown = ({"type": "throw", "dst": "10.244.1.7", "table": "52"}, VPN, MAIN)
    assert decided(VIA_VPN, table=thrown).table == "main"
    dropped = ({"type": "blackhole", "dst": "default", "table": "52"}, MAIN)
    assert decided({**VIA_VPN, "suppress_prefixlen": 0}, table=dropped).verdict == "blackhole"  # not suppressed


def test_nothing_leads_there() -> None:
    assert decided(table=[]) == Decision("unreachable")
    assert str(decided(table=[])) == "unreachable" and not decided(table=[]).direct
    refused = decided({"priority": 9, "src": "all", "action": "prohibit"})
    assert str(refused) == "prohibit by rule 9: from all prohibit" and refused.route is None


def test_a_locally_generated_packet_that_is_bound_is_taken_to_be_on_the_link() -> None:
    bound = decided(table=[], flow=Flow(POD, oif="eth1"))
    assert (bound.verdict, str(bound)) == ("unicast", "dev eth1 weight 1")
    assert decided(table=[], flow=Flow(POD, oif="eth1", iif="eth0")).verdict == "unreachable"
    assert decide(Flow(IPv6Address("fd00::1"), oif="eth1"), ()).verdict == "unreachable"


VRF = {"ifname": "vrf1", "linkinfo": {"info_kind": "vrf", "info_data": {"table": 10}}}
IN_VRF = [VRF, {"ifname": "eth0", "master": "vrf1"}, {"ifname": "eth1"}]
L3MDEV = {"priority": 1000, "src": "all", "l3mdev": None}


@pytest.mark.parametrize(
    ("flow", "dev"),
    [
        (Flow(POD, iif="eth0"), "eth0"),
        (Flow(POD, oif="vrf1"), "eth0"),
        (Flow(POD, oif="eth0"), "eth0"),
        (Flow(POD, iif="eth1"), "flannel.1"),
        (Flow(POD), "flannel.1"),
    ],
)
def test_packets_of_a_vrf_are_looked_up_in_its_table(flow: Flow[IPv4Address], dev: str) -> None:
    table = (MAIN, {"dst": "10.0.0.0/8", "dev": "eth0", "table": "10"})
    found = decided(L3MDEV, flow=flow, table=table, interfaces=IN_VRF)
    assert [hop.dev for hop in found.hops] == [dev]


def test_a_rule_is_bound_to_a_vrf_by_name() -> None:
    rule = {"priority": 5, "src": "all", "oif": "vrf1", "table": "52"}
    assert decided(rule, flow=Flow(POD, oif="vrf1"), interfaces=IN_VRF).table == "52"


UNUSUAL = {"priority": 7, "src": "all", "tun_id": 7, "table": "52"}


def test_a_selector_that_is_not_known_is_said() -> None:
    found = decided(UNUSUAL)
    assert found.verdict == UNKNOWN and found.rule.priority == 7
    assert str(found) == (
        "unknown by rule 7: from all tun_id 7 lookup 52, as far as is known: "
        "whom rule 7: from all tun_id 7 lookup 52 matches"
    )
    assert decided({**UNUSUAL, "dst": "10.9.0.0", "dstlen": 16}).verdict == "unicast"  # it does not match anyway
    assert decided({**UNUSUAL, "table": "main"}).doubts == ()  # nor does it matter
    assert decided({**UNUSUAL, "not": None}).verdict == UNKNOWN
    jump = {"priority": 7, "src": "all", "tun_id": 7, "goto": 32766}
    assert decided(jump, {"priority": 8, "src": "all", "table": "52"}).verdict == UNKNOWN
    assert decided(jump).verdict == "unicast"


@pytest.mark.parametrize(
    "selector", [{"src": "10.x"}, {"dst": "here"}, {"fwmark": "red"}, {"fwmark": "0x1", "fwmask": "?"}, {"tos": "low"}]
)
def test_a_selector_that_is_no_value_is_not_known(selector: Any) -> None:
    assert decided({"priority": 7, "src": "all", "table": "52", **selector}).verdict == UNKNOWN


def test_an_action_that_is_not_known_is_said() -> None:
    assert decided({"priority": 7, "src": "all", "action": "masquerade"}).verdict == UNKNOWN


@pytest.mark.parametrize(("priority", "doubted"), [(7, True), ("first", True), (40000, False)])
def test_a_rule_that_could_not_be_read_is_in_doubt_where_it_might_come_before(priority: Any, doubted: bool) -> None:
    found = decided({"priority": priority, "src": [], "table": "52"})
    assert found.verdict == "unicast" and bool(found.doubts) == doubted
    assert ("as far as is known: rule {" in str(found)) == doubted


@pytest.mark.parametrize(
    ("lost", "doubted"),
    [
        ({"dst": "10.244.1.7", "metric": "x"}, True),
        ({"dst": "10.244.0.0/16", "metric": "x"}, False),  # a shorter prefix of the same table
        ({"dst": "10.244.0.0/16", "metric": "x", "table": "9"}, True),
        ({"dst": "10.9.0.0/16", "metric": "x"}, False),
        ({"dst": "here"}, True),
        (7, True),
    ],
)
def test_a_route_that_could_not_be_read_is_in_doubt_where_it_might_be_taken(lost: Any, doubted: bool) -> None:
    found = decided(table=(MAIN, lost))
    assert bool(found.doubts) == doubted and found.route.dev == "flannel.1"


def facts(**texts: Any) -> Facts:
    return Facts("worker1", {name: Output(0, json.dumps(found)) for name, found in texts.items()})


def test_the_facts_of_a_host_are_enough() -> None:
    policy = [{"priority": 5270, "src": "all", "table": "52"}, *USUAL]
    assert decide_on(facts(routes=[MAIN, VPN], rules=policy, links=[]), Flow(POD)).table == "52"
    assert decide_on(facts(routes=[MAIN, VPN]), Flow(POD)).table == "main"  # a pod of an older recording
    six = [{"dst": "fd00:244::/56", "dev": "cni0"}]
    assert decide_on(facts(routes6=six), Flow(IPv6Address("fd00:244::1"))).direct
    away = [{"priority": 1, "src": "all", "action": "blackhole"}]
    assert decide_on(facts(routes6=six, rules6=away), Flow(IPv6Address("fd00:244::1"))).verdict == "blackhole"
    sent_from = {"priority": 1, "src": "fd00::", "srclen": 8, "action": "blackhole"}  # no address is chosen yet
    assert decide_on(facts(routes6=six, rules6=[sent_from, *USUAL]), Flow(IPv6Address("fd00:244::1"))).direct
