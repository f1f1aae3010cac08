"""What ends a packet, each in a recording with one thing edited: the place, the cause and the sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hoplab.core.errors import FactError, UnavailableError
from hoplab.observe.outage import Outage
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.trace.follow import follow
from hoplab.trace.model import End
from hoplab.trace.render import outcome
from tests.support.edits import FIRST, HEALTHY, POD, SECOND, changed, edited_facts, in_pod, on_node, without
from tests.support.recordings import recording
from tests.support.traced_faults import traced


def end_of(lab: Snapshot, sender: str, receiver: str, **options: Any) -> End:
    end = traced(lab, sender, receiver, **options).shown.end
    assert end
    return end


def with_rule(table: str, rule: str, *, last: bool = False) -> Callable[[str], str]:
    """Add a rule to an iptables-save: before the others of its table, or after them."""

    def edit(text: str) -> str:
        before, start, rest = text.partition(f"*{table}\n")
        body, end, after = rest.partition("COMMIT\n")
        lines = body.splitlines(keepends=True)
        at = len(lines) if last else next(n for n, line in enumerate(lines) if not line.startswith(":"))
        return before + start + "".join([*lines[:at], f"{rule}\n", *lines[at:]]) + end + after

    return edit


@pytest.mark.parametrize(
    ("table", "rule", "reply", "node"),
    [
        ("filter", "-A FORWARD -s 10.244.0.0/16 -p tcp -m tcp --dport 8080 -j DROP", False, FIRST.name),
        ("filter", "-A FORWARD -p tcp -m tcp --sport 8080 -j DROP", True, FIRST.name),
        ("filter", "-A OUTPUT -p udp -m udp --dport 8472 -j DROP", False, FIRST.name),
        (
            "filter",
            "-A INPUT -p udp -m udp --dport 8472 -j REJECT --reject-with icmp-port-unreachable",
            True,
            FIRST.name,
        ),
        ("nat", "-A POSTROUTING -o eth0 -j DROP", False, FIRST.name),
    ],
)
def test_a_rule_that_drops_it(table: str, rule: str, reply: bool, node: str) -> None:
    end = end_of(on_node("iptables", with_rule(table, rule)), "single", "far")
    assert (end.kind, end.at.name, end.cause, end.reply) == ("rule", node, rule, reply)
    chain = rule.split()[1]
    assert end.why.startswith(f"`{rule}` in iptables {table}, {chain} of node {node} ")


def test_a_policy_that_drops_it() -> None:
    def policy(text: str) -> str:
        before, start, rest = text.partition("*filter\n")
        return before + start + rest.replace(":INPUT ACCEPT", ":INPUT DROP", 1)

    end = end_of(on_node("iptables", policy, HEALTHY, SECOND.name), "outside", SECOND.name)
    assert (end.kind, end.cause, end.at.name) == ("rule", "policy DROP", SECOND.name)
    assert end.why == f"`policy DROP` in iptables filter, chain INPUT of node {SECOND.name} drops it"


def test_what_a_strict_reverse_path_filter_drops() -> None:
    def astray(text: str) -> str:
        routes = json.loads(text)
        return json.dumps([*routes, {"dst": "10.244.1.6", "gateway": "192.168.77.1", "dev": "eth0", "table": "main"}])

    lab = on_node("routes", astray)
    lab = on_node("sysctls", lambda text: text.replace("all/rp_filter:0", "all/rp_filter:1"), lab)
    end = end_of(lab, "far", "single")
    assert (end.kind, end.cause, end.at.name) == ("sysctl", "net.ipv4.conf.all.rp_filter is 1", FIRST.name)
    assert "flannel.1 drops what comes from 10.244.1.6" in end.why


def test_a_route_that_refuses_it() -> None:
    lab = recording("calico-bgp")
    pod = next(pod for pod in lab.pods if pod.api.label("app") == "single")
    gone = edited_facts(lab.node_facts[pod.node.name], "routes", without(dst=str(pod.address)))
    lab = replace(lab, node_facts={**lab.node_facts, pod.node.name: gone})
    end = end_of(lab, "far", "single")
    assert (end.kind, end.at.name, end.missing) == ("route", pod.node.name, f"pod {pod}")
    assert end.cause.startswith("blackhole ") and end.why == f"`{end.cause}` of node {pod.node.name} refuses it"


def test_a_host_end_that_answers_for_nobody() -> None:
    lab = recording("calico-bgp")
    pod = next(pod for pod in lab.pods if pod.api.label("app") == "single")
    assert pod.host_end
    was = f"conf/{pod.host_end.name}/proxy_arp:1"
    silent = edited_facts(lab.node_facts[pod.node.name], "sysctls", lambda text: text.replace(was, was[:-1] + "0"))
    end = end_of(replace(lab, node_facts={**lab.node_facts, pod.node.name: silent}), "single", "outside")
    assert (end.kind, end.cause) == ("sysctl", f"net.ipv4.conf.{pod.host_end.name}.proxy_arp = 0")
    assert str(end.last) == f"pod {pod}" and end.missing == f"node {pod.node.name}"


def test_an_interface_that_does_not_forward() -> None:
    was = "net/ipv4/conf/flannel.1/forwarding:"
    end = end_of(on_node("sysctls", lambda text: text.replace(f"{was}1", f"{was}0")), "far", "single")
    assert (end.kind, end.cause, end.at.name) == ("sysctl", "net.ipv4.conf.flannel.1.forwarding = 0", FIRST.name)


def test_routes_that_lead_in_a_circle() -> None:
    """Both nodes send what is for one pod to each other."""

    def to(gateway: str) -> Callable[[str], str]:
        route = {"dst": "10.244.1.6", "gateway": gateway, "dev": "eth0", "table": "main"}
        return lambda text: json.dumps([*json.loads(text), route])

    lab = on_node("routes", to(str(SECOND.address)))
    lab = on_node("routes", to(str(FIRST.address)), lab, SECOND.name)
    end = end_of(lab, "single", "far")
    assert end.kind == "loop" and end.cause.startswith("10.244.1.6/32 via ") and "in circles" in end.why


@pytest.mark.parametrize(
    ("fact", "edit", "kind", "cause"),
    [
        ("links", changed({"ifname": "flannel.1"}, flags=["BROADCAST"]), "link", "flannel.1"),
        ("links", without(ifname="flannel.1"), "link", "flannel.1"),
        ("links", without(ifname="cni0"), "link", "cni0"),
    ],
)
def test_an_interface_that_is_down_or_gone(fact: str, edit: Callable[[str], str], kind: str, cause: str) -> None:
    end = end_of(on_node(fact, edit), "single", "far")
    assert end.kind == kind and cause in end.cause and end.at.name == FIRST.name
    assert end.why.endswith(("is down", f"has no interface {cause}"))


@pytest.mark.parametrize("kind", ["dummy", "gre"])
def test_an_interface_of_which_facts_say_nothing(kind: str) -> None:
    def edit(text: str) -> str:
        links = json.loads(text)
        for link in links:
            if link["ifname"] == "flannel.1":
                link["linkinfo"]["info_kind"] = kind
        return json.dumps(links)

    found = traced(on_node("links", edit), "single", "far")
    assert found.shown.end and found.shown.end.kind == "unknown"
    assert f"flannel.1 {kind} mtu" in found.shown.end.cause
    assert outcome(found) == f"cannot be followed beyond node {FIRST.name}"


def test_a_tunnel_whose_ends_a_program_chooses() -> None:
    """Cilium's: no FDB entry is missing."""

    def edit(text: str) -> str:
        links = json.loads(text)
        for link in links:
            if link["ifname"] == "flannel.1":
                link["linkinfo"]["info_data"]["external"] = True
        return json.dumps(links)

    end = end_of(on_node("links", edit), "single", "far")
    assert (end.kind, end.at.name) == ("unknown", FIRST.name) and "a program may decide" in end.why


