"""Real packets of IPv6 between the same two nodes: seen at every hop, with rules, routes and what ends them."""

from __future__ import annotations

from typing import Any

import pytest

from hoplab.core.ip import IPAddress
from hoplab.trace import render
from hoplab.trace.model import NOT_SEEN, SEEN, Place, Way
from tests.support.traced_network import TracedNetwork, has_tracefs, lacking, left, whole

pytestmark = pytest.mark.skipif(bool(lacking()), reason=f"needs {lacking()}")

ONE, OTHER = "pod/default/web-1", "pod/default/web-2"
WORKER1, WORKER2 = Place("node", "worker1"), Place("node", "worker2")
DROP = "-d fd00:244:0:1::5/128 -p tcp -j DROP"


def addresses(way: Way) -> set[IPAddress]:
    headers = [header for hop in (*way.there, *way.back) for header in (hop.header, hop.inner) if header]
    return {address for header in headers for address in (header.src, header.dst)}


def test_a_pod_to_a_service_is_seen_at_every_hop_with_its_rules_and_routes(network: TracedNetwork) -> None:
    trace = network.trace(ONE, "default/web", ipv6=True)
    whole(trace)
    way = trace.shown
    assert trace.sent and trace.sent.what == "connected" and (len(way.there), len(way.back)) == (8, 8)
    assert {address.version for address in addresses(way)} == {6}
    assert {hop.wrapped for hop in way.there if hop.inner} == {"VXLAN, VNI 1"}
    events = {event.kind: event for hop in way.there for event in hop.events if hop.place == WORKER1}
    assert events["dnat"].evidence == SEEN and events["dnat"].where.startswith("ip6tables nat, PREROUTING > ")
    assert events["dnat"].text.endswith("-j DNAT --to-destination [fd00:244:0:1::5]:8080")
    assert (events["wire"].text, events["wire"].evidence) == ("port0 to port1", SEEN)
    if has_tracefs():
        routes = [event for hop in way.there for event in hop.events if event.kind == "route" and hop.place == WORKER1]
        assert [(event.evidence, event.text) for event in routes] == [
            (SEEN, "fd00:244:0:1::/64 via fd00:244:0:1:: dev flannel-v6.1 onlink"),
            (SEEN, "fd00:77::/64 dev eth0"),
        ]
    assert (str(way.back[-1].header.src), way.back[-1].header.sport) == ("fd00:96::80", 80)
    assert left(network) == []


@pytest.mark.parametrize(
    ("sender", "receiver"), [("outside", "[fd00:77::20]:30080"), ("fd00:244::5", "[fd00:244:0:1::5]:8080")]
)
def test_ends_by_their_addresses(network: TracedNetwork, sender: str, receiver: str) -> None:
    trace = network.trace(sender, receiver)
    whole(trace)
    assert trace.sent and trace.sent.hops == 16 and trace.sent.what == "connected"
    assert {address.version for address in addresses(trace.shown)} == {6}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"protocol": "icmp"}, "answer"),
        ({"protocol": "udp", "port": 9999}, "Connection refused"),  # by ICMPv6, which quotes it
        ({"port": 81}, "Connection refused"),
    ],
)
def test_other_protocols_and_a_port_that_nobody_listens_on(
    network: TracedNetwork, options: dict[str, Any], what: str
) -> None:
    trace = network.trace(ONE, OTHER, ipv6=True, **options)
    whole(trace)
    assert trace.sent and trace.sent.what == what and trace.sent.hops == 16
    if options.get("protocol") == "udp":
        assert {hop.header.protocol for hop in trace.shown.back if not hop.inner} == {"ipv6-icmp"}


def test_the_outside_and_a_node(network: TracedNetwork) -> None:
    trace = network.trace("worker1", OTHER, ipv6=True, protocol="icmp")
    whole(trace)
    assert str(trace.shown.there[0].header.src) == "fd00:244::"  # of flannel-v6.1
    trace = network.trace(ONE, "outside", ipv6=True, protocol="icmp")
    whole(trace)
    snat = next(event for hop in trace.shown.there for event in hop.events if event.kind == "snat")
    assert snat.evidence == SEEN and snat.result == "source fd00:244::5 becomes fd00:77::20"


def test_a_request_through_an_ingress_controller_goes_on_by_ipv4(network: TracedNetwork) -> None:
    host_port = "-t nat {} PREROUTING -d fd00:77::20 -p tcp --dport 80 -j DNAT --to-destination [fd00:244::5]:80"
    network.on("worker1", f"ip6tables-nft {host_port.format('-I')}")
    network.ingress = True
    try:
        trace = network.trace("outside", "default/web", via="ingress", ipv6=True)
    finally:
        network.ingress = False
        network.on("worker1", f"ip6tables-nft {host_port.format('-D')}")
    whole(trace)
    assert trace.sent and trace.sent.what == "answer: HTTP/1.1 200 OK"
    [then] = trace.then
    assert then.sent and then.sent.seen == then.sent.hops == then.sent.predicted == 16, render.text(trace)
    assert {address.version for address in addresses(trace.shown)} == {6}
    assert {address.version for address in addresses(then.shown)} == {4}


