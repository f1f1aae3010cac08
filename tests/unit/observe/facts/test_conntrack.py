"""conntrack: connections without a reply, past the rules, in zones, and of protocols without ports.

The lines are reduced from public reports: kubernetes 125467, flannel 1561, openwrt, openvswitch.
"""

from __future__ import annotations

from hoplab.observe.facts.conntrack import CONNTRACK, Direction, Flow

UNREPLIED = (
    "udp      17 29 src=10.12.0.14 dst=10.15.240.10 sport=43145 dport=53 [UNREPLIED] "
    "src=10.15.240.10 dst=10.12.0.14 sport=53 dport=43145 mark=0 use=1"
)
OFFLOADED = (
    "udp      17 src=203.0.113.9 dst=192.168.0.254 sport=51820 dport=51820 packets=5418 bytes=2996332 "
    "src=192.168.1.240 dst=203.0.113.9 sport=51820 dport=51820 packets=3649 bytes=1587316 [OFFLOAD] mark=0 use=2"
)
GRE = (
    "gre      47 179 src=192.168.77.20 dst=192.168.77.21 srckey=0x0 dstkey=0x5 "
    "src=192.168.77.21 dst=192.168.77.20 srckey=0x5 dstkey=0x0 [ASSURED] mark=0 use=1"
)
ZONED = (
    "tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=5 dport=6 src=10.0.0.2 dst=10.0.0.1 sport=6 dport=5 "
    "[ASSURED] mark=0 secctx=system_u:object_r:unlabeled_t:s0 zone=7 use=1"
)


def flow(line: str) -> Flow:
    (found,) = CONNTRACK.parse(f"{line}\n")
    return found


def test_a_connection_without_reply_is_known() -> None:
    found = flow(UNREPLIED)
    assert (found.protocol, found.state, found.replied, found.flags) == ("udp", "", False, frozenset({"UNREPLIED"}))
    assert flow(ZONED).replied


def test_a_connection_that_bypasses_the_rules_is_known() -> None:
    found = flow(OFFLOADED)
    assert found.offloaded and found.replied and found.destination_translated
    assert found.reply == Direction("192.168.1.240", "203.0.113.9", 51820, 51820)
    assert flow(OFFLOADED.replace("OFFLOAD", "HW_OFFLOAD")).offloaded and not flow(GRE).offloaded


def test_zones_are_of_both_directions_or_of_one() -> None:
    assert flow(ZONED).zones == (7, 7) and flow(ZONED).state == "ESTABLISHED"
    assert flow(GRE).zones == (0, 0)
    one = UNREPLIED.replace("dport=53 [", "dport=53 zone-orig=3 [")
    assert flow(one).zones == (3, 0)
    assert flow(UNREPLIED.replace(" mark", " zone-reply=4 mark")).zones == (0, 4)


def test_a_protocol_without_ports() -> None:
    found = flow(GRE)
    assert (found.protocol, found.flags, str(found.original)) == (
        "gre", frozenset({"ASSURED"}), "192.168.77.20 -> 192.168.77.21"
    )  # fmt: skip