def test_a_tunnel_that_nobody_unwraps() -> None:
    end = end_of(on_node("links", without(ifname="flannel.1"), HEALTHY, SECOND.name), "single", "far")
    assert (end.kind, end.at.name) == ("link", SECOND.name)
    assert end.why == f"node {SECOND.name} has no interface that unwraps VXLAN, VNI 1"


def test_a_mac_that_is_written_down_wrong() -> None:
    wrong = changed({"dst": str(SECOND.address)}, lladdr="02:00:00:00:00:09", state=["PERMANENT"])
    end = end_of(on_node("neighbours", wrong), "single", "far")
    assert (end.kind, end.at.name) == ("neighbour", FIRST.name)
    assert "sends to 02:00:00:00:00:09, which is written down for 192.168.77.20" in end.why


def test_a_sender_that_wireguard_does_not_allow() -> None:
    lab = recording("flannel-wireguard")
    far = next(p for p in lab.pods if p.api.label("app") == "echo" and p.node is not _single(lab).node)
    own = str(_single(lab).node.pod_cidr)
    facts = edited_facts(lab.node_facts[far.node.name], "wireguard", lambda text: text.replace(own, "203.0.113.0/24"))
    end = end_of(replace(lab, node_facts={**lab.node_facts, far.node.name: facts}), "single", "far")
    assert (end.kind, end.at.name) == ("peer", far.node.name)
    assert "may send as" in end.why and end.cause == f"no peer with allowed ips for {_single(lab).address}"


