"""Packets traced through the recordings of real labs: healthy ones let everything through, broken ones end in place."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import pytest

from hoplab.core.ip import with_port
from hoplab.core.paths import PROJECT
from hoplab.expectations.cni import by_programs
from hoplab.trace.model import MAPS, OUTSIDE, Trace, Way
from tests.support import traced_packets
from tests.support.files import RECORDINGS
from tests.support.recordings import RECORDED_LABS, recording
from tests.support.traced_faults import BENDS, FAULTS, PASSING, TracedFault, pods, trace_of, traced
from tests.support.traced_packets import packets_of

PACKETS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pod to pod on one node": ("single", "near", {}),
    "pod to pod on two nodes": ("single", "far", {}),
    "a ping of a pod": ("far", "single", {"protocol": "icmp"}),
    "pod to ClusterIP": ("single", "hoplab-verify/echo", {}),
    "pod to itself by a ClusterIP": ("single", "service/single", {}),
    "pod to DNS": ("far", "kube-dns", {}),
    "pod to the API server": ("near", "default/kubernetes", {}),
    "pod to its node": ("single", "node", {}),
    "node to ClusterIP": ("worker1", "hoplab-verify/echo", {}),
    "node to pod elsewhere": ("other", "single", {}),
    "outside to NodePort": ("outside", "service/single", {"via": "nodeport"}),
    "outside to NodePort, Local": ("outside", "single-local", {"via": "nodeport"}),
    "outside to LoadBalancer": ("outside", "balanced", {"via": "loadbalancer"}),
    "outside to ingress": ("outside", "app1-service", {"via": "ingress"}),
    "outside to the ingress' port of the node": ("outside", "worker1:80", {}),
    "pod to outside": ("single", "outside", {}),
    "pod to an address far outside": ("far", "198.51.100.9", {}),
}
DUAL = [lab for lab in RECORDED_LABS if recording(lab).setting.ipv6]
PACKETS6: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pod to pod on one node": ("single", "near", {}),
    "pod to pod on two nodes": ("single", "far", {}),
    "a ping of a pod": ("far", "single", {"protocol": "icmp"}),
    "UDP": ("single", "far", {"protocol": "udp", "port": 9999}),
    "pod to ClusterIP": ("single", "hoplab-verify/echo", {}),
    "pod to itself by a ClusterIP": ("far", "hoplab-verify/echo", {}),
    "pod to its node": ("single", "node", {}),
    "a ping of another node": ("single", "other", {"protocol": "icmp"}),
    "node to node": ("worker1", "worker2", {}),
    "node to ClusterIP": ("worker1", "hoplab-verify/echo", {}),
    "node to its own pod": ("node", "single", {}),
    "node to pod elsewhere": ("other", "single", {}),
    "outside to node": ("outside", "worker1", {}),
    "outside to ingress": ("outside", "app1-service", {"via": "ingress"}),
    "outside to the ingress' port of the node": ("outside", "worker1:80", {}),
    "pod to outside": ("single", "outside", {}),
    "pod to an address far outside": ("far", "2001:db8::9", {}),
}
TUNNELS = {
    "vxlan": "VXLAN, VNI ",
    "ipip": "IPIP",
    "wireguard": "WireGuard",
    "bgp": "",
    "host-gw": "",
    "native": "",
}
SOCKET = f"{MAPS}, at the socket"  # where programs translate a connection without kube-proxy
PAGE = PROJECT / "docs" / "trace.md"
MARKS = ("<!-- generated: faults -->\n", "<!-- end of faults -->\n")


def between(lab: str, name: str, *, ipv6: bool = False) -> Trace:
    sender, receiver, options = (PACKETS6 if ipv6 else PACKETS)[name]
    known = pods(recording(lab))
    words = {"node": known["single"].node, "other": known["far"].node}
    return traced(recording(lab), words.get(sender, sender), words.get(receiver, receiver), ipv6=ipv6, **options)


def continuous(way: Way) -> bool:
    """Whether each hop follows from the one before: out of one place and into the next, in and out of the same."""
    for hops in (way.there, way.back):
        for hop, after in pairwise(hops):
            inside = hop.place == after.place
            wrapping = after.inner == hop.header or hop.inner == after.header
            if hop.direction == "out" and not inside and after.direction != "in":
                return False
            if hop.direction == "in" and not inside:
                return False
            if hop.direction == after.direction and not wrapping:
                return False
    return way.there[0].place == way.source and way.there[-1].place == way.target


@pytest.mark.parametrize("lab", RECORDED_LABS)
@pytest.mark.parametrize("name", PACKETS)
def test_a_packet_arrives_and_its_reply_returns(lab: str, name: str) -> None:
    require_complete(between(lab, name))


@pytest.mark.parametrize("lab", DUAL)
@pytest.mark.parametrize("name", PACKETS6)
def test_a_packet_of_ipv6_arrives_and_its_reply_returns(lab: str, name: str) -> None:
    found = between(lab, name, ipv6=True)
    require_complete(found)
    for way in found.ways:
        headers = [header for hop in (*way.there, *way.back) for header in (hop.header, hop.inner) if header]
        assert {address.version for header in headers for address in (header.src, header.dst)} == {6}
    if name == "outside to the ingress' port of the node":
        assert "ingress" in str(found.shown.target)


@pytest.mark.parametrize("lab", DUAL)
def test_the_packets_that_are_sent_through_such_a_lab_arrive(lab: str) -> None:
    found = recording(lab)
    assert set(packets_of(found)) - set(packets_of(recording("flannel-vxlan"))) == set(traced_packets.PACKETS6)
    for sender, receiver, options in traced_packets.PACKETS6.values():
        require_complete(traced(found, sender, receiver, **options))


def require_complete(found: Trace) -> None:
    for trace in (found, *found.then):
        for way in trace.ways:
            assert way.end is None, way.end
            assert way.arrives and way.bends == ()
            assert continuous(way), way
            assert way.back[0].place == way.target and way.back[-1].place == way.source
            assert all(hop.evidence == "inferred" for hop in (*way.there, *way.back))
            got, sent = way.back[-1].header, way.header
            if any(event.where == SOCKET for event in way.there[0].events):  # which the sender's program does not see
                restored = way.back[-1].events[-1]
                assert restored.where == SOCKET
                assert f" becomes {with_port(sent.dst, sent.dport)} > " in restored.result
            elif way.source.kind != "node":  # a node restores the addresses of its own connections after this hop
                assert (got.src, got.sport, got.dst) == (sent.dst, sent.dport, sent.src)
    assert found.complete
    assert not [note for note in found.notes if "could not be evaluated" in note]


@pytest.mark.parametrize("lab", RECORDED_LABS)
@pytest.mark.parametrize("ipv6", [False, True])
def test_between_nodes_it_travels_as_the_backend_says(lab: str, ipv6: bool) -> None:
    if ipv6 and lab not in DUAL:
        return
    backend = recording(lab).setting.backend
    [way] = between(lab, "pod to pod on two nodes", ipv6=ipv6).ways
    for hops in (way.there, way.back):
        wrapped = {hop.wrapped for hop in hops if hop.inner}
        assert len(wrapped) == (1 if TUNNELS[backend] else 0)
        assert all(how.startswith(TUNNELS[backend]) for how in wrapped)
        assert len([hop for hop in hops if hop.place.kind == "node" and hop.interface == "eth0"]) == 2


@pytest.mark.parametrize(("lab", "ipv6"), [*((lab, False) for lab in RECORDED_LABS), *((lab, True) for lab in DUAL)])
def test_a_service_leads_to_each_endpoint_with_the_same_share(lab: str, ipv6: bool) -> None:
    found = between(lab, "pod to ClusterIP", ipv6=ipv6)
    known = pods(recording(lab))
    assert {str(way.target) for way in found.ways} == {f"pod {known['near']}", f"pod {known['far']}"}
    assert [way.share for way in found.ways] == pytest.approx([0.5, 0.5])
    for way in found.ways:
        [dnat] = [event for hop in way.there for event in hop.events if event.kind == "dnat"]
        assert f"becomes {with_port(way.back[0].header.src, 8080)}" in dnat.result
        assert dnat.where.startswith(MAPS) if by_programs(recording(lab)) else "dnat" in dnat.text.lower()
        assert any(event.kind == "restored" for hop in way.back for event in hop.events)


@pytest.mark.parametrize(("lab", "ipv6"), [*((lab, False) for lab in RECORDED_LABS), *((lab, True) for lab in DUAL)])
def test_what_leaves_is_masqueraded(lab: str, ipv6: bool) -> None:
    [way] = between(lab, "pod to outside", ipv6=ipv6).ways
    [snat] = [event for hop in way.there for event in hop.events if event.kind == "snat"]
    assert "masquerade" in snat.text.lower()
    assert way.target == OUTSIDE
    home = pods(recording(lab))["single"].node
    setting = recording(lab).setting
    own = setting.nodes6[home] if ipv6 else setting.nodes[home]
    assert way.there[-1].header.src == own == way.back[0].header.dst


@pytest.mark.parametrize("lab", RECORDED_LABS)
def test_an_ingress_controller_opens_a_connection_of_its_own(lab: str) -> None:
    found = between(lab, "outside to ingress")
    [inner] = found.then
    assert "ingress" in str(found.shown.target)
    assert inner.shown.source == found.shown.target
    assert "app1-service" in str(inner.shown.target)


@pytest.mark.parametrize("lab", RECORDED_LABS)
def test_a_service_without_endpoints_is_refused_by_a_rule_or_a_program(lab: str) -> None:
    way = traced(recording(lab), "single", "nobody").shown
    assert way.end and not way.arrives
    programs = by_programs(recording(lab))
    assert (way.end.kind, way.end.at.name) == ("program" if programs else "rule", pods(recording(lab))["single"].node)
    if programs:
        assert way.end.cause.endswith(" ClusterIP: no backend") and "refuses " in way.end.why
    else:
        assert "reject" in way.end.cause.lower() and "rejects it" in way.end.why
    assert way.end.missing == "service hoplab-verify/nobody"


def test_a_load_balancers_address_comes_in_by_its_announcer() -> None:
    lab = recording("flannel-vxlan")
    for service, node in (("announced", "worker1"), ("announced-local", "worker2")):
        found = traced(lab, "outside", service, via="loadbalancer")
        assert found.complete and found.shown.there[1].place.name == node


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.file)
def test_a_fault_ends_a_packet_at_its_place(fault: TracedFault) -> None:
    found = trace_of(fault)
    way = found.shown
    at = f"pod {pods(recording(f'broken/{fault.file}'))['near']}" if fault.at == "near" else fault.at
    if fault.kind == BENDS:
        assert way.end is None and way.bends
        assert any(at in bend and fault.cause in bend for bend in way.bends), way.bends
    else:
        assert way.end and not found.complete
        assert (str(way.end.at), way.end.kind) == (at, fault.kind), way.end
        assert fault.cause in way.end.cause
        assert way.end.missing and way.end.why


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if "ipv6" in fault.options], ids=lambda fault: fault.file)
def test_a_fault_of_ipv6_accuses_nobody_of_what_becomes_of_ipv4(fault: TracedFault) -> None:
    lab = recording(f"broken/{fault.file}")
    for sender, receiver in (("single", "far"), ("single", "hoplab-verify/echo"), ("near", "outside")):
        assert traced(lab, sender, receiver).complete


@pytest.mark.parametrize("file", sorted(PASSING))
def test_a_fault_beside_the_way_accuses_nobody(file: str) -> None:
    lab = recording(f"broken/{file}")
    for sender, receiver in (("single", "far"), ("single", "hoplab-verify/echo"), ("near", "outside")):
        found = traced(lab, sender, receiver)
        assert found.complete and not any(way.bends for way in found.ways)


def test_every_broken_recording_is_traced() -> None:
    broken = RECORDINGS / "broken"
    files = {str(file.relative_to(broken).with_suffix("")) for file in broken.rglob("*.json")}
    assert files == {fault.file for fault in FAULTS} | PASSING


@pytest.mark.docs
def test_the_page_has_the_table_of_faults() -> None:
    """UPDATE_GOLDEN=1 writes it anew."""
    rows = ["| broken lab | packet | ends at | by |", "|---|---|---|---|"]
    for fault in FAULTS:
        way = trace_of(fault).shown
        end = way.end
        at = str(end.at) if end else "arrives, bent"
        by = f"{end.kind}: `{end.cause}`" if end else way.bends[0].replace("|", "\\|")
        rows.append(f"| {fault.name} | `{fault.command}` | {at} | {by} |")
    before, rest = PAGE.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    wanted = f"{before}{MARKS[0]}\n" + "\n".join(rows) + f"\n\n{MARKS[1]}{after}"
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(wanted)
    assert PAGE.read_text() == wanted, "if that is intended: UPDATE_GOLDEN=1 ./lab test --fast"
