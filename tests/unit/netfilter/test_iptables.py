"""Packets walked through rules: what the kernel would do with them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from hoplab.netfilter.iptables import walk, with_sets
from hoplab.netfilter.packet import UNKNOWN, Outcome, Packet
from hoplab.observe.facts.ipset import IPSET
from hoplab.observe.facts.iptables import IPTABLES, Rule

POD, OTHER, OUTSIDE = (IPv4Address(text) for text in ("10.244.0.5", "10.244.1.5", "192.168.77.1"))


def ends(
    *rules: str, packet: Packet | None = None, policy: str = "ACCEPT", chains: tuple[str, ...] = ()
) -> tuple[Outcome[Rule], ...]:
    """Where a packet that enters FORWARD may end."""
    declared = [f":FORWARD {policy} [0:0]", *(f":{chain} - [0:0]" for chain in chains)]
    text = "\n".join(["*filter", *declared, *(f"-A {rule}" for rule in rules), "COMMIT", ""])
    return walk(IPTABLES.parse(text).chains("filter"), "FORWARD", packet or Packet(POD, OUTSIDE))


def verdicts(
    *rules: str, packet: Packet | None = None, policy: str = "ACCEPT", chains: tuple[str, ...] = ()
) -> list[str]:
    return [end.verdict for end in ends(*rules, packet=packet, policy=policy, chains=chains)]


def test_the_policy_decides_what_no_rule_does() -> None:
    assert verdicts() == ["ACCEPT"]
    assert verdicts(policy="DROP") == ["DROP"]
    assert walk({}, "FORWARD", Packet(POD, OTHER))[0].verdict == "ACCEPT"


def test_the_first_match_decides() -> None:
    assert verdicts("FORWARD -s 10.244.0.0/16 -j DROP", "FORWARD -j ACCEPT") == ["DROP"]
    assert verdicts("FORWARD -s 10.9.0.0/16 -j DROP", "FORWARD -j REJECT") == ["REJECT"]


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ("-s 10.244.0.0/16", True),
        ("! -s 10.244.0.0/16", False),
        ("-d 192.168.77.1/32", True),
        ("! -d 224.0.0.0/4", True),
        ("-p tcp", True),
        ("-p udp", False),
        ("-p tcp -m tcp --dport 80", True),
        ("-p tcp -m tcp --dport 1:79", False),
        ("-p tcp -m multiport --dports 22,80:81", True),
        ("-o eth0", True),
        ("-o veth+", False),
        ("-i cni+", True),
        ("! -i cni0", False),
        ("-m mark --mark 0x4000/0x4000", True),
        ("-m mark ! --mark 0x4000/0x4000", False),
        ("-m mark --mark 0x4000", False),
        ("-m addrtype --dst-type LOCAL", False),
        ("-m conntrack --ctstate RELATED,NEW", True),
        ("-m conntrack --ctstate INVALID", False),
        ('-m comment --comment "says nothing"', True),
    ],
)
def test_matches(match: str, hit: bool) -> None:
    packet = Packet(POD, OUTSIDE, dport=80, mark=0x4001, in_dev="cni0", out_dev="eth0")
    assert verdicts(f"FORWARD {match} -j DROP", packet=packet) == (["DROP"] if hit else ["ACCEPT"])


def test_a_local_destination() -> None:
    packet = Packet(POD, OUTSIDE, dst_is_local=True)
    assert verdicts("FORWARD -m addrtype --dst-type LOCAL -j DROP", packet=packet) == ["DROP"]


def test_chance_has_several_ends() -> None:
    found = ends("FORWARD -m statistic --mode random --probability 0.5 -j DROP", "FORWARD -j REJECT")
    assert [end.verdict for end in found] == ["DROP", "REJECT"]


def test_chains_are_called_and_returned_from() -> None:
    rules = ("FORWARD -j A", "FORWARD -j REJECT", "A -s 10.244.0.0/16 -j RETURN", "A -j DROP")
    (end,) = ends(*rules, chains=("A",))
    assert end.verdict == "REJECT" and end.chains == ("FORWARD", "A")
    assert verdicts(*rules, packet=Packet(OUTSIDE, POD), chains=("A",)) == ["DROP"]


def test_goto_does_not_come_back() -> None:
    rules = ("FORWARD -g A", "FORWARD -j REJECT", "A -d 10.0.0.0/8 -j DROP")
    assert verdicts(*rules, chains=("A",)) == ["ACCEPT"]


def test_marks_are_set_and_taken_off() -> None:
    (marked,) = ends("FORWARD -j MARK --set-xmark 0x4000/0x4000", packet=Packet(POD, OTHER, mark=0x1))
    assert marked.packet.mark == 0x4001
    (clean,) = ends("FORWARD -j MARK --set-xmark 0x4000/0x0", packet=Packet(POD, OTHER, mark=0x4001))
    assert clean.packet.mark == 0x1
    (ored,) = ends("FORWARD -j MARK --or-mark 0x2", packet=Packet(POD, OTHER, mark=0x1))
    assert ored.packet.mark == 0x3


def test_rules_that_only_count_or_log_pass_on() -> None:
    assert verdicts("FORWARD -s 10.0.0.0/8", "FORWARD -j LOG", "FORWARD -j DROP") == ["DROP"]


def test_chains_that_call_each_other_end() -> None:
    assert verdicts("FORWARD -j A", "A -j B", "B -j A", chains=("A", "B")) == ["ACCEPT"]


POOLS = """\
create pools hash:net family inet hashsize 1024
add pools 10.244.0.0/16
create hosts hash:ip family inet hashsize 1024
add hosts 192.168.77.1
create ports hash:ip,port family inet hashsize 1024
add ports 10.244.0.5,tcp:80
create but hash:net family inet hashsize 1024
add but 10.244.0.0/16 nomatch
"""


@pytest.mark.parametrize(
    ("match", "verdicts"),
    [
        ("--match-set pools src", ["DROP"]),
        ("--match-set pools dst", ["ACCEPT"]),
        ("! --match-set pools dst", ["DROP"]),
        ("--match-set hosts dst", ["DROP"]),
        ("--match-set ports src", ["DROP", "ACCEPT"]),  # more than a packet's address decides
        ("--match-set but src", ["DROP", "ACCEPT"]),
        ("--match-set gone src", ["DROP", "ACCEPT"]),
    ],
)
def test_a_set_is_looked_into(match: str, verdicts: list[str]) -> None:
    text = f"*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set {match} -j DROP\nCOMMIT\n"
    chains = IPTABLES.parse(text).chains("filter")
    found = walk(with_sets(chains, IPSET.parse(POOLS)), "FORWARD", Packet(POD, OUTSIDE))
    assert [end.verdict for end in found] == verdicts
    assert {end.verdict for end in walk(chains, "FORWARD", Packet(POD, OUTSIDE))} == {"DROP", "ACCEPT"}
    assert with_sets(chains, IPSET.parse(POOLS)) == chains  # a rule is the same with and without


def test_sets_of_ipv6_have_their_members() -> None:
    text = "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -m set --match-set pools6 src -j MASQUERADE\nCOMMIT\n"
    sets = IPSET.parse("create pools6 hash:net family inet6 hashsize 1024\nadd pools6 fd00:244::/48\n")
    chains, outside = with_sets(IPTABLES.parse(text).chains("nat"), sets), IPv6Address("fd00:77::1")
    for address, verdict in (("fd00:244::5", "MASQUERADE"), ("fd00:77::20", "ACCEPT")):
        found = walk(chains, "POSTROUTING", Packet(IPv6Address(address), outside))
        assert [end.verdict for end in found] == [verdict]


@pytest.mark.parametrize(
    ("target", "to"),
    [
        ("DNAT --to-destination 10.244.1.2:8080 --persistent", "10.244.1.2:8080"),
        ("REDIRECT --to-ports 15006", ":15006"),  # Istio's
        ("SNAT --to-source 192.168.77.20", "192.168.77.20"),
        ("MASQUERADE --to-ports 1024-2048 --random-fully", ":1024-2048"),
        ("NETMAP --to 10.9.0.0/16", "10.9.0.0/16"),
        ("TPROXY --on-port 37379 --on-ip 0.0.0.0 --tproxy-mark 0x200/0xffffffff", "0.0.0.0:37379"),  # Cilium's
    ],
)
def test_where_a_translated_packet_goes(target: str, to: str) -> None:
    (end,) = ends(f"FORWARD -p tcp -j {target}", "FORWARD -j DROP")
    assert (end.verdict, end.to) == (target.split(maxsplit=1)[0], to)


@pytest.mark.parametrize(
    "target",
    [
        "CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        "SET --add-set seen src --exist",
        "TEE --gateway 10.0.0.1",
        "CLASSIFY --set-class 1:10",
        "DSCP --set-dscp 0x0a",
        "TCPMSS --clamp-mss-to-pmtu",
        "CT --zone 1",
        "TRACE",
    ],
)
def test_a_target_that_is_no_verdict_passes_on(target: str) -> None:
    assert verdicts(f"FORWARD -j {target}", "FORWARD -j DROP") == ["DROP"]


def test_a_program_may_decide() -> None:
    (end,) = ends("FORWARD -j NFQUEUE --queue-num 0 --queue-bypass", "FORWARD -j DROP")
    assert (end.verdict, [str(rule) for rule in end.unsure]) == (
        UNKNOWN, ["-A FORWARD -j NFQUEUE --queue-num 0 --queue-bypass"]
    )  # fmt: skip
    assert verdicts("FORWARD -j SOMETHING-NEW") == [UNKNOWN]


def test_a_rule_that_cannot_be_read_is_an_outcome() -> None:
    found = ends("FORWARD -p tcp -j DNAT [unsupported revision]", "FORWARD -j DROP")
    assert [end.verdict for end in found] == [UNKNOWN, "DROP"]
    assert {str(rule) for end in found for rule in end.unsure} == {"-A FORWARD -p tcp -j DNAT [unsupported revision]"}
    assert verdicts("FORWARD -p udp -j DNAT [unsupported revision]", "FORWARD -j DROP") == ["DROP"]
    assert verdicts("FORWARD -s nowhere -j ACCEPT") == [UNKNOWN, "ACCEPT"]


def test_an_unknown_match_that_makes_no_difference_is_none() -> None:
    """ufw has a dozen of them in a row: each would double the number of outcomes."""
    (end,) = ends(*["FORWARD -m limit --limit 3/min -j LOG"] * 40, "FORWARD -j DROP")
    assert (end.verdict, end.unsure) == ("DROP", ())
    found = ends(*[f"FORWARD -m limit --limit 3/min -j MARK --set-xmark {bit % 2}/0x1" for bit in range(40)])
    assert {end.verdict for end in found} == {"ACCEPT"} and len(found) == 2


def test_what_an_outcome_depends_on_is_named() -> None:
    dropped, passed = ends("FORWARD -m mac --mac-source 02:00:00:00:00:01 -j DROP")
    assert dropped.unsure == passed.unsure == dropped.path and passed.by_policy and not dropped.by_policy


def test_one_packet_of_several_is_chance() -> None:
    found = ends("FORWARD -m statistic --mode nth --every 4 --packet 0 -j DROP")
    assert [(end.verdict, end.probability, end.unsure) for end in found] == [("DROP", 0.25, ()), ("ACCEPT", 0.75, ())]


def test_marks_of_the_connection() -> None:
    save, restore = "FORWARD -j CONNMARK --save-mark", "FORWARD -j CONNMARK --restore-mark"
    (end,) = ends(save, "FORWARD -j MARK --set-xmark 0x0/0xffffffff", restore, packet=Packet(POD, OTHER, mark=5))
    assert (end.packet.mark, end.packet.connmark) == (5, 5)
    (end,) = ends("FORWARD -j CONNMARK --set-xmark 0x2/0xf", packet=Packet(POD, OTHER, connmark=0x11))
    assert end.packet.connmark == 0x12
    (end,) = ends(restore, packet=Packet(POD, OTHER, mark=7, state="ESTABLISHED"))
    assert end.packet.mark == 7


@pytest.mark.parametrize(
    ("change", "mark"),
    [("--xor-mark 0x3", 0x6), ("--and-mark 0x4", 0x4), ("--set-mark 9", 0x9), ("--set-xmark x", 5)],
)
def test_marks_are_written_in_other_ways(change: str, mark: int) -> None:
    (end,) = ends(f"FORWARD -j MARK {change}", packet=Packet(POD, OTHER, mark=0x5))
    assert end.packet.mark == mark


def test_a_packet_may_leave_conntrack() -> None:
    for target in ("CT --notrack", "NOTRACK"):
        (end,) = ends(f"FORWARD -j {target}")
        assert end.packet.state == "UNTRACKED"
