"""Lessons about what drops a packet: healthy labs of every kind, and one rule more at some hook."""

from __future__ import annotations

import pytest

from hoplab.netfilter.hooks import Stop
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import packet_paths, requirements
from hoplab.verify.claims import Claim
from hoplab.verify.packet_paths import Leg, between_pods, checked, to_own_node
from tests.support import edits
from tests.support.edited.filters import (
    ALL_RULES,
    BETWEEN_NODES,
    FAULTS,
    HEALTHY,
    ON_ONE_NODE,
    THROUGH_SERVICES,
    TO_KUBELETS,
    TO_OUTSIDE,
    TO_THE_NODE,
    inserted,
    legacy,
    on_node,
    policy_is_drop,
    with_all_tables,
)
from tests.support.edits import FIRST, SECOND, Fault
from tests.support.lesson_functions import applies, failures, lessons, read_only
from tests.support.recordings import RECORDED_LABS, recording

pytestmark = pytest.mark.thorough

OURS = (ALL_RULES, ON_ONE_NODE, BETWEEN_NODES, TO_THE_NODE, TO_OUTSIDE, *THROUGH_SERVICES, TO_KUBELETS)


@pytest.mark.parametrize("name", RECORDED_LABS)
def test_nothing_is_dropped_on_a_healthy_lab(name: str) -> None:
    lab = with_all_tables(recording(name))
    assert failures(OURS, lab) == {}
    pods = [pod for pod in lab.pods if pod.api.namespace == "hoplab-verify"]
    found = checked(between_pods(pod, other, 80) for pod in pods for other in pods if pod is not other)
    assert found.legs > 20 and not found.unknown


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fails_exactly_its_lessons(fault: Fault) -> None:
    fault.fails_its_lessons()


def test_every_lesson_catches_some_fault() -> None:
    assert {name for fault in FAULTS for name in fault.caught_by} == set(OURS)
    assert {name for name in read_only() if applies(name, HEALTHY) and not applies(name, edits.HEALTHY)} == set(OURS)


def test_a_recording_without_the_facts_is_skipped_with_the_reason() -> None:
    for name in OURS:
        needs = {key: value for marker in lessons()[name].needs for key, value in marker.items()}
        assert requirements.skip_reason(edits.HEALTHY, **needs) == (
            "needs the fact nft_ruleset, which is younger than this recording"
        )


def saw(name: str, lab: Snapshot) -> str:
    claim = Claim()
    lessons()[name].function(lab=lab, claim=claim)
    return claim.seen


def test_a_rule_that_cannot_be_evaluated_is_mentioned_and_fails_nothing() -> None:
    rule = "-m mac --mac-source 02:00:00:00:00:01 -j DROP"
    lab = on_node("iptables", inserted("filter", "FORWARD", rule))()
    assert failures(OURS, lab) == {}
    seen = saw(BETWEEN_NODES, lab)
    assert seen.endswith(
        "unless a rule drops them that could not be evaluated: "
        f"`-A FORWARD {rule}` in iptables filter, chain FORWARD, of {FIRST.name}"
    )


def test_a_rule_of_a_form_that_is_not_known_is_mentioned_and_fails_nothing() -> None:
    lab = on_node("iptables", inserted("mangle", "KUBE-PROXY-CANARY", "-i eth0 of some new form -j ACCEPT"))()
    assert failures(OURS, lab) == {}
    assert saw(ALL_RULES, lab).endswith("and no other iptables has any; the lessons cannot read 1 rule of them")


def test_a_table_that_nobody_can_read_is_mentioned_once() -> None:
    lab = on_node("iptables", lambda text: f"{text}# Table `raw' is incompatible, use 'nft' tool.\n")()
    assert saw(ON_ONE_NODE, lab).endswith(
        f"evaluated: `# Table `raw' is incompatible, use 'nft' tool.` in iptables raw, of {FIRST.name}"
    )


