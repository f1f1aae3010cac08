"""A rule that leaves a packet to a program: what is said of it, and what becomes of it without that program."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from hoplab.netfilter.hooks import Firewall, Traversal
from hoplab.netfilter.packet import Packet
from hoplab.observe.facts import Facts
from hoplab.observe.script import Output
from tests.support.policy_table import queues, table

POD, OTHER = IPv4Address("10.244.0.5"), IPv4Address("10.244.1.5")
RULE = "nftables inet kube-network-policies, chain postrouting: `ip daddr @podips-v4 queue to 98`"
ARRIVES = Packet(OTHER, POD, dport=8080, in_dev="flannel.1", out_dev="cni0")
AFTER = "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n"


def met(rules: str, read: str | None = None, packet: Packet = ARRIVES) -> Traversal:
    """What a host with this table, and with this queue where it was looked at, does with a packet."""
    texts = {
        **dict.fromkeys(("iptables_legacy", "ip6tables", "ip6tables_legacy", "ipset", "sysctls"), ""),
        "iptables": AFTER,
        "addresses": '[{"ifname": "cni0", "addr_info": [{"family": "inet", "local": "10.244.0.1", "prefixlen": 24}]}]',
        "nft_ruleset": rules,
        **({} if read is None else {"nfqueue": read}),
    }
    return Firewall(Facts("worker1", {name: Output(0, text) for name, text in texts.items()})).traverse(packet)


def test_a_program_decides() -> None:
    found = met(table([POD]), queues())
    assert not found.drops and not found.passes
    assert str(found) == f"a program decides: {RULE}"
    assert found.unknown[0].queued and not found.unknown[0].unread


def test_the_next_chains_see_what_the_program_lets_pass() -> None:
    found = met(table([POD]), queues())
    assert found.translated
    assert [packet.src for packet in found.packets] == [IPv4Address("10.244.0.1")]


def test_where_the_queues_were_not_looked_at_a_program_may_decide() -> None:
    assert str(met(table([POD]))) == f"a program decides: {RULE}"


def test_the_kernel_drops_what_no_program_reads() -> None:
    for read in ("", queues(number=97)):
        assert str(met(table([POD]), read)) == f"{RULE} drops it"


def test_a_flag_lets_it_pass_without_a_program() -> None:
    for flags in ("bypass", ["bypass"]):
        found = met(table([POD], flags=flags), "")
        assert found.passes and found.packets
        assert str(met(table([POD], flags=flags), queues())).startswith("a program decides: ")


def test_all_queues_of_a_range_have_to_be_read() -> None:
    spread = table([POD]).replace('{"num": 98}', '{"num": {"range": [98, 99]}, "flags": ["fanout"]}')
    assert str(met(spread, queues())).endswith("queue flags fanout to 98-99` drops it")
    assert str(met(spread, queues() + queues(number=99))).startswith("a program decides")


@pytest.mark.parametrize(
    "packet",
    [
        Packet(OTHER, IPv4Address("10.244.0.6"), dport=8080, in_dev="flannel.1", out_dev="cni0"),
        Packet(OTHER, POD, dport=8080, in_dev="flannel.1", out_dev="cni0", state="ESTABLISHED"),
    ],
)
def test_what_concerns_no_policy_or_is_known_passes(packet: Packet) -> None:
    assert met(table([POD]), "", packet).passes


def test_of_what_a_node_itself_sends_the_sender_decides() -> None:
    """`meta skuid 0 accept`: a kubelet is root's."""
    sent = Packet(IPv4Address("10.244.0.1"), POD, dport=8080, out_dev="cni0", src_is_local=True)
    assert [stop.rule for stop in met(table([POD]), queues(), sent).unknown] == [
        "meta skuid 0 accept",
        "ip daddr @podips-v4 queue to 98",
    ]
