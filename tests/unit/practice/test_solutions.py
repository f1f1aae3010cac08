"""Checks accept every solution that does what the task asks."""

from __future__ import annotations

import pytest

from hoplab.observe.facts import Facts
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.script import Output
from hoplab.practice import Inspection, find


def by_rules(name: str, rules: str, *answers: Output) -> list[str]:
    """What is missing where a router has these rules and packets are answered like this."""
    exercise = find(name)
    places = {place: Facts(place, {IPTABLES.name: Output(0, rules)}) for place in exercise.facts}
    inspection = Inspection(places, dict(zip(exercise.requests, answers, strict=True)))
    return [result.message for result in exercise.check(inspection) if not result.passed]


def asked_by(server: str, client: str) -> Output:
    return Output(0, f"practice-{server} was asked by {client}\n")


NAT = "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:MINE - [0:0]\n{}\nCOMMIT\n"
FILTER = "*filter\n:FORWARD {} [0:0]\n:OUTPUT ACCEPT [0:0]\n{}\nCOMMIT\n"
COUNTING = "[6:400] -A OUTPUT -d 10.200.7.2/32 -p tcp -m tcp --dport 8080"
TOLD = Output(1, "", "no answer within 4 s\n"), asked_by("vault", "172.31.7.80"), asked_by("vault", "10.200.7.1")


@pytest.mark.parametrize(
    "rules",
    [
        "[1:60] -A POSTROUTING -s 10.200.5.0/24 ! -d 10.200.5.0/24 -j SNAT --to-source 172.31.5.1",
        "[1:60] -A POSTROUTING -j MINE\n[1:60] -A MINE -o outside0 -j MASQUERADE",
    ],
)
def test_snat_accepts_other_solutions(rules: str) -> None:
    assert by_rules("snat", NAT.format(rules), asked_by("outside", "172.31.5.1")) == []


@pytest.mark.parametrize(
    "rules",
    [
        "[1:60] -A PREROUTING -d 172.31.6.1/32 -p tcp -m tcp --dport 30080 -j DNAT --to-destination 10.200.6.2:8080",
        "[1:60] -A PREROUTING -m addrtype --dst-type LOCAL -j MINE\n"
        "[1:60] -A MINE -p tcp -m tcp --dport 30080 -j DNAT --to-destination 10.200.6.2:8080",
    ],
)
def test_dnat_accepts_other_solutions(rules: str) -> None:
    assert by_rules("dnat", NAT.format(rules), asked_by("inner", "172.31.6.80")) == []


@pytest.mark.parametrize(
    ("policy", "rules"),
    [
        ("ACCEPT", "[3:180] -A FORWARD -s 172.31.7.80/32 -p tcp -m tcp --dport 8080 -j DROP"),
        ("DROP", "[9:540] -A FORWARD\n[6:400] -A FORWARD -p tcp -m tcp ! --dport 8080 -j ACCEPT"),
    ],
)
def test_hooks_accepts_other_solutions(policy: str, rules: str) -> None:
    assert by_rules("hooks", FILTER.format(policy, f"{rules}\n{COUNTING}"), *TOLD) == []


def test_hooks_reports_rules_that_counted_nothing() -> None:
    refusing = "[0:0] -A FORWARD -p tcp -m tcp --dport 8080 -j DROP"
    assert by_rules("hooks", FILTER.format("ACCEPT", f"{refusing}\n{COUNTING.replace('6:400', '0:0')}"), *TOLD) == [
        "the rule is in FORWARD, but no packet has met it: its counter is 0",
        "the rule in OUTPUT is there, but has counted nothing",
    ]
