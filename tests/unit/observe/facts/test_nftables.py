"""nftables: a ruleset of the shape that kube-proxy makes, as nft reads it back, and rules of many other kinds."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from hoplab.core.errors import FactError
from hoplab.observe.facts.nft_expressions import (
    Counter,
    Element,
    Expression,
    Lookup,
    Mark,
    Match,
    Nat,
    Other,
    Queue,
    Reject,
    Remember,
    Verdict,
    Vmap,
    expression,
    text,
)
from hoplab.observe.facts.nftables import NFTABLES, Nftables, Rule, Table
from tests.support.files import CAPTURED

HEADING = """{"metainfo": {"version": "1.1.3"}}, {"table": {"family": "ip", "name": "kube-proxy", "handle": 1}}"""


def ruleset(name: str) -> Nftables:
    return NFTABLES.parse((CAPTURED / f"nft-{name}.json").read_text())


@pytest.fixture(scope="module")
def proxy() -> Table:
    table = ruleset("kube-proxy").table()
    assert table
    return table


def service(table: Table, *key: object) -> str:
    """The chain that service-ips leads a key to."""
    found = table.sets["service-ips"].find(*key)
    assert found and isinstance(found.value, Verdict) and found.value.kind == "goto"
    return found.value.chain


def printed(name: str) -> set[str]:
    """The rules as nft lists them, but for the zeros in front of hexadecimal numbers and the quotes of interfaces."""
    lines = (CAPTURED / f"nft-{name}.txt").read_text().splitlines()
    return {
        re.sub(r'0x0+(?=[0-9a-f])|(?<=if )"(.+?)"|(?<=ifname )"(.+?)"', lambda m: m[1] or m[2] or "0x", line.strip())
        for line in lines
    }


@pytest.mark.parametrize("name", ["kube-proxy", "other"])
def test_rules_read_as_nft_prints_them(name: str) -> None:
    rules = [rule for table in ruleset(name).tables for chain in table.chains.values() for rule in chain.rules]
    known = [rule for rule in rules if not others(rule)]
    assert len(known) > 10
    assert {str(rule) for rule in known} <= printed(name)


def others(rule: Rule) -> list[Expression]:
    """The expressions of a rule that hold something which is kept as JSON."""
    return [part for part in rule.expressions if '{"' in str(part)]


def test_every_rule_of_kube_proxys_shape_is_understood(proxy: Table) -> None:
    rules = [rule for chain in proxy.chains.values() for rule in chain.rules]
    assert len(rules) == 35
    assert [part for rule in rules for part in others(rule)] == []
    (noted,) = [part for rule in rules for part in rule.expressions if isinstance(part, Remember)]
    assert (noted.op, noted.key) == ("update", ("ip saddr",))
    assert proxy.sets[noted.set].timeout == 10800


def test_hooks_and_their_order(proxy: Table) -> None:
    assert [(chain.name, chain.priority) for chain in proxy.hooked("output")] == [
        ("filter-output-pre-dnat", -110),
        ("nat-output", -100),
        ("filter-output", 0),
    ]
    nat = proxy.chains["nat-prerouting"]
    assert (nat.kind, nat.hook, nat.priority, nat.policy) == ("nat", "prerouting", -100, "accept")
    assert proxy.chains["services"].hook == "" and proxy.rules("no-such-chain") == ()


def test_a_service_leads_to_its_endpoints(proxy: Table) -> None:
    *_, by_address, by_port, _ = proxy.rules("services")
    assert by_address.expressions == (Vmap(("ip daddr", "meta l4proto", "th dport"), "service-ips"),)
    assert by_port.expressions[0] == Match(("ip daddr",), "==", ("@nodeport-ips",))

    (dns,) = proxy.rules(service(proxy, "10.96.0.10", "udp", 53))
    protocol, dnat = dns.expressions
    assert protocol == Match(("meta l4proto",), "==", ("udp",))
    assert isinstance(dnat, Nat) and dnat.targets == (("10.244.0.2", "53"), ("10.244.1.2", "53"))
    assert dnat.chosen and dnat.chosen.key == ("numgen random mod 2",)

    (api,) = proxy.rules(service(proxy, "10.96.0.1", "tcp", 443))
    assert api.expressions[-1] == Nat("dnat", "192.168.77.1", "6443")
    assert Nat("dnat", "192.168.77.1", "6443").targets == (("192.168.77.1", "6443"),)
    assert proxy.sets["service-ips"].find("10.96.0.99", "tcp", 80) is None


def test_a_sticky_service_goes_by_a_chain_per_endpoint(proxy: Table) -> None:
    known, chosen = proxy.rules(service(proxy, "10.104.1.1", "tcp", 80))
    (vmap,) = chosen.expressions
    assert isinstance(vmap, Vmap) and not vmap.map
    assert vmap.elements == (Element(("0",), known.expressions[-1]),)  # type: ignore[arg-type]
    assert isinstance(known.expressions[-1], Verdict)
    assert proxy.rules(known.expressions[-1].chain)[-1].expressions[-1] == Nat("dnat", "10.244.1.3", "8080")


def test_a_service_without_endpoints_rejects(proxy: Table) -> None:
    found = proxy.sets["no-endpoint-services"].find("10.103.7.7", "tcp", 80)
    assert found == Element(("10.103.7.7", "tcp", "80"), Verdict("goto", "reject-chain"), "hoplab-verify/nobody")
    assert [rule.expressions for rule in proxy.rules("reject-chain")] == [(Reject("icmp port-unreachable"),)]
    local = proxy.sets["no-endpoint-nodeports"].find("tcp", 30081)
    assert local and local.value == Verdict("drop") and str(local).endswith(": drop")


def test_marks_and_masquerading(proxy: Table) -> None:
    outside, *_ = proxy.rules("services")
    assert outside.comment == "masquerade clusterIP traffic from outside cluster"
    assert outside.expressions == (
        Match(("ip daddr",), "==", ("@cluster-ips",)),
        Match(("ip saddr",), "!=", ("10.244.0.0/16",)),
        Mark(0x4000, "|"),
    )
    marked, hairpin = proxy.rules("masquerading")
    assert marked.expressions == (
        Match(("meta mark & 0x4000",), "!=", ("0x0",)),
        Mark(0x4000, "^"),
        Nat("masquerade", flags=("fully-random",)),
    )
    assert Nat("masquerade").targets == ()
    assert hairpin.expressions[0] == Match(("ct status",), "in", ("dnat",))
    assert proxy.sets["hairpin-connections"].find("10.244.0.2", "10.244.0.2", "udp", 53) == Element(
        ("10.244.0.2", "10.244.0.2", "udp", "53")
    )


def test_sets_and_maps_have_types(proxy: Table) -> None:
    services, addresses = proxy.sets["service-ips"], proxy.sets["cluster-ips"]
    assert (services.key_type, services.value_type) == (("ipv4_addr", "inet_proto", "inet_service"), "verdict")
    assert (addresses.key_type, addresses.value_type) == (("ipv4_addr",), "")
    assert [str(element) for element in addresses.elements] == ["10.96.0.1", "10.96.0.10", "10.103.7.7", "10.104.1.1"]
    assert proxy.sets["firewall-ips"].elements == ()


def test_tables_are_kept_apart() -> None:
    found = ruleset("other")
    assert [(table.family, table.name) for table in found.tables] == [("inet", "other"), ("ip", "natted")]
    other = found.table("other", "inet")
    assert other and set(other.chains) == {"c", "d", "f"} and found.table() is None
    assert [str(element) for element in other.sets["iv"].elements] == ["10.0.0.0/8", "192.168.1.3-192.168.1.9"]
    assert str(other.sets["ex"].elements[0]) == '10.0.0.9 comment "one"'
    (chosen,) = (rule.expressions[0] for rule in other.rules("f"))
    assert isinstance(chosen, Nat) and chosen.chosen == Lookup(("meta mark",), "names") and chosen.targets == ()


def test_the_absence_of_the_table_is_no_failure() -> None:
    said = "Error: No such file or directory\nlist table ip kube-proxy\n              ^^^^^^^^^^\n"
    assert NFTABLES.parse(said) == Nftables(())
    both = NFTABLES.parse(f'{said}{{"nftables": [{{"table": {{"family": "ip", "name": "flannel-ipv4"}}}}]}}\n')
    assert [table.name for table in both.tables] == ["flannel-ipv4"]
    with pytest.raises(FactError, match="nftables is not JSON: 'sh: 1: nft: not found"):
        NFTABLES.parse("sh: 1: nft: not found\n")


def test_two_looks_at_a_rule_are_equal_whatever_it_counted() -> None:
    def look(packets: int, handle: int) -> Nftables:
        counted = {"counter": {"packets": packets, "bytes": 60 * packets}}
        rule = {"family": "ip", "table": "kube-proxy", "chain": "services", "handle": handle, "expr": [counted]}
        chain = '{"chain": {"family": "ip", "table": "kube-proxy", "name": "services", "handle": 1}}'
        return NFTABLES.parse(f'{{"nftables": [{HEADING}, {chain}, {{"rule": {json.dumps(rule)}}}]}}')

    before, after = look(3, 7), look(5, 8)
    assert before == after
    (rule,) = after.tables[0].rules("services")
    assert isinstance(rule.expressions[0], Counter) and rule.expressions[0].packets == 5
    assert rule.handle == 8 and str(rule) == "counter packets 5 bytes 300"


@pytest.mark.parametrize(
    ("raw", "known"),
    [
        ({"reject": None}, Reject()),
        ({"reject": {"type": "tcp reset"}}, Reject("tcp reset")),
        ({"counter": "hits"}, Counter("hits")),
        ({"queue": {"num": 98}}, Queue("98")),
        ({"queue": {"num": {"range": [1, 3]}, "flags": ["bypass", "fanout"]}}, Queue("1-3", ("bypass", "fanout"))),
        ({"queue": {"num": 98, "flags": "bypass"}}, Queue("98", ("bypass",))),
        ({"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}}, Mark(1)),
        ({"masquerade": None}, Nat("masquerade")),
        ({"snat": {"addr": "192.0.2.1", "flags": ["random", "persistent"]}},
         Nat("snat", "192.0.2.1", flags=("random", "persistent"))),
        ({"redirect": {"port": 8080}}, Nat("redirect", port="8080")),
        ({"return": None}, Verdict("return")),
        ({"vmap": {"key": "x", "data": 5}}, Vmap(("x",), "5")),
    ],
)  # fmt: skip
def test_expressions_that_are_known(raw: dict[str, Any], known: object) -> None:
    assert expression(raw) == known


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"notrack": None},
        {"xt": {"type": "target", "name": "DNAT"}},  # a rule of iptables-nft
        {"dnat": "to nowhere"},
        {"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"<<": [{"meta": {"key": "mark"}}, 1]}}},
        {"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"|": [{"ct": {"key": "mark"}}, 1]}}},
        {"mangle": {"key": {"ct": {"key": "mark"}}, "value": 1}},
        {"match": {"op": "=="}},
        {"counter": {}},
        {"queue": None},
        {"queue": {"num": 98, "more": 1}},
        {"goto": {}},
    ],
)
def test_what_is_not_understood_is_kept(raw: dict[str, Any]) -> None:
    kept = expression(raw)
    assert isinstance(kept, Other) and json.loads(str(kept)) == raw


@pytest.mark.parametrize(
    ("raw", "printed"),
    [
        (
            {"limit": {"rate": 10, "burst": 7, "per": "minute", "inv": True}},
            "limit rate over 10/minute burst 7 packets",
        ),
        ({"log": None}, "log"),
        ({"log": {"prefix": "-- IN -- "}}, 'log prefix "-- IN -- "'),
        ({"log": {"group": 2}}, '{"log": {"group": 2}}'),
        ({"limit": {"rate": 10, "rate_unit": "kbytes", "burst": 0, "per": "second"}}, None),
    ],
)
def test_what_is_not_evaluated_may_have_a_text(raw: dict[str, Any], printed: str | None) -> None:
    kept = expression(raw)
    assert isinstance(kept, Other) and kept.kind in raw and json.loads(kept.raw) == raw
    assert str(kept) == (printed or json.dumps(raw))


@pytest.mark.parametrize(
    "raw",
    [{"<<": [1, 2]}, {"&": [1]}, {"concat": []}, {"concat": 5}, {"ct": {"key": "saddr", "dir": "original"}}, None, 1.5],
)
def test_a_value_that_is_not_understood_is_kept(raw: object) -> None:
    assert json.loads(text(raw)) == raw


def test_odd_rulesets() -> None:
    def parse(*objects: str) -> Nftables:
        return NFTABLES.parse(f'{{"nftables": [{", ".join([HEADING, *objects])}]}}')

    assert parse('{"flowtable": {"family": "ip", "table": "kube-proxy"}}').tables[0].chains == {}
    (table,) = parse('{"set": {"family": "ip", "table": "kube-proxy", "name": "s", "elem": "none"}}').tables
    assert table.sets["s"].elements == ()
    assert parse('{"chain": {"family": "ip6", "table": "kube-proxy", "name": "c"}}').tables[0].chains == {}
    with pytest.raises(FactError, match=r"nftables\.chain should not be list"):
        parse('{"chain": []}')
    with pytest.raises(FactError, match=r"nftables\.nftables should not be str"):
        NFTABLES.parse('{"nftables": "none"}')


def test_no_depth_of_nesting_crashes() -> None:
    """Python gives up on deep JSON, or a little before that on what was made of it."""
    said = set()
    for depth in (*range(300, 500), 3000):
        nested = '{"&": [' * depth + "1" + ", 1]}" * depth
        rule = f'{{"rule": {{"family": "ip", "table": "kube-proxy", "expr": [{{"match": {{"op": "==", "left": {nested}'
        try:
            NFTABLES.parse(f'{{"nftables": [{HEADING}, {rule}, "right": 1}}}}]}}}}]}}')
        except FactError as error:
            said.add(error.message.split(":")[0])
    assert said <= {"nftables is not JSON", "nftables has an expression nested beyond reason"} and said
