"""The kernel's counters, as /proc and ``tc -s qdisc`` show them on Linux 6.12, shortened."""

from __future__ import annotations

import pytest

from hoplab.core.errors import FactError
from hoplab.observe.facts.counters import COUNTERS, FAILURES, rose

SNMP = """\
/proc/net/snmp:Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors OutNoRoutes
/proc/net/snmp:Ip: 1 64 115623 0 2 0
/proc/net/snmp:Tcp: RtoAlgorithm RtoMin RtoMax MaxConn InCsumErrors
/proc/net/snmp:Tcp: 1 200 120000 -1 0
/proc/net/snmp:Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti
/proc/net/snmp:Udp: 1242 0 5 1774 0 0 5 0
/proc/net/netstat:TcpExt: ListenOverflows IPReversePathFilter
/proc/net/netstat:TcpExt: 4 7
/proc/net/netstat:IpExt: InNoRoutes InTruncatedPkts
/proc/net/netstat:IpExt: 0 0
"""
REST = """\
/proc/net/dev:Inter-|   Receive                                                |  Transmit
/proc/net/dev: face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls
/proc/net/dev:    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0
/proc/net/dev:  eth0:  178030     919    1   12    0     0          0         0    66610     590    2    3    0     0
/proc/net/dev:flannel.1: 5 1 0 0 0 0 0 0 5 1 0 8 0 0
/proc/net/stat/nf_conntrack:entries  clashres found new invalid ignore delete insert_failed drop early_drop
/proc/net/stat/nf_conntrack:00000032  00000000 0000000a 00000000 00000001 00000000 00000000 00000002 0000000a 00000003
/proc/net/stat/nf_conntrack:00000032  00000000 00000001 00000000 00000001 00000000 00000000 00000000 00000001 00000000
/proc/net/stat/arp_cache:entries  allocs   destroys hash_grows lookups  hits     res_failed table_fulls
/proc/net/stat/arp_cache:00000004  00000002 00000000 00000000 00000000 00000000 00000011 00000000
qdisc noqueue 0: dev lo root refcnt 2 
 Sent 0 bytes 0 pkt (dropped 0, overlimits 0 requeues 0) 
 backlog 0b 0p requeues 0
qdisc mq 0: dev eth0 root 
 Sent 66610 bytes 590 pkt (dropped 6, overlimits 0 requeues 0) 
 backlog 0b 0p requeues 0
qdisc fq_codel 0: dev eth0 parent :1 limit 10240p flows 1024 quantum 1514 target 5ms interval 100ms ecn 
 Sent 66610 bytes 590 pkt (dropped 6, overlimits 0 requeues 0) 
  maxpacket 54 drop_overlimit 0 new_flow_count 1 ecn_mark 0
"""


def test_counters_of_every_kind_are_read() -> None:
    found = COUNTERS.parse(SNMP + REST)
    assert (found["UdpInCsumErrors"], found["TcpExtIPReversePathFilter"], found["TcpMaxConn"]) == (5, 7, -1)
    assert (found["nf_conntrack drop"], found["nf_conntrack insert_failed"]) == (11, 2)  # of two CPUs, hexadecimal
    assert "nf_conntrack entries" not in found
    assert found["arp_cache res_failed"] == 17
    assert [found[f"{name} eth0"] for name in ("rx errs", "rx drop", "tx errs", "tx drop")] == [1, 12, 2, 3]
    assert (found["tx drop flannel.1"], found["qdisc eth0"], found["qdisc lo"]) == (8, 6, 0)


def test_a_node_without_conntrack_has_the_other_counters() -> None:
    found = COUNTERS.parse(SNMP)
    assert found["IpInAddrErrors"] == 2 and not any(name.startswith("nf_conntrack") for name in found)
    assert COUNTERS.parse("") == {}


@pytest.mark.parametrize(
    "text",
    [
        "/proc/net/snmp:Ip: Forwarding\n/proc/net/snmp:Ip: many\n",
        "/proc/net/snmp:Ip: Forwarding DefaultTTL\n/proc/net/snmp:Ip: 1\n",
        "/proc/net/stat/arp_cache:entries res_failed\n/proc/net/stat/arp_cache:1\n",
        "/proc/net/dev: eth0: 1 1 no 0\n",
        "/proc/net/snmp:\n",
    ],
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(FactError, match="the kernel's counters are not numbers"):
        COUNTERS.parse(text)


def test_only_failures_that_were_counted_meanwhile_are_said() -> None:
    before = COUNTERS.parse(SNMP + REST)
    after = {**before, "UdpInCsumErrors": 10, "UdpInDatagrams": 9999, "qdisc eth0": 9, "rx drop veth9": 1}
    assert set(rose(before, after)) == {
        "5 UDP checksum errors",
        "3 packets dropped by the queue of eth0",
        "1 received packet dropped by veth9",
    }
    assert rose(after, before) == () == rose(before, before)  # a node that has booted counts from 0
    assert set(FAILURES) >= {"UdpInCsumErrors", "TcpExtIPReversePathFilter", "nf_conntrack drop"}