@pytest.mark.parametrize("known", [True, False], ids=["predicted", "made since the look"])
def test_a_rule_of_ip6tables_that_drops_it(network: TracedNetwork, known: bool) -> None:
    lab = None if known else network.snapshot()
    network.on("worker2", f"ip6tables-nft -I FORWARD {DROP}")
    try:
        trace = network.sent(lab or network.snapshot(), ONE, OTHER, ipv6=True)
    finally:
        network.on("worker2", f"ip6tables-nft -D FORWARD {DROP}")
    end, sent = trace.shown.end, trace.sent
    assert end and sent and not trace.complete
    assert (end.at, end.last, end.missing, end.reply) == (WORKER2, WORKER2, "pod default/web-2", False)
    assert (end.kind, end.cause, end.evidence) == ("rule", f"-A FORWARD {DROP}", SEEN)
    assert "in ip6tables filter, FORWARD of node worker2 drops it" in end.why
    assert (sent.what, sent.seen, sent.hops) == ("no answer", 6, 6)
    assert sent.wrong == (() if known else ("the model predicted that it arrives and its reply returns",))
    assert [hop.evidence for hop in trace.shown.there[6:]] == ([] if known else [NOT_SEEN] * 2)


def test_a_rule_of_nftables_for_both_families(network: TracedNetwork) -> None:
    made = "add table inet own; add chain inet own passing { type filter hook forward priority -7; }; "
    network.on("worker2", f"nft '{made} add rule inet own passing meta l4proto ipv6-icmp drop'")
    try:
        trace = network.trace(ONE, OTHER, ipv6=True, protocol="icmp")
    finally:
        network.on("worker2", "nft delete table inet own")
    end = trace.shown.end
    assert end and trace.sent and (end.at, end.kind, end.evidence) == (WORKER2, "rule", SEEN)
    assert end.cause == "meta l4proto ipv6-icmp drop" and trace.sent.wrong == ()


def test_a_rule_that_rejects_it_answers_by_icmpv6(network: TracedNetwork) -> None:
    network.on("worker2", "ip6tables-nft -I FORWARD -d fd00:244:0:1::5 -p tcp -j REJECT")
    try:
        trace = network.trace(ONE, OTHER, ipv6=True)
    finally:
        network.on("worker2", "ip6tables-nft -D FORWARD 1")
    end = trace.shown.end
    assert end and (end.at, end.kind, end.reply) == (WORKER2, "rule", False) and " rejects it" in end.why
    assert trace.sent and trace.sent.what == "Connection refused"
    assert trace.shown.back and {hop.evidence for hop in trace.shown.back} == {SEEN}


@pytest.mark.skipif(not has_tracefs(), reason="needs tracefs")
def test_the_kernels_reason_for_a_drop_that_no_rule_explains(network: TracedNetwork) -> None:
    lab = network.snapshot()
    network.on("worker1", "sysctl -q net.ipv6.conf.all.forwarding=0")
    try:
        stale, trace = network.sent(lab, ONE, OTHER, ipv6=True), network.trace(ONE, OTHER, ipv6=True)
    finally:
        network.on("worker1", "sysctl -q net.ipv6.conf.all.forwarding=1")
    end = stale.shown.end
    assert end and (end.at, end.kind, end.evidence, end.missing) == (WORKER1, "dropped", SEEN, "node worker2")
    assert end.why.startswith("the kernel of node worker1 dropped it: ")
    end = trace.shown.end
    assert end and (end.at, end.kind, end.evidence) == (WORKER1, "sysctl", SEEN)
    assert end.cause == "net.ipv6.conf.all.forwarding = 0" and trace.sent and trace.sent.wrong == ()


def test_a_route_that_is_gone_since_the_look(network: TracedNetwork) -> None:
    lab = network.snapshot()
    route = "fd00:244:0:1::/64 via fd00:244:0:1:: dev flannel-v6.1 onlink"
    network.on("worker1", f"ip -6 route del {route}; ip -6 route add unreachable fd00:244:0:1::/64")
    try:
        trace = network.sent(lab, ONE, OTHER, ipv6=True)
    finally:
        network.on("worker1", f"ip -6 route del unreachable fd00:244:0:1::/64; ip -6 route add {route}")
    end = trace.shown.end
    assert end and (end.at, end.kind, end.evidence) == (WORKER1, "refused", SEEN), render.text(trace)
    assert end.cause == "ICMPv6 net unreachable"