def test_one_of_two_interfaces_of_wireguard_has_the_peer() -> None:
    """flannel has one for each family."""

    def another(text: str) -> str:
        links = json.loads(text)
        own = next(link for link in links if link["ifname"] == "flannel-wg")
        return json.dumps([{**own, "ifname": "flannel-wg-v6", "ifindex": 99}, *links])

    lab = recording("flannel-wireguard")
    for node in lab.nodes:
        facts = edited_facts(lab.node_facts[node.name], "links", another)
        lab = replace(lab, node_facts={**lab.node_facts, node.name: facts})
    found = traced(lab, "single", "far")
    assert found.complete
    assert any(event.text == "WireGuard, by flannel-wg" for hop in found.shown.there for event in hop.events)


def test_an_address_that_a_pod_does_not_have() -> None:
    """Its node delivers it by a route for one address, as Calico's do; the pod has moved to another one."""
    lab = recording("calico-bgp")
    single = _single(lab)
    assert single.host_end
    wrong = {"dst": "10.244.9.9", "dev": single.host_end.name, "table": "main"}
    facts = edited_facts(
        lab.node_facts[single.node.name], "routes", lambda text: json.dumps([*json.loads(text), wrong])
    )
    lab = replace(lab, node_facts={**lab.node_facts, single.node.name: facts})
    end = end_of(lab, f"node/{single.node.name}", "10.244.9.9")
    assert end.kind == "neighbour" and end.cause == f"10.244.9.9/32 dev {single.host_end.name}"
    assert "no answer to its ARP request" in end.why


def test_a_pod_without_a_route() -> None:
    end = end_of(in_pod("routes", without(dst="default")), "near", "outside")
    assert (end.kind, end.cause, str(end.at)) == ("route", "no route to 192.168.77.1", f"pod {POD}")
    assert end.why == f"pod {POD} has no route to 192.168.77.1"


def test_a_pod_whose_veth_has_no_other_end() -> None:
    assert POD.host_end
    end = end_of(on_node("links", without(ifname=POD.host_end.name)), "near", "single")
    assert end.kind == "link" and end.why == f"eth0 of pod {POD} has no other end on node {FIRST.name}"


def test_what_is_for_a_port_that_nobody_has() -> None:
    end = end_of(HEALTHY, "outside", "worker1", port=81)
    assert (end.kind, end.cause) == ("socket", "no socket on TCP port 81")


def test_an_address_that_nobody_has() -> None:
    end = end_of(HEALTHY, "worker1", "192.168.77.99")
    assert end.kind == "neighbour" and "nobody on the lab network has 192.168.77.99" in end.why
    end = end_of(HEALTHY, "outside", "192.168.77.99")
    assert end.kind == "neighbour" and end.why == "no node answers ARP for 192.168.77.99"


def test_the_outside_does_not_reach_what_only_the_cluster_knows() -> None:
    end = end_of(HEALTHY, "outside", "hoplab-verify/echo")
    assert (end.kind, str(end.at)) == ("route", "outside")
    assert end.why.startswith("the outside has no route to 10.102.196.103")


