"""Traces as text, compared with golden files, and as JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any

import pytest

from hoplab.core.paths import PROJECT
from hoplab.trace import render
from hoplab.trace.follow import follow
from tests.support.files import GOLDEN
from tests.support.recordings import recording
from tests.support.traced_faults import FAULTS, trace_of, traced

Golden = Callable[[str, str], None]
PAGE = PROJECT / "docs" / "trace.md"


@pytest.mark.parametrize(
    ("name", "lab", "sender", "receiver", "options"),
    [
        ("flannel_vxlan_pods", "flannel-vxlan", "single", "far", {}),
        ("flannel_vxlan_nodeport", "flannel-vxlan", "outside", "single", {"via": "nodeport"}),
        ("calico_ipip_service", "calico-ipip", "single", "hoplab-verify/echo", {}),
        ("flannel_wireguard_ingress", "flannel-wireguard", "outside", "app1-service", {"via": "ingress"}),
        ("flannel_nft_outside", "flannel-nft-vxlan-nftables", "single", "outside", {}),
        ("no_endpoints", "flannel-vxlan", "single", "nobody", {}),
        ("cilium_vxlan_service", "cilium-vxlan", "single", "hoplab-verify/echo", {}),
        ("cilium_no_endpoints", "cilium-vxlan", "single", "nobody", {}),
        ("flannel_dual_service_ipv6", "flannel-vxlan-dual", "single", "hoplab-verify/echo", {"ipv6": True}),
        ("calico_dual_outside_ipv6", "calico-bgp-dual", "single", "outside", {"ipv6": True, "protocol": "icmp"}),
        ("fdb_entry_gone", "broken/an-fdb-entry-is-gone", "far", "single", {}),
    ],
)
def test_it_reads_so(golden: Golden, name: str, lab: str, sender: str, receiver: str, options: dict[str, Any]) -> None:
    known = {"single": "service/single"} if options else {}
    found = traced(recording(lab), sender, known.get(receiver, receiver), **options)
    golden(f"trace_{name}.txt", render.text(found))


@pytest.mark.docs
def test_the_page_shows_real_traces() -> None:
    """UPDATE_GOLDEN=1 writes the golden files into it."""

    def shown(found: re.Match[str]) -> str:
        text = (GOLDEN / f"trace_{found[1]}.txt").read_text()
        return f"<!-- golden: {found[1]} -->\n\n```\n{text}```\n"

    before = PAGE.read_text()
    wanted = re.sub(r"<!-- golden: (\w+) -->\n(?:\n```\n.*?```\n)?", shown, before, flags=re.DOTALL)
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(wanted)
    assert PAGE.read_text() == wanted, "if that is intended: UPDATE_GOLDEN=1 ./lab test --fast"
    assert before.count("<!-- golden: ") == 5


def test_a_bent_packet_has_a_note() -> None:
    bent = next(fault for fault in FAULTS if fault.file == "pod-to-pod-is-masqueraded")
    text = render.text(trace_of(bent))
    assert "and the reply returns" in text
    assert "\nnote      `-A POSTROUTING -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE` in iptables nat" in text


def test_a_way_that_rules_may_draw_is_said_with_its_share() -> None:
    lab = recording("broken/an-fdb-entry-is-gone")
    found = follow(lab, "single-659bfc6785-8hptb", "hoplab-verify/echo")
    assert render.outcome(found) == (
        "does not arrive: it ends at node worker2 (one of 2 ways that rules may draw, 50% of connections; "
        "1 of them does not arrive and return)"
    )


def test_as_json() -> None:
    found = traced(recording("flannel-vxlan"), "outside", "app1-service", via="ingress")
    document = json.loads(json.dumps(render.as_json(found)))
    assert document["complete"] and document["from"] == "outside" and len(document["then"]) == 1
    [way] = document["ways"]
    assert way["returns"] and way["end"] is None and way["share"] == 1
    hop = way["there"][1]
    assert (hop["place"], hop["interface"], hop["direction"], hop["evidence"]) == (
        "node worker1",
        "eth0",
        "in",
        "inferred",
    )
    assert hop["packet"] == {"src": "192.168.77.1", "dst": "192.168.77.20", "protocol": "tcp", "sport": 0, "dport": 80}
    [dnat] = [event for event in hop["events"] if event["kind"] == "dnat"]
    assert dnat["text"].endswith("-j DNAT --to-destination 10.244.1.3:8080")
    assert dnat["where"] == "iptables nat, PREROUTING > CNI-HOSTPORT-DNAT > CNI-DN-1dc599714cecebe51dc39"


def test_the_end_and_what_is_carried_as_json() -> None:
    gone = next(fault for fault in FAULTS if fault.file == "an-fdb-entry-is-gone")
    document = render.as_json(trace_of(gone))
    end = document["ways"][0]["end"]
    assert not document["complete"]
    assert (end["last"], end["at"], end["kind"]) == ("node worker2", "node worker2", "fdb")
    healthy = render.as_json(traced(recording("flannel-vxlan"), "single", "far"))
    carried = [hop["carries"] for hop in healthy["ways"][0]["there"] if hop["carries"]]
    assert [found["how"] for found in carried] == ["VXLAN, VNI 1"] * 2
    assert carried[0]["packet"]["dst"] == "10.244.1.6"
