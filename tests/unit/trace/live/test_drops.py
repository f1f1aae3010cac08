"""What tracepoints report, as trace_pipe prints it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hoplab.trace.live.drops import Drop, Lookup, parse

TEXT = """\
hoplab listens
          <idle>-0       [000] ..s1.  4711.123456: fib_table_lookup: table 254 oif 0 iif 5 proto 6 10.244.0.6/0 -> \
10.244.1.6/0 tos 0 scope 0 flags 0 ==> dev flannel.1 gw 10.244.1.0/:: err 0
     curl:x-77      [001] b.s2.  4711.200000: fib_table_lookup: table 254 oif 0 iif 5 proto 0 10.244.0.6/0 -> \
198.51.100.9/0 tos 0 scope 0 flags 0 ==> dev - gw 0.0.0.0/:: err -101
          <idle>-0       [000] b.s2.  4711.300001: kfree_skb: skbaddr=00000000deadbeef rx_sk=0000000000000000 \
protocol=2048 location=nf_hook_slow+0x9a/0xb0 reason: NETFILTER_DROP
     ping:x-78      [001] b.s2.  4711.400000: fib6_table_lookup: table 254 oif 0 iif 5 proto 6 fd00:244::5/0 -> \
fd00:244:0:1::5/0 flowlabel 0x0 tos 0 scope 0 flags 4 ==> dev flannel-v6.1 gw fd00:244:0:1:: err 0
          <idle>-0       [000] b.s2.  4711.400001: fib6_table_lookup: table   7 oif 0 iif 5 proto 58 fd00:244::5/0 -> \
2001:db8::9/0 tos 0 scope 0 flags 0 ==> dev - gw :: err -101
    (older)-1  [000] ..s..     1.5: kfree_skb: skbaddr=0000000012 protocol=2048 location=ip_error+0x1 \
reason: IP_INNOROUTES
     curl-77      [001] b.s2.  4711.400000: kfree_skb: skbaddr=0000000013 protocol=2048 \
location=skb_queue_purge_reason+0x1 reason: QUEUE_PURGE
CPU:0 [LOST 12 EVENTS]
"""


def test_drops_and_lookups_are_read() -> None:
    way, none, drop, way6, none6, older = parse(TEXT)
    source, pod = IPv4Address("10.244.0.6"), IPv4Address("10.244.1.6")
    assert way == Lookup(4711_123456_000, source, pod, "flannel.1", IPv4Address("10.244.1.0"), 0)
    assert isinstance(none, Lookup) and (none.dev, none.error) == ("-", -101)
    hop, pod6 = IPv6Address("fd00:244:0:1::"), IPv6Address("fd00:244:0:1::5")
    assert way6 == Lookup(4711_400000_000, IPv6Address("fd00:244::5"), pod6, "flannel-v6.1", hop, 0)
    assert isinstance(none6, Lookup) and (none6.dev, none6.error, none6.table) == ("-", -101, 7)
    assert drop == Drop(4711_300001_000, "NETFILTER_DROP", "nf_hook_slow")
    # and none for what the socket had that was closed
    assert isinstance(older, Drop) and (older.reason, older.function) == ("IP_INNOROUTES", "ip_error")
