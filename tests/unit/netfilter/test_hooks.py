"""Packets at every hook of a host: what drops them, in the kernel's order, over iptables and nftables together."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from hoplab.core.errors import FactError
from hoplab.netfilter.hooks import Firewall, Stop, Translation, Traversal, reply_to
from hoplab.netfilter.packet import UNKNOWN, Packet
from hoplab.observe.facts import Facts
from hoplab.observe.script import Output
from tests.support.files import CAPTURED

POD, OTHER, OUTSIDE, NODE, PEER = (
    IPv4Address(text) for text in ("10.244.0.5", "10.244.1.5", "192.168.77.1", "192.168.77.20", "192.168.77.21")
)
TO_POD = Packet(POD, OTHER, dport=8080, in_dev="cni0", out_dev="flannel.1", port_in="veth1")
WRAPPED = Packet(PEER, NODE, "udp", 8472, in_dev="eth0", dst_is_local=True)
SENT = Packet(NODE, PEER, "udp", 8472, out_dev="eth0", src_is_local=True)
BRIDGED = Packet(POD, IPv4Address("10.244.0.6"), in_dev="cni0", out_dev="cni0", port_in="veth1", port_out="veth2")
OWN = {"family": "inet", "local": str(NODE), "prefixlen": 24}


def saved(table: str, *rules: str, policy: str = "ACCEPT") -> str:
    """A table as iptables-save prints it."""
    chains = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING", "USER")
    declared = [f":{chain} {policy if chain != 'USER' else '-'} [0:0]" for chain in chains]
    return "\n".join([f"*{table}", *declared, *(f"-A {rule}" for rule in rules), "COMMIT", ""])


def nft(
    family: str, hook: str, *rules: list[dict[str, Any]], priority: int = 0, kind: str = "filter", **chain: object
) -> str:
    """A table `own` with one base chain `base`, as nft prints it on one line."""
    own = {"family": family, "table": "own"}
    base = {**own, "name": "base", "type": kind, "hook": hook, "prio": priority, "policy": "accept", **chain}
    objects: list[dict[str, Any]] = [{"table": {"family": family, "name": "own"}}, {"chain": base}]
    objects += [{"rule": {**own, "chain": "base", "expr": rule}} for rule in rules]
    return json.dumps({"nftables": objects}) + "\n"


def host(iptables: str = "", *, legacy: str = "", nftables: str = "", bridged: str = "1", **more: str) -> Firewall:
    texts = {
        "iptables": iptables,
        "iptables_legacy": legacy,
        "nft_ruleset": nftables,
        "ip6tables": "",
        "ip6tables_legacy": "",
        "ipset": "",
        "addresses": json.dumps([{"ifname": "eth0", "addr_info": [OWN]}]),
        "sysctls": f"/proc/sys/net/bridge/bridge-nf-call-iptables:{bridged}\n",
        **more,
    }
    return Firewall(Facts("worker1", {name: Output(0, text) for name, text in texts.items()}))


DROP: dict[str, Any] = {"drop": None}
REJECT: dict[str, Any] = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}


def match(left: dict[str, Any], right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
STATE = {"ct": {"key": "state"}}


def dropped(found: Traversal) -> list[str]:
    return [str(stop) for stop in found.drops]


def test_nothing_drops_a_packet_where_no_rule_is() -> None:
    found = host().traverse(TO_POD)
    assert found.passes and found.packets == (TO_POD,) and str(found) == "passes" and not found.translated


@pytest.mark.parametrize(
    ("table", "rule", "packet"),
    [
        ("filter", "-A INPUT -p udp -m udp --dport 8472 -j DROP", WRAPPED),  # flannel 1704
        ("filter", "-A FORWARD -s 10.244.0.0/16 -d 10.244.0.0/16 -j DROP", TO_POD),  # flannel 699
        ("filter", "-A OUTPUT -p udp -j REJECT --reject-with icmp-port-unreachable", SENT),
        ("raw", "-A PREROUTING -s 10.244.0.0/16 -j DROP", TO_POD),
        ("mangle", "-A POSTROUTING -o flannel.1 -j DROP", TO_POD),
        ("filter", "-A USER -i cni0 -j DROP", TO_POD),
    ],
)
def test_the_rule_that_drops_it_is_named(table: str, rule: str, packet: Packet) -> None:
    called = ["FORWARD -j USER"] if "USER" in rule else []
    found = host(saved(table, *called, rule.removeprefix("-A "))).traverse(packet)
    assert dropped(found) == [f"iptables {table}: `{rule}`"] and not found.passes and found.packets == ()
    assert str(found) == f"iptables {table}: `{rule}` drops it"


@pytest.mark.parametrize(
    ("chain", "packets"),
    [
        ("PREROUTING", {"to pod", "wrapped", "bridged"}),
        ("INPUT", {"wrapped"}),
        ("FORWARD", {"to pod", "bridged"}),
        ("OUTPUT", {"sent"}),
        ("POSTROUTING", {"to pod", "sent", "bridged"}),
    ],
)
def test_each_packet_goes_through_its_hooks(chain: str, packets: set[str]) -> None:
    firewall = host(saved("mangle", f"{chain} -j DROP"))
    every = {"to pod": TO_POD, "wrapped": WRAPPED, "sent": SENT, "bridged": BRIDGED}
    assert {name for name, packet in every.items() if firewall.traverse(packet).drops} == packets


def test_a_policy_drops_it_too() -> None:
    """Docker sets the policy of FORWARD to DROP (kubernetes 108718)."""
    text = saved("filter", "FORWARD -j USER", "USER -s 10.9.0.0/16 -j ACCEPT").replace("FORWARD ACCEPT", "FORWARD DROP")
    found = host(text).traverse(TO_POD)
    assert found.drops == (Stop("forward", "iptables filter", "FORWARD", "policy DROP", "DROP"),)
    assert str(found.drops[0]) == "iptables filter, chain FORWARD: `policy DROP`"


def test_legacy_tables_are_beside_those_of_nft() -> None:
    """kubernetes 109811."""
    found = host(saved("filter", "FORWARD -j ACCEPT"), legacy=saved("filter", "FORWARD -j DROP")).traverse(TO_POD)
    assert dropped(found) == ["iptables-legacy filter: `-A FORWARD -j DROP`"]
    text = (CAPTURED / "iptables-legacy.txt").read_text()
    found = host(text, legacy=text).traverse(TO_POD)  # on a host whose iptables is iptables-legacy
    assert dropped(found) == ["iptables-legacy filter: `-A FORWARD -s 10.244.0.0/16 -j DROP`"]


@pytest.mark.parametrize("family", ["ip", "inet"])
def test_a_table_of_a_firewall_rejects_it(family: str) -> None:
    """flannel 2055."""
    found = host(nftables=nft(family, "forward", [REJECT], priority=10)).traverse(TO_POD)
    assert dropped(found) == [f"nftables {family} own, chain base: `reject with icmpx admin-prohibited`"]
    assert host(nftables=nft("ip6", "forward", [REJECT])).traverse(TO_POD).passes


def test_a_captured_firewall() -> None:
    firewall = host(nftables=(CAPTURED / "nft-ruleset.json").read_text())
    to_outside = replace(TO_POD, dst=OUTSIDE, out_dev="eth0")
    assert firewall.traverse(replace(to_outside, dport=8001)).passes
    assert dropped(firewall.traverse(replace(to_outside, dport=22))) == [
        "nftables inet firewalld, chain filter_FORWARD: `reject with icmpx admin-prohibited`"
    ]
    service = replace(to_outside, dst=IPv4Address("10.96.0.1"))
    assert [firewall.traverse(replace(service, dport=port)).passes for port in (443, 53)] == [True, False]
    assert firewall.traverse(reply_to(to_outside)).passes
    blocked = replace(to_outside, src=IPv4Address("203.0.113.9"), dport=8001)
    assert dropped(firewall.traverse(blocked))[0].startswith(
        "nftables inet firewalld, chain filter_FORWARD: `ip saddr @b"
    )
    assert dropped(firewall.traverse(replace(BRIDGED, dst=IPv4Address("10.244.0.9"), dport=8001))) == [
        "nftables bridge local, chain forward: `ip daddr 10.244.0.9 drop`"
    ]


def test_rules_of_another_family_of_addresses_do_not_apply() -> None:
    six = Packet(IPv6Address("fd00:244::5"), IPv6Address("fd00:244:1::5"), in_dev="cni0", out_dev="flannel-v6.1")
    firewall = host(nftables=nft("inet", "forward", [match(SADDR, "10.9.9.9", "!="), DROP]))
    assert firewall.traverse(six).passes and not firewall.traverse(TO_POD).passes
    firewall = host(ip6tables=saved("filter", "FORWARD -s fd00:244::/48 -j DROP"))
    assert dropped(firewall.traverse(six)) == ["ip6tables filter: `-A FORWARD -s fd00:244::/48 -j DROP`"]


def test_priorities_decide_which_chain_comes_first() -> None:
    """A mark that mangle sets is seen by a chain after it, and not by one before it."""
    marks = saved("mangle", "FORWARD -j MARK --set-xmark 0x1/0xffffffff")
    rule = [match({"meta": {"key": "mark"}}, 1), DROP]
    assert host(marks, nftables=nft("inet", "forward", rule, priority=-149)).traverse(TO_POD).drops
    assert host(marks, nftables=nft("inet", "forward", rule, priority=-151)).traverse(TO_POD).passes


def test_accept_ends_one_table_only() -> None:
    accept = saved("filter", "FORWARD -j ACCEPT")
    assert host(accept, nftables=nft("inet", "forward", [DROP], priority=10)).traverse(TO_POD).drops
    assert host(accept, nftables=nft("inet", "forward", [DROP], priority=-10)).traverse(TO_POD).drops


def test_replies_are_of_an_established_connection() -> None:
    stateful = saved("filter", "FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT", "FORWARD -j DROP")
    assert not host(stateful).traverse(TO_POD).passes and host(stateful).traverse(reply_to(TO_POD)).passes
    back = reply_to(TO_POD, reverse_path=True)
    assert (back.src, back.dst, back.sport, back.dport, back.reverse_path) == (OTHER, POD, 8080, 0, True)
    assert (back.in_dev, back.out_dev, back.port_in, back.port_out) == ("flannel.1", "cni0", "", "veth1")
    new = saved("filter", "INPUT -i cni0 -m conntrack --ctstate NEW -j DROP")  # flannel 2116
    to_node = Packet(POD, NODE, in_dev="cni0", dst_is_local=True)
    assert dropped(host(new).traverse(to_node)) == [
        "iptables filter: `-A INPUT -i cni0 -m conntrack --ctstate NEW -j DROP`"
    ]
    assert host(new).traverse(reply_to(Packet(NODE, POD, out_dev="cni0", src_is_local=True))).passes


def test_conntrack_knows_nothing_before_its_own_priority() -> None:
    early = nft("inet", "prerouting", [match(STATE, "invalid", "in"), DROP], priority=-300)
    assert host(nftables=early).traverse(TO_POD).drops
    late = nft("inet", "prerouting", [match(STATE, "invalid", "in"), DROP], priority=-150)
    assert host(nftables=late).traverse(TO_POD).passes
    untracked = saved("raw", "PREROUTING -j CT --notrack") + saved(
        "filter", "FORWARD -m state --state UNTRACKED -j DROP"
    )
    assert host(untracked).traverse(TO_POD).drops


def test_a_translated_packet_goes_on_with_its_new_destination() -> None:
    """As to a NodePort: the destination changes, then it is forwarded, and FORWARD sees the new one."""
    text = saved("nat", "PREROUTING -p tcp -m tcp --dport 30080 -j DNAT --to-destination 10.244.1.5:8080")
    text += saved("filter", "FORWARD -d 10.244.1.5/32 -o flannel.1 -p tcp -m tcp --dport 8080 -j DROP")
    arriving = Packet(OUTSIDE, NODE, dport=30080, in_dev="eth0", dst_is_local=True)
    by_tunnel = Translation(lambda packet: replace(packet, out_dev="flannel.1"))
    found = host(text).traverse(arriving, by_tunnel)
    assert found.translated and [stop.hook for stop in found.drops] == ["forward"]
    assert host(text).traverse(replace(arriving, state="ESTABLISHED")).packets[0].dst == NODE


def test_a_translated_packet_may_be_for_the_host() -> None:
    text = saved("nat", "PREROUTING -p tcp -j REDIRECT --to-ports 15006") + saved(
        "filter", "INPUT -p tcp -m tcp --dport 15006 -j DROP"
    )
    found = host(text).traverse(TO_POD)
    assert [stop.hook for stop in found.drops] == ["input"]
    own = saved("nat", "PREROUTING -j DNAT --to-destination 192.168.77.20") + saved("filter", "INPUT -j DROP")
    assert [stop.hook for stop in host(own).traverse(TO_POD).drops] == ["input"]


def test_the_source_changes_last() -> None:
    text = saved("nat", "POSTROUTING -j SNAT --to-source 192.168.77.20")
    found = host(text, nftables=nft("ip", "postrouting", [match(SADDR, "192.168.77.20"), DROP], priority=101))
    assert found.traverse(SENT).drops and found.traverse(TO_POD).drops
    masks = host(saved("nat", "POSTROUTING -j MASQUERADE"))
    assert [packet.src for packet in masks.traverse(TO_POD).packets] == [POD]  # the tunnel has no address
    assert [packet.src for packet in masks.traverse(replace(TO_POD, out_dev="eth0")).packets] == [NODE]
    second = nft("ip", "postrouting", [{"snat": {"addr": "192.0.2.9"}}], priority=100, kind="nat")
    (once,) = host(text, nftables=second).traverse(TO_POD).packets
    assert once.src in (NODE, IPv4Address("192.0.2.9"))  # the first of the two, not both


@pytest.mark.parametrize(
    ("table", "chain", "address", "sees"),
    [
        ("raw", "PREROUTING", "-d 192.168.77.20", True),  # the reply comes for the node
        ("raw", "PREROUTING", "-d 10.244.0.5", False),
        ("mangle", "PREROUTING", "-d 192.168.77.20", True),
        ("filter", "FORWARD", "-d 10.244.0.5", True),  # and conntrack has given it back to the pod
        ("filter", "FORWARD", "-d 192.168.77.20", False),
        ("filter", "FORWARD", "-s 10.244.1.5", True),  # from the endpoint, until it leaves
        ("filter", "FORWARD", "-s 10.96.0.10", False),
        ("mangle", "POSTROUTING", "-s 10.244.1.5", True),
        ("mangle", "POSTROUTING", "-s 10.96.0.10", False),
    ],
)
def test_a_reply_has_the_addresses_of_its_connection_at_each_hook(
    table: str, chain: str, address: str, sees: bool
) -> None:
    reply = reply_to(replace(TO_POD, in_dev="cni0", out_dev="eth0"))
    known = Translation(arrives=replace(reply, dst=NODE), leaves=replace(reply, src=IPv4Address("10.96.0.10")))
    found = host(saved(table, f"{chain} {address}/32 -j DROP")).traverse(reply, known)
    assert bool(found.drops) == sees


def test_the_last_hooks_of_nftables_see_the_service_as_the_source_of_a_reply() -> None:
    reply = reply_to(TO_POD)
    known = Translation(leaves=replace(reply, src=IPv4Address("10.96.0.10"), sport=53))
    rule = [match(SADDR, "10.96.0.10"), DROP]
    for family, hook, priority, sees in (
        ("ip", "postrouting", 101, True),
        ("ip", "postrouting", 99, False),
        ("bridge", "output", 0, True),
        ("ip", "forward", 200, False),
    ):
        found = host(nftables=nft(family, hook, rule, priority=priority)).traverse(reply, known)
        assert bool(found.drops) == sees, (family, hook, priority)


def test_a_random_drop_is_a_drop() -> None:
    text = saved("filter", "FORWARD -m statistic --mode random --probability 0.10000000009 -j DROP")
    found = host(text).traverse(TO_POD)
    assert found.drops and found.packets == (TO_POD,)


def test_an_unknown_rule_is_said_to_be_unknown() -> None:
    text = saved("filter", "FORWARD -m mac --mac-source 02:00:00:00:00:01 -j DROP")
    found = host(text).traverse(TO_POD)
    assert not found.passes and not found.drops
    (stop,) = found.unknown
    assert (stop.verdict, stop.unread) == (UNKNOWN, True)
    assert str(found) == (
        "unknown: iptables filter: `-A FORWARD -m mac --mac-source 02:00:00:00:00:01 -j DROP` could not be evaluated"
    )


def test_an_unknown_rule_before_a_drop_is_what_it_depends_on() -> None:
    limited = saved("filter", "FORWARD -m limit --limit 3/min -j ACCEPT", "FORWARD -j DROP")
    found = host(limited).traverse(TO_POD)
    assert not found.drops and [stop.rule for stop in found.unknown] == ["-A FORWARD -m limit --limit 3/min -j ACCEPT"]
    logged = saved("filter", "FORWARD -m limit --limit 3/min -j LOG", "FORWARD -j DROP")
    assert dropped(host(logged).traverse(TO_POD)) == ["iptables filter: `-A FORWARD -j DROP`"]
    both = saved("filter", "FORWARD -m limit --limit 3/min -j DROP", "FORWARD -j DROP")
    assert dropped(host(both).traverse(TO_POD)) == [
        "iptables filter: `-A FORWARD -j DROP`", "iptables filter: `-A FORWARD -m limit --limit 3/min -j DROP`"
    ]  # fmt: skip
    accepted = saved("filter", "FORWARD -m limit --limit 3/min -j ACCEPT", "FORWARD -j ACCEPT")
    assert host(accepted).traverse(TO_POD).passes


def test_what_is_dropped_anyway_does_not_depend_on_an_unknown_rule() -> None:
    text = saved("mangle", "FORWARD -m limit --limit 3/min -j DROP") + saved("filter", "FORWARD -j DROP")
    assert [stop.table for stop in host(text).traverse(TO_POD).drops] == ["iptables filter", "iptables mangle"]
    text = saved("mangle", "FORWARD -j NFQUEUE --queue-num 0") + saved("filter", "FORWARD -j DROP")
    assert dropped(host(text).traverse(TO_POD)) == ["iptables filter: `-A FORWARD -j DROP`"]


def test_a_rule_that_cannot_be_read_is_named_and_loses_nothing_else() -> None:
    """kubernetes 94754."""
    text = saved("filter", "FORWARD -m conntrack [unsupported revision] -j DROP")
    found = host(text).traverse(TO_POD)
    assert [stop.rule for stop in found.unknown] == ["-A FORWARD -m conntrack [unsupported revision] -j DROP"]
    assert dropped(host(text + saved("mangle", "POSTROUTING -j DROP")).traverse(TO_POD)) == [
        "iptables mangle: `-A POSTROUTING -j DROP`"
    ]


INCOMPATIBLE = "# Table `filter' is incompatible, use 'nft' tool.\n"  # kilo 402


def test_a_table_that_iptables_cannot_list_is_read_from_nft() -> None:
    (stop,) = host(INCOMPATIBLE).traverse(TO_POD).unknown[:1]
    assert str(stop) == "iptables filter: `# Table `filter' is incompatible, use 'nft' tool.`"
    chain = nft("ip", "forward", [match(SADDR, "10.244.0.5"), DROP]).replace('"own"', '"filter"')
    assert dropped(host(INCOMPATIBLE, nftables=chain).traverse(TO_POD)) == [
        "nftables ip filter, chain base: `ip saddr 10.244.0.5 drop`"
    ]
    assert host(saved("filter"), nftables=chain).traverse(TO_POD).passes  # iptables has printed it


def test_bridged_packets_meet_the_bridges_hooks_and_those_of_ip() -> None:
    rule = [match(SADDR, "10.244.0.5"), DROP]
    for hook in ("prerouting", "forward", "postrouting"):
        assert host(nftables=nft("bridge", hook, rule)).traverse(BRIDGED).drops[0].hook == hook
    assert host(nftables=nft("bridge", "input", rule)).traverse(TO_POD).drops
    assert host(nftables=nft("bridge", "output", rule)).traverse(reply_to(TO_POD, src=POD)).drops
    assert host(nftables=nft("bridge", "input", rule)).traverse(BRIDGED).passes
    ports = saved("filter", "FORWARD -m physdev --physdev-is-bridged -j DROP")
    assert host(ports).traverse(BRIDGED).drops and host(ports).traverse(TO_POD).passes
    assert host(ports, bridged="0").traverse(BRIDGED).passes  # IP's hooks are not called


def test_interfaces_have_hooks_of_their_own() -> None:
    rule = [match(SADDR, "10.244.0.5"), DROP]
    for device, hits in (("veth1", True), ("cni0", True), ("eth9", False), (["eth9", "cni0"], True)):
        found = host(nftables=nft("netdev", "ingress", rule, dev=device)).traverse(TO_POD)
        assert bool(found.drops) is hits
    assert host(nftables=nft("netdev", "egress", rule, dev="flannel.1")).traverse(TO_POD).drops
    assert host(nftables=nft("inet", "ingress", rule, dev="cni0")).traverse(TO_POD).drops
    somewhere = host(nftables=nft("netdev", "ingress", rule)).traverse(TO_POD)  # nft 1.0.6 does not say where
    assert not somewhere.drops and [stop.rule for stop in somewhere.unknown] == ["ip saddr 10.244.0.5 drop"]
    assert host(nftables=nft("netdev", "ingress", rule)).traverse(WRAPPED).passes


def test_a_missing_fact_is_an_error() -> None:
    firewall = Firewall(Facts("worker1", {"iptables": Output(0, "")}))
    with pytest.raises(FactError, match="nft_ruleset was not looked at on worker1"):
        firewall.traverse(TO_POD)


def test_a_passage_has_the_rules_that_a_packet_met() -> None:
    rules = saved("nat", "POSTROUTING -j USER", "USER -s 10.9.0.0/16 -j RETURN", "USER -j MASQUERADE")
    found = host(rules).traverse(replace(TO_POD, dst=OUTSIDE, out_dev="eth0"))
    [passage] = found.passages
    [step] = passage.steps
    assert (step.hook, step.table, step.verdict) == ("postrouting", "iptables nat", "MASQUERADE")
    assert step.chains == ("POSTROUTING", "USER") and str(step.rules[-1]) == "-A USER -j MASQUERADE"
    assert passage.packet == step.packet == found.packets[0] and passage.stop is None


def test_a_chain_that_a_packet_came_back_from_called_nothing() -> None:
    rules = saved("filter", "FORWARD -j USER", "USER -j MARK --set-xmark 0x1/0x1", "FORWARD -j DROP")
    found = host(rules).traverse(TO_POD)
    [passage] = found.passages
    assert passage.stop == found.drops[0] and passage.packet.mark == 1
    assert passage.steps[-1].chains == ("FORWARD",) and len(passage.steps[-1].rules) == 3


def test_each_outcome_of_a_random_number_is_a_passage() -> None:
    half = "PREROUTING -m statistic --mode random --probability 0.25 -j DNAT --to-destination 10.244.1.7:80"
    rules = saved("nat", half, "PREROUTING -j DNAT --to-destination 10.244.1.8:80")
    found = host(rules).traverse(TO_POD)
    assert [str(passage.packet.dst) for passage in found.passages] == ["10.244.1.7", "10.244.1.8"]
    assert [passage.steps[-1].probability for passage in found.passages] == [0.25, 0.75]


def test_masquerade_takes_a_global_address_where_the_interface_has_none() -> None:
    """As the host end of a pod with Calico has none."""
    lo = {"ifname": "lo", "addr_info": [{**OWN, "local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]}
    eth0 = {"ifname": "eth0", "addr_info": [{**OWN, "scope": "global"}]}
    firewall = host(saved("nat", "POSTROUTING -j MASQUERADE"), addresses=json.dumps([lo, eth0]))
    assert firewall.traverse(replace(TO_POD, out_dev="cali1")).packets[0].src == NODE
