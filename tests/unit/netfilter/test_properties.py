"""Walks: no rules, however odd, end in anything but an answer; the rules of real nodes drop nothing between pods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hoplab.core.errors import FactError
from hoplab.netfilter.hooks import Firewall, Traversal, reply_to
from hoplab.netfilter.packet import Packet
from hoplab.observe.facts import Facts
from hoplab.observe.script import Output
from tests.support.files import CAPTURED
from tests.support.recordings import recording

POD, OTHER = IPv4Address("10.244.0.5"), IPv4Address("10.244.1.5")
PACKETS = (
    Packet(POD, OTHER, in_dev="cni0", out_dev="eth0", port_in="veth1"),
    Packet(POD, OTHER, "udp", 53, in_dev="cni0", out_dev="cni0", port_in="veth1", port_out="veth2"),
    Packet(POD, IPv4Address("10.96.0.10"), "udp", 53, out_dev="eth0", src_is_local=True, mark=0x4000),
)
RULES = "\n".join(
    [
        "*filter",
        *(f":{chain} ACCEPT [0:0]" for chain in ("INPUT", "FORWARD", "OUTPUT")),
        ":USER - [0:0]",
        '-A FORWARD -j LOG --log-prefix "-- IN -- DROP " --log-level 6',
        '-A FORWARD -m comment --comment "-- it\\\'s \\"quoted\\" --" -j USER',
        "-A FORWARD -s 10.0.0.0/255.0.255.0 -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP",
        "-A FORWARD -p tcp -m multiport --dports 80,443,8000:8010 -m iprange --src-range 10.0.0.1-10.0.0.9 -j ACCEPT",
        "-A FORWARD -m statistic --mode nth --every 7 --packet 0 -j DROP",
        "-A FORWARD -m mark ! --mark 0xe00/0xf00 -m set --match-set KUBE dst,dst -j MARK --set-xmark 0xc00/0xf00",
        "-A USER -m limit --limit 3/min -m conntrack --ctstate NEW,DNAT --ctproto 17 -g USER",
        "-A USER -m recent --rcheck --seconds 10 --name x --mask 255.255.255.255 --rsource -j RETURN",
        "COMMIT",
        "*nat",
        ":PREROUTING ACCEPT [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        "-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.1.2-10.244.1.5:8080-8090",
        "-A PREROUTING -m addrtype --dst-type LOCAL -j REDIRECT --to-ports 15001",
        "-A OUTPUT -m owner --uid-owner 1337 -j CONNMARK --restore-mark",
        "COMMIT",
        "",
    ]
)
SETS = "create KUBE hash:ip,port family inet netmask 24\nadd KUBE 10.96.0.10,udp:53\nadd KUBE 10.96.0.0/16,tcp:80-90\n"
NFTABLES = [(CAPTURED / f"nft-{name}.json").read_text() for name in ("kube-proxy", "ruleset", "other")]
examples = settings(max_examples=25, deadline=None)


def traversed(iptables: str, nftables: str = "", ipset: str = SETS) -> list[Traversal]:
    """What happens to some packets and their replies."""
    texts = {"iptables": iptables, "iptables_legacy": iptables, "nft_ruleset": nftables, "ipset": ipset}
    texts |= {"addresses": "[]", "sysctls": "/proc/sys/net/bridge/bridge-nf-call-iptables:1\n"}
    firewall = Firewall(Facts("worker1", {name: Output(0, text) for name, text in texts.items()}))
    try:
        return [firewall.traverse(sent) for packet in PACKETS for sent in (packet, reply_to(packet))]
    except FactError:  # the parser has refused the whole text
        assume(False)
        raise


def edited(data: st.DataObject, text: str) -> str:
    """A text with some characters replaced."""
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 6)))
        more = st.sampled_from(["", " ", "\n", '"', "!", "-", ":", "=", "0", "/", ",", "-j ", "-m ", "x"])
        text = text[:start] + data.draw(more) + text[end:]
    return text


@given(data=st.data())
@examples
def test_no_rules_of_iptables_crash_the_walk(data: st.DataObject) -> None:
    for found in traversed(edited(data, RULES), ipset=edited(data, SETS) if data.draw(st.booleans()) else SETS):
        assert str(found) and (found.drops or found.packets)


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a JSON document: the list or object it is in, and its index or key there."""
    if isinstance(document, dict | list):
        for key in list(document if isinstance(document, dict) else range(len(document))):
            yield document, key
            yield from places(document[key])


values: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-1, 70000) | st.text("abc0:./-@{ ", max_size=6) | st.builds(list)
)


@given(data=st.data())
@examples
def test_no_rules_of_nftables_crash_the_walk(data: st.DataObject) -> None:
    line = data.draw(st.sampled_from([line for text in NFTABLES for line in text.splitlines() if line.strip()]))
    document = json.loads(line)
    for _ in range(data.draw(st.integers(1, 4))):
        container, key = data.draw(st.sampled_from(list(places(document)) or [([None], 0)]))
        container[key] = data.draw(values)
    for found in traversed("", json.dumps(document)):
        assert str(found)


def test_rules_of_real_nodes_drop_nothing_between_pods() -> None:
    for name in ("flannel-vxlan", "calico-vxlan"):
        lab = recording(name)
        for node in lab.nodes:
            outputs = {fact: node.facts.outputs[fact].out for fact in ("iptables", "nftables", "ipset")}
            for found in traversed(outputs["iptables"], outputs["nftables"], outputs["ipset"])[2:4]:
                assert not found.drops
