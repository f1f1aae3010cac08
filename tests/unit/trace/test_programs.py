"""Cilium's programs take a packet where it was seen on machines, and what ends it there, each by one thing edited."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hoplab.core.errors import FactError
from hoplab.netfilter.packet import EPHEMERAL
from hoplab.observe.facts import Facts
from hoplab.observe.snapshot import Snapshot
from hoplab.trace.model import OUTSIDE, Hop
from tests.support.edits import on_node
from tests.support.files import CAPTURED
from tests.support.recordings import recording
from tests.support.traced_faults import pods, traced
from tests.support.traced_packets import PACKETS, packets_of

VXLAN = recording("cilium-vxlan")
KNOWN = pods(VXLAN)
SINGLE, FAR = KNOWN["single"], KNOWN["far"]
OWN_END = next(pod.host_end.name for pod in VXLAN.pods if str(pod) == str(SINGLE) and pod.host_end)

Seen = dict[str, dict[str, list[str]]]  # packet -> "there" or "back" -> hops, in the order of the way


def seen(lab: str) -> Seen:
    found: Seen = {}
    for block in (CAPTURED / f"traced-{lab}.txt").read_text().split("\n\n")[1:]:
        name, *lines = block.splitlines()
        legs = found.setdefault(name, {"there": [], "back": []})
        for line in lines:
            leg, hop = line.split(maxsplit=1)
            legs[leg].append(_with_wild_ports(hop))
    return found


def _with_wild_ports(hop: str) -> str:
    return re.sub(r":(\d+)\b", lambda port: ":*" if int(port[1]) in EPHEMERAL else port[0], hop)


def _written(hop: Hop) -> str:
    dev = "-" if hop.place == OUTSIDE else f"{hop.interface} ({hop.port})" if hop.port else hop.interface
    carried = f" [{hop.wrapped}: {hop.inner}]" if hop.inner else ""
    return f"{hop.place}  {dev}  {hop.direction}  {hop.header}{carried}"


def _without_ports(hop: str) -> str:
    return re.sub(r"(10\.244\.\S+?):[0-9*]+", r"\1", hop)


SEEN = {lab: seen(lab) for lab in ("cilium-vxlan", "cilium-native-cilium")}


@pytest.mark.parametrize(("lab", "name"), [(lab, name) for lab, found in SEEN.items() for name in found])
def test_its_hops_are_those_that_were_seen(lab: str, name: str) -> None:
    sender, receiver, options = PACKETS[name]
    ways = traced(recording(lab), sender, receiver, **options).ways
    predicted = [{"there": list(map(_written, way.there)), "back": list(map(_written, way.back))} for way in ways]
    wanted = SEEN[lab][name]
    if name.startswith("UDP"):  # its answer is an error of ICMP, which has no ports
        assert not any(":9999" in hop for hop in wanted["back"])
        predicted = [way | {"back": list(map(_without_ports, way["back"]))} for way in predicted]
    assert wanted in predicted


@pytest.mark.parametrize("lab", SEEN)
def test_every_kind_of_packet_was_seen(lab: str) -> None:
    assert set(SEEN[lab]) == set(packets_of(recording(lab)))


Json = Any


def edited(fact: str, change: Callable[[Json], None], of: str = SINGLE.node, lab: Snapshot = VXLAN) -> Snapshot:
    """The lab with one fact of a node changed, as JSON."""

    def edit(text: str) -> str:
        raw = json.loads(text)
        change(raw)
        return json.dumps(raw)

    return on_node(fact, edit, lab, of)


def of_policy(number: str, content: Callable[[list[Json]], list[Json]]) -> Callable[[Json], None]:
    def change(maps: Json) -> None:
        for found in maps:
            if found["EndpointID"].lstrip("0") == number:
                found["Content"] = content(found["Content"])

    return change


def _gone(maps: Json) -> None:
    maps["10.108.105.156:80/TCP (1)"] = ["backend 7 not found"]
    maps["10.108.105.156:80/TCP (2)"] = ["backend 8 not found"]


def _without(*keys: str) -> Callable[[Json], None]:
    def change(found: Json) -> None:
        for key in keys:
            del found[key]

    return change


def _in_entry(was: str, now: str) -> Callable[[Json], None]:
    def change(found: Json) -> None:
        key = f"{FAR.address}:0"
        found[key] = [re.sub(was, now, found[key][0])]

    return change


def _denying(entries: list[Json]) -> list[Json]:
    return [{**entry, "Flags": 1} if entry["Key"]["Identity"] == 11 else entry for entry in entries]


def _allowing(identity: int, port: int, *, egress: bool = False) -> list[Json]:
    in_network_order = int.from_bytes(port.to_bytes(2, "big"), "little")
    key = {"Identity": identity, "TrafficDirection": int(egress), "Nexthdr": 6, "DestPortNetwork": in_network_order}
    return [{"Flags": 0, "Packets": 0, "Key": key}]


def _number(lab: Snapshot, address: object, node: str) -> str:
    [entry] = json.loads(lab.node_facts[node].outputs["cilium_endpoints"].out)[f"{address}:0"]
    found = re.match(r"id=(\d+)", entry)
    assert found
    return found[1]


OF_SINGLE, OF_FAR = _number(VXLAN, SINGLE.address, SINGLE.node), _number(VXLAN, FAR.address, FAR.node)
IDENTITY = 3358  # single's


@pytest.mark.parametrize(
    ("lab", "to", "at", "cause"),
    [
        (
            edited("cilium_policy", of_policy(OF_FAR, lambda _found: []), FAR.node),
            "far",
            FAR.node,
            f"no entry allows from identity {IDENTITY}, TCP port 8080",
        ),
        (
            edited("cilium_policy", of_policy(OF_FAR, lambda _found: _allowing(IDENTITY, 8081)), FAR.node),
            "far",
            FAR.node,
            f"no entry allows from identity {IDENTITY}, TCP port 8080",
        ),
        (edited("cilium_policy", of_policy(OF_FAR, _denying), FAR.node), "far", FAR.node, "denies from identity 11"),
        (
            edited("cilium_policy", of_policy(OF_SINGLE, lambda _found: [])),
            "near",
            SINGLE.node,
            "no entry allows to identity 36854, TCP port 8080",
        ),
        (
            edited("cilium_services", _gone),
            "hoplab-verify/echo",
            SINGLE.node,
            "10.108.105.156:80/tcp: slot 1 leads nowhere",
        ),
        (
            edited("cilium_endpoints", _without(f"{FAR.address}:0"), FAR.node),
            "far",
            FAR.node,
            f"no endpoint {FAR.address}",
        ),
        (
            edited("cilium_endpoints", _in_entry(r"ifindex=\d+", "ifindex=999"), FAR.node),
            "far",
            FAR.node,
            "no interface 999",
        ),
        (
            edited("cilium_endpoints", _in_entry(r"ifindex=\d+", "ifindex=2"), FAR.node),
            "far",
            FAR.node,
            "2: eth0 mtu 1500 up 52:54:00:a6:f4:80",
        ),
        (
            edited("cilium_endpoints", _in_entry(r" mac=\S+", " mac=02:00:00:00:00:01"), FAR.node),
            "far",
            FAR.node,
            f"{FAR.address} 02:00:00:00:00:01",
        ),
        (
            edited("cilium_ipcache", _without(f"{FAR.address}/32", "10.244.0.0/24")),
            "far",
            SINGLE.node,
            f"no owner of {FAR.address}",
        ),
    ],
    ids=[
        *("no entry", "an entry for another port", "an entry that denies", "no entry for what it sends"),
        *("no backend", "no endpoint", "no interface", "nobody's interface", "another MAC", "no owner"),
    ],
)
def test_a_program_ends_it(lab: Snapshot, to: str, at: str, cause: str) -> None:
    end = traced(lab, "single", to).shown.end
    assert end and (end.kind, end.at.name, end.cause, end.reply) == ("program", at, cause, False)
    assert f"node {at}" in end.why and end.missing


def test_what_an_entry_allows_arrives() -> None:
    lab = edited("cilium_policy", of_policy(OF_FAR, lambda _found: _allowing(IDENTITY, 8080)), FAR.node)
    assert traced(lab, "single", "far").complete
    assert not traced(lab, "near", "far").complete


def test_a_pod_reaches_itself_whatever_its_policies_are() -> None:
    lab = edited("cilium_policy", of_policy(OF_SINGLE, lambda _found: []))
    assert traced(lab, "single", "service/single").complete


def test_a_range_of_a_node_stands_for_its_pods() -> None:
    lab = edited("cilium_ipcache", _without(f"{FAR.address}/32"))
    [way] = traced(lab, "single", "far").ways
    assert way.end is None
    [event] = [event for hop in way.there[:2] for event in hop.events if event.kind == "program"]
    assert event.result == "10.244.0.0/24 identity 2 behind 192.168.77.21"


def test_without_a_program_the_kernels_rules_take_it() -> None:
    """kube-proxy's rules translate it then. Its reply is handed to the pod by a program, which knows of no service."""

    def detached(found: Json) -> None:
        found[0]["tc"] = [program for program in found[0]["tc"] if program["devname"] != OWN_END]

    lab = edited("bpf_programs", detached)
    way = traced(lab, "single", "hoplab-verify/echo").shown
    assert any(event.kind == "dnat" and "-j DNAT" in event.text for event in way.there[1].events)
    assert way.end and (way.end.kind, way.end.reply) == ("client", True)
    assert traced(lab, "single", "far").complete