def test_a_rule_that_cannot_be_evaluated_is_noted() -> None:
    rule = "-A FORWARD -m string --string GET --algo bm --to 65535 -j DROP"
    found = traced(on_node("iptables", with_rule("filter", rule)), "single", "far")
    assert found.complete
    assert any(
        note.startswith("could not be evaluated: iptables filter: `-A FORWARD -m string") for note in found.notes
    )


def test_facts_that_older_recordings_lack_are_noted() -> None:
    found = traced(HEALTHY, "single", "far")
    assert [note for note in found.notes if "were not recorded" in note]
    empty = {"nft_ruleset": Output(0, ""), "iptables_legacy": Output(0, "")}
    facts = {name: replace(f, outputs={**f.outputs, **empty}, _parsed={}) for name, f in HEALTHY.node_facts.items()}
    assert traced(replace(HEALTHY, node_facts=facts), "single", "far").notes == ()


def test_a_fact_that_a_way_depends_on_is_required() -> None:
    facts = HEALTHY.node_facts[FIRST.name]
    fewer = replace(facts, outputs={n: o for n, o in facts.outputs.items() if n != "fdb"}, _parsed={})
    lab = replace(HEALTHY, node_facts={**HEALTHY.node_facts, FIRST.name: fewer})
    with pytest.raises(FactError, match=f"fdb was not looked at on {FIRST.name}"):
        traced(lab, "single", "far")


def test_a_node_that_did_not_answer_is_not_accused() -> None:
    gone = {name: facts for name, facts in HEALTHY.node_facts.items() if name != SECOND.name}
    lab = replace(HEALTHY, node_facts=gone, outages=(Outage(SECOND.name, "worker1 does not answer"),))
    with pytest.raises(UnavailableError, match="worker1 does not answer"):
        follow(lab, "pod/hoplab-verify/single-659bfc6785-8hptb", "pod/hoplab-verify/echo-w8kjg")


def test_a_ping_is_not_translated_to_an_endpoint() -> None:
    end = end_of(HEALTHY, "single", "hoplab-verify/echo", protocol="icmp")
    assert (end.kind, end.cause) == ("translation", "no translation of the destination 10.102.196.103")


def test_a_reply_that_comes_from_another_address() -> None:
    """Without masquerading, the endpoint's node answers the client of a NodePort itself (Calico; flannel masks it)."""
    lab = recording("calico-bgp")
    single = _single(lab)
    [entry] = [node for node in lab.nodes if node is not single.node]
    unmarked = edited_facts(entry.facts, "iptables", lambda text: re.sub(r".*-A KUBE-MARK-MASQ .*\n", "", text))
    end = end_of(replace(lab, node_facts={**lab.node_facts, entry.name: unmarked}), "outside", f"{entry.name}:30080")
    assert (end.kind, end.at.name, end.reply) == ("client", entry.name, True)
    got = f"the reply comes from {single.address}:8080: it is of no connection there"
    assert end.why == f"outside sent to {entry.address}:30080, and {got}"


def test_a_reply_that_a_bridge_passes_on_without_the_hooks_of_ip() -> None:
    """Then nothing restores the address of the service: the best known fault of services on a bridge."""
    was = "net/bridge/bridge-nf-call-iptables:"
    lab = on_node("sysctls", lambda text: text.replace(f"{was}1", f"{was}0"))
    end = end_of(lab, "single", "hoplab-verify/echo")
    assert (end.kind, end.at.name, end.reply) == ("client", FIRST.name, True)
    assert end.cause == f"source {POD.address}:8080 is not 10.102.196.103:80"
    assert traced(lab, "single", "near").complete and traced(lab, "single", "service/single").complete


def test_node_and_pod_by_their_addresses() -> None:
    found = follow(HEALTHY, "10.244.0.6", "192.168.77.20")
    assert (found.source, found.target) == (f"pod {_single(HEALTHY)}", "node worker1")
    assert found.complete


def _single(lab: Snapshot) -> Any:
    return next(pod for pod in lab.pods if pod.api.label("app") == "single")