def test_ordinary_rules_of_others_fail_nothing() -> None:
    """Docker, Istio, strongSwan, tailscale and ufw: rules that accept, count, mark or log, and those for others."""
    targets = (
        "CONNMARK --save-mark",
        "SET --add-set seen src --exist",
        "TEE --gateway 10.0.0.1",
        "DSCP --set-dscp 0x0a",
    )
    for table, chain, rule in (
        ("filter", "FORWARD", "-m state --state RELATED,ESTABLISHED -j ACCEPT"),
        ("filter", "FORWARD", "-s 10.0.0.0/255.0.255.0 -i eth9 -j DROP"),
        ("filter", "FORWARD", '-m limit --limit 3/min -j LOG --log-prefix "-- IN -- "'),
        ("filter", "FORWARD", "-i docker0 ! -o docker0 -j DROP"),
        ("nat", "POSTROUTING", "-m policy --dir out --pol ipsec -j ACCEPT"),
        ("nat", "PREROUTING", "-p tcp -m tcp --dport 8443 -j REDIRECT --to-ports 15001"),
        *(("nat", chain, f"-j {target}") for chain in ("PREROUTING", "POSTROUTING") for target in targets),
    ):
        assert failures(read_only(), on_node("iptables", inserted(table, chain, rule))()) == {}, rule
    assert failures(OURS, on_node("iptables_legacy", legacy())()) == {}  # tables, but no rule
    assert failures(OURS, on_node("iptables", policy_is_drop("filter"))()) == {}  # Docker's: flannel's rules accept


def test_the_first_drop_is_named_and_all_are_evidence() -> None:
    lab = on_node("iptables", inserted("filter", "FORWARD", "-j DROP"))()
    pod, other = [pod for pod in lab.pods if pod.node.name == FIRST.name and pod.api.namespace == "hoplab-verify"][:2]
    found = checked([between_pods(pod, other, 8080)])
    assert found.evidence == (f"`-A FORWARD -j DROP` in iptables filter, chain FORWARD, of {FIRST.name}, hook forward",)
    assert found.why.startswith(f"`-A FORWARD -j DROP` in iptables filter, chain FORWARD, of {FIRST.name} drops tcp ")
    assert isinstance(found.drops[0], tuple) and isinstance(found.drops[0][1], Stop)


def test_paths_follow_the_facts() -> None:
    pod = edits.POD
    other = next(found for found in edits.HEALTHY.pods if found.node is SECOND)
    there, back, arrives, answered, sent, received = between_pods(pod, other, 8080)
    assert pod.host_end and other.host_end
    assert (there.packet.in_dev, there.packet.port_in, there.packet.out_dev) == ("cni0", pod.host_end.name, "flannel.1")
    assert (back.packet.in_dev, back.packet.out_dev, back.packet.state) == ("flannel.1", "cni0", "ESTABLISHED")
    assert (arrives.node.name, arrives.packet.in_dev, arrives.packet.port_out) == (
        SECOND.name, "flannel.1", other.host_end.name
    )  # fmt: skip
    assert {leg.packet.reverse_path for leg in (there, back, arrives, answered, received)} == {True}
    assert (str(sent), sent.node.name) == (f"VXLAN, udp {FIRST.address} to {SECOND.address}:8472", FIRST.name)
    assert (received.node.name, received.packet.in_dev, received.packet.dst_is_local) == (SECOND.name, "eth0", True)
    neighbour = next(found for found in edits.HEALTHY.pods if found.node is pod.node and found is not pod)
    assert all(leg.packet.bridged for leg in between_pods(pod, neighbour, 8080))
    asked, answer = to_own_node(pod)
    assert (asked.packet.dst_is_local, answer.packet.in_dev, answer.packet.out_dev) == (True, "", "cni0")


def test_other_networks_wrap_packets_in_other_ways() -> None:
    def outer(name: str) -> set[str]:
        lab = recording(name)
        pod, other = (pod for pod in lab.pods if pod.api.label("app") == "echo")
        return {str(leg) for leg in between_pods(pod, other, 80) if leg.what not in ("", "a reply,")}

    (wireguard,) = outer("flannel-wireguard")
    assert wireguard.startswith("WireGuard, udp 192.168.77.") and wireguard.endswith(":51820")
    (ipip,) = outer("calico-ipip")
    assert ipip.startswith("IPIP, ipencap 192.168.77.")
    assert outer("flannel-host-gw") == outer("calico-bgp") == set()


def test_a_part_that_facts_do_not_show_is_left_out() -> None:
    lab = edits.on_node("routes", lambda _: "[]", HEALTHY)
    first, second = (
        next(pod for pod in lab.pods if pod.node.name == node.name and pod.api.label("app") == "echo")
        for node in (FIRST, SECOND)
    )
    assert list(between_pods(first, second, 80)) == list(between_pods(second, first, 80)) == []
    gone = edits.on_node("links", lambda _: "[]", HEALTHY)
    pod = next(pod for pod in gone.pods if pod.node.name == FIRST.name)
    assert [leg.packet.in_dev for leg in to_own_node(pod)] == ["", ""]
    assert packet_paths.FACTS == ("nft_ruleset", "iptables_legacy") and isinstance(next(to_own_node(pod)), Leg)