def test_a_map_that_was_not_looked_at_is_required() -> None:
    facts = VXLAN.node_facts[SINGLE.node]
    fewer = Facts(facts.place, {name: out for name, out in facts.outputs.items() if name != "cilium_endpoints"})
    lab = replace(VXLAN, node_facts={**VXLAN.node_facts, SINGLE.node: fewer})
    with pytest.raises(FactError, match=f"cilium_endpoints was not looked at on {SINGLE.node}"):
        traced(lab, "single", "far")


def test_a_policy_map_that_is_not_there_is_noted_and_drops_nothing() -> None:
    def missing(maps: Json) -> None:
        maps[:] = [found for found in maps if found["EndpointID"].lstrip("0") != OF_SINGLE]

    found = traced(edited("cilium_policy", missing), "single", "far")
    assert found.complete
    assert f"whom {SINGLE.address} may talk to is not in the facts of node {SINGLE.node}" in found.notes


@pytest.mark.parametrize("name", ["cil_from_netdev", "cil_from_container"])
def test_other_programs_are_noted(name: str) -> None:
    lab = on_node("bpf_programs", lambda text: text.replace(name, "written_by_hand"), VXLAN, SINGLE.node)
    [note] = [note for note in traced(lab, "single", "far").notes if "eBPF" in note]
    assert note.startswith("programs of eBPF are not followed (written_by_hand): ")
    assert not [note for note in traced(VXLAN, "single", "far").notes if "eBPF" in note]
