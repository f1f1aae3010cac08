"""What was seen beside what was predicted, from sightings that are made of a predicted way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hoplab.trace import render
from hoplab.trace.live.compare import compared
from hoplab.trace.live.drops import Drop
from hoplab.trace.live.observed import Observed, RuleHit
from hoplab.trace.live.sightings import Leg, Sighting
from hoplab.trace.model import (
    INFERRED,
    NOT_SEEN,
    OTHERWISE,
    OUTSIDE,
    SEEN,
    UNPREDICTED,
    Header,
    Hop,
    Place,
    Trace,
    Way,
)
from tests.support.recordings import recording
from tests.support.traced_faults import pods, traced

SPORT = 40000


def real(header: Header) -> Header:
    """Return a header with the port that the kernel has chosen."""
    if header.protocol not in ("tcp", "udp"):
        return header
    return replace(header, sport=header.sport or SPORT, dport=header.dport or SPORT)


def sighting(hop: Hop, leg: Leg, at: int) -> Sighting:
    inner = real(hop.inner) if hop.inner else None
    return Sighting(hop.place, hop.interface or "hl0", hop.direction, leg, real(hop.header), at, at, inner, hop.wrapped)


def sightings(way: Way) -> list[Sighting]:
    found = [sighting(hop, "there", at) for at, hop in enumerate(way.there)]
    return found + [sighting(hop, "back", at + 100) for at, hop in enumerate(way.back)]


def observed(seen: list[Sighting], outcome: str = "connected", **more: Any) -> Observed:
    return Observed(tuple(seen), outcome, outcome == "connected", **more)


def goals(model: Trace) -> set[Place]:
    return {way.target for way in model.ways if way.target}


@pytest.fixture
def model() -> Trace:
    return traced(recording("flannel-vxlan"), "single", "far")


def test_all_is_seen(model: Trace) -> None:
    way = model.ways[0]
    found = compared(model, observed(sightings(way)), goals(model))
    assert found.complete and found.sent and (found.sent.seen, found.sent.hops, found.sent.predicted) == (16, 16, 16)
    assert {hop.evidence for hop in (*found.shown.there, *found.shown.back)} == {SEEN}
    assert found.shown.header.sport == SPORT
    events = {event.kind: event.evidence for hop in found.shown.there for event in hop.events}
    assert events["wrapped"] == events["unwrapped"] == SEEN and events["fdb"] == INFERRED
    assert render.summary(found.sent) == "16 of 16 hops seen, all as predicted"


def test_what_a_program_does_is_seen_by_the_next_hop() -> None:
    """A reply to the node itself is seen at both interfaces that the program joins, and is one hop."""
    lab = recording("cilium-vxlan")
    model = traced(lab, "worker1", "hoplab-verify/echo")
    way = next(way for way in model.ways if any(hop.inner for hop in way.there))
    seen = sightings(way)
    assert (way.back[-1].interface, way.back[-1].port) == ("cilium_host", "cilium_vxlan")
    seen.append(replace(seen[-1], dev="cilium_vxlan", time=seen[-1].time - 1))
    found = compared(model, observed(seen), goals(model))
    assert found.complete and found.sent and found.sent.wrong == ()
    assert render.summary(found.sent) == "12 of 12 hops seen, all as predicted"
    programs = [event.evidence for hop in found.shown.there for event in hop.events if event.kind == "program"]
    assert programs == [SEEN, SEEN]
    of_pod = traced(lab, "single", "hoplab-verify/echo")
    shown = compared(of_pod, observed(sightings(of_pod.ways[0])), goals(of_pod)).shown
    assert [event.evidence for hop in shown.there for event in hop.events if event.kind == "dnat"] == [SEEN]


def test_a_packet_that_was_never_sent_has_its_senders_error(model: Trace) -> None:
    found = compared(model, observed([], "Network is unreachable"), goals(model))
    end = found.shown.end
    assert end and not found.complete
    assert (end.kind, end.why) == ("lost", "it was seen nowhere; its sender got: Network is unreachable")


def test_a_hop_that_is_missed_is_inferred(model: Trace) -> None:
    seen = sightings(model.ways[0])
    del seen[3]
    found = compared(model, observed(seen), goals(model))
    assert found.complete and found.sent and (found.sent.seen, found.sent.hops) == (15, 16)
    assert found.shown.there[3].evidence == INFERRED and found.sent.wrong == ()
    wrapped = next(event for event in found.shown.there[2].events if event.kind == "wrapped")
    assert wrapped.evidence == INFERRED


def test_another_way_and_other_addresses_are_said(model: Trace) -> None:
    seen = sightings(model.ways[0])
    astray = replace(seen[3], dev="eth1")
    other = replace(seen[5], header=replace(seen[5].header, src=seen[5].header.dst))
    found = compared(model, observed([*seen[:3], astray, seen[4], other, *seen[6:]]), goals(model))
    assert found.sent
    evidence = {hop.interface: hop.evidence for hop in found.shown.there}
    assert evidence["eth1"] == UNPREDICTED
    assert found.shown.there[6].evidence == OTHERWISE
    places = model.ways[0].there[3].place, model.ways[0].there[5].place
    assert found.sent.wrong == (
        f"not predicted: eth1 of {places[0]} out",
        f"other addresses than predicted: flannel.1 of {places[1]} in",
    )
    assert "\nmodel     not predicted: eth1 of " in render.text(found)


def test_it_ends_where_it_was_seen_last(model: Trace) -> None:
    way = model.ways[0]
    seen = sightings(way)[:4]
    found = compared(model, observed(seen, "no answer in 2.5 s"), goals(model))
    end = found.shown.end
    assert end and (end.last, end.at, end.missing, end.kind) == (way.there[3].place,) * 2 + (
        str(way.there[4].place),
        "lost",
    )
    assert [hop.evidence for hop in found.shown.there[4:]] == [NOT_SEEN] * 4 and found.shown.back == ()
    assert found.sent and found.sent.wrong == ("the model predicted that it arrives and its reply returns",)
    assert found.sent.hops == 4


def test_the_kernels_reason_is_that_of_the_node_where_it_was_seen_last(model: Trace) -> None:
    seen = sightings(model.ways[0])[:6]
    node = seen[-1].place
    drops = {
        node: (Drop(seen[-1].time + 5, "NOT_SPECIFIED", "a"), Drop(seen[-1].time + 9, "IP_RPFILTER", "b")),
        seen[0].place: (Drop(seen[-1].time, "NO_SOCKET", "c"),),
    }
    end = compared(model, observed(seen, "no answer", drops=drops), goals(model)).shown.end
    assert end and (end.kind, end.cause, end.at, end.evidence) == ("dropped", "IP_RPFILTER in b", node, SEEN)
    late = {node: (Drop(seen[-1].time + 10**9, "IP_RPFILTER", "b"),)}
    end = compared(model, observed(seen, "no answer", drops=late), goals(model)).shown.end
    assert end and end.kind == "lost"


def test_a_reply_that_is_not_sent(model: Trace) -> None:
    seen = sightings(model.ways[0])[:8]
    end = compared(model, observed(seen, "no answer"), goals(model)).shown.end
    assert end and end.reply and (end.kind, end.at) == ("silent", model.ways[0].target)


def test_an_answer_of_somebody_else_is_no_reply(model: Trace) -> None:
    seen = sightings(model.ways[0])[:6]
    node = seen[-1].place
    error = replace(seen[-1], direction="out", leg="back", what="ICMP net unreachable", time=50, order=50)
    found = compared(model, observed([*seen, error], "Network is unreachable"), goals(model))
    end = found.shown.end
    assert end and (end.kind, end.cause, end.at, end.reply) == ("refused", "ICMP net unreachable", node, False)
    assert [hop.evidence for hop in found.shown.back] == [SEEN]


def test_the_models_end_is_confirmed_or_refuted() -> None:
    model = traced(recording("broken/an-fdb-entry-is-gone"), "far", "single")
    way = model.ways[0]
    found = compared(
        model,
        observed(sightings(way), "no answer"),
        {Place("pod", str(pods(recording("broken/an-fdb-entry-is-gone"))["single"]))},
    )
    end = found.shown.end
    assert end and (end.kind, end.reply) == ("fdb", True) and found.sent and found.sent.wrong == ()
    found = compared(model, observed(sightings(way)), goals(model) or {way.there[-1].place})
    assert found.complete and found.sent
    assert found.sent.wrong[0].startswith(
        "the model predicted that it ends at node worker2: node worker2 has no host for"
    )


def test_a_rule_that_drops_it_is_an_event_where_it_was_seen_last(model: Trace) -> None:
    seen = sightings(model.ways[0])[:6]
    hit = RuleHit(seen[-1].place, "iptables filter, FORWARD", "-A FORWARD -j DROP", "drop", "there")
    way = compared(model, observed(seen, "no answer", rules=(hit, hit)), goals(model)).shown
    assert way.end and (way.end.kind, way.end.at) == ("rule", seen[-1].place)
    assert [event.text for hop in way.there for event in hop.events if event.kind == "rule"] == ["-A FORWARD -j DROP"]


def test_a_program_that_lets_it_not_pass_is_named_by_the_rule_that_asks_it(model: Trace) -> None:
    seen = sightings(model.ways[0])[:6]
    place, rule, where = seen[-1].place, "ip daddr @podips-v4 queue to 98", "nftables inet x, postrouting"
    hit = RuleHit(place, where, rule, "queue", "there")
    end = compared(model, observed(seen, "no answer", rules=(hit, hit)), goals(model)).shown.end
    assert end and (end.kind, end.at, end.cause) == ("rule", place, rule)
    assert end.why == f"the program that `{rule}` in {where} of {place} asks did not let it pass"
    later = RuleHit(place, "iptables nat, POSTROUTING", "-A POSTROUTING -j KUBE-POSTROUTING", "jump", "there")
    end = compared(model, observed(seen, "no answer", rules=(hit, later)), goals(model)).shown.end
    assert end and end.kind == "lost", "it went on after the program"


def test_a_packet_in_wireguard_is_known_by_its_time_and_outer_addresses() -> None:
    model = traced(recording("flannel-wireguard"), "single", "far")
    way = model.ways[0]
    seen = [replace(one, leg="carrier", inner=None, wrapped="") if one.inner else one for one in sightings(way)]
    found = compared(model, observed(seen), goals(model))
    assert found.sent and found.sent.seen == found.sent.hops == found.sent.predicted
    early = [replace(one, time=one.time - 10**9) if one.leg == "carrier" else one for one in seen]
    found = compared(model, observed(early), goals(model))
    assert found.sent and found.sent.hops - found.sent.seen == 4


def test_the_connection_of_a_proxy_is_a_trace_of_its_own() -> None:
    model = traced(recording("flannel-vxlan"), "outside", "app1-service", via="ingress")
    second = [replace(one, second=True) for one in sightings(model.then[0].ways[0])]
    found = compared(model, observed([*sightings(model.ways[0]), *second]), goals(model))
    assert found.complete and len(found.then) == 1 and found.then[0].sent
    assert found.then[0].sent.seen == found.then[0].sent.hops
    alone = compared(model, observed(sightings(model.ways[0])), goals(model))
    assert alone.then == () and "the request that the ingress controller passes on was not seen" in alone.notes


def test_udp_needs_no_reply() -> None:
    model = traced(recording("flannel-vxlan"), "single", "far", protocol="udp", port=9999)
    seen = [one for one in sightings(model.ways[0]) if one.leg == "there"]
    found = compared(model, observed(seen, "no answer", one_way=True), goals(model))
    assert found.complete and found.shown.back == ()
    assert render.outcome(found) == f"arrives at {model.ways[0].target}, which sends no reply"


BRIDGES = {Place("node", "worker2"): {f"veth{number}": "cni0" for number in range(4)}}


def test_what_a_bridge_sends_to_all_of_its_ports_are_no_hops(model: Trace) -> None:
    """The frame that arrives is one of the copies; a bridge that knows no port for a MAC address is healthy."""
    near = traced(recording("flannel-vxlan"), "single", "near")
    seen = sightings(near.ways[0])
    copies = [replace(seen[2], dev=f"veth{number}", order=number) for number in range(4)]
    found = compared(near, observed([*seen, *copies], bridges=BRIDGES), goals(near))
    assert found.complete and found.sent and found.sent.wrong == () and found.sent.hops == 8
    [event] = [event for hop in found.shown.there for event in hop.events if event.kind == "flooded"]
    assert (event.text, event.where, event.evidence) == ("veth0, veth1, veth2, veth3", "ports of cni0", SEEN)
    other = {Place("node", "worker2"): {"veth0": "cni0", "veth1": "br1"}}
    found = compared(near, observed([*seen, *copies[:2]], bridges=other), goals(near))
    assert found.sent and len(found.sent.wrong) == 1, "a port of each of two bridges is no flood"


def test_a_frame_for_a_port_that_is_down_ends_at_its_node() -> None:
    model = traced(recording("broken/a-veth-is-unplugged"), "single", "near")
    seen = sightings(model.ways[0])[:2]
    copies = [replace(seen[1], dev=f"veth{number}", direction="out", time=2, order=number) for number in range(4)]
    found = compared(model, observed([*seen, *copies], "no answer", bridges=BRIDGES), {Place("pod", "x")})
    end = found.shown.end
    assert end and (end.kind, str(end.at)) == ("link", "node worker2") and found.sent and found.sent.wrong == ()


def test_what_still_has_a_services_address_has_not_arrived() -> None:
    """At the API server's host as at nobody: the host answers that it does not know such a network."""
    model = traced(recording("broken/a-node-does-not-know-a-clusterip"), "single", "default/kubernetes")
    way = model.ways[0]
    assert way.end and way.there[-1].place == OUTSIDE
    seen = sightings(way)
    error = replace(seen[-1], direction="out", leg="back", what="ICMP net unreachable", time=50, order=50)
    sent = observed([*seen, error], "Network is unreachable", translated=way.header.dst)
    found = compared(model, sent, {OUTSIDE})
    end = found.shown.end
    assert end and (end.kind, end.at, end.reply) == (way.end.kind, way.end.at, False)
    assert found.sent and found.sent.wrong == ()
