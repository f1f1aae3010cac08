"""Packets of full size: the paths, the sizes, and what is said where none arrives."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from hoplab.observe.script import Output
from hoplab.verify import full_size
from hoplab.verify.claims import ClaimFailed
from hoplab.verify.session import LabSession
from tests.support.edits import POD, changed, edited_facts, in_pod, on_node
from tests.support.imaginary.traffic import RECORDED, World


def told(session: LabSession) -> list[tuple[str, int]]:
    """Each path in words, without the names of pods, and its size."""
    name = r"hoplab-verify/([a-z0-9]+)\S*"
    return [(re.sub(name, r"\1", str(path)), path.size) for path in full_size.paths(session)]


def test_each_node_sends_to_one_target_of_each_kind() -> None:
    assert told(World().session())[:6] == [
        ("echo on worker1 to app1 on worker1", 1450),
        ("echo on worker1 to worker1", 1450),
        ("echo on worker1 to the outside", 1450),
        ("echo on worker1 to echo on worker2", 1450),
        ("worker1 to echo on worker2", 1450),
        ("worker1 to worker2", 1500),
    ]
    assert len(told(World().session())) == 12


def test_without_an_outside_nothing_is_sent_there() -> None:
    assert "the outside" not in str(told(replace(World().session(), outside=False)))


def test_the_smaller_mtu_counts() -> None:
    lab = on_node("links", lambda text: text.replace('"mtu":1500', '"mtu":1400'), RECORDED, "worker2")
    sizes = dict(told(World(lab=lab).session()))
    assert sizes["worker1 to worker2"] == 1400
    assert sizes["worker2 to echo on worker1"] == 1350
    assert sizes["worker1 to echo on worker2"] == 1450


def test_a_path_is_a_command() -> None:
    paths = full_size.paths(World().session())
    assert paths[5].command(1500) == "ping -n -c 1 -w 10 -M do -s 1472 192.168.77.21"
    assert re.fullmatch(r"nsenter --net=/run/netns/cni-\S+ ping .* -s 1422 192\.168\.77\.20", paths[1].command(1450))


def test_a_node_without_its_uplink() -> None:
    lab = on_node("links", lambda text: text.replace('"eth0"', '"eth1"'), RECORDED, "worker2")
    with pytest.raises(ClaimFailed, match="worker2 has no eth0"):
        told(World(lab=lab).session())


def test_a_pod_without_its_interface() -> None:
    pod = World().session().echo_pods[0]
    lab = in_pod("links", lambda text: text.replace('"eth0"', '"eth1"'), RECORDED, pod)
    with pytest.raises(ClaimFailed, match=f"{pod} has no eth0"):
        told(World(lab=lab).session())


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (
            Output(1, "", "ping: local error: message too long, mtu=1400\n"),
            "ping: local error: message too long, mtu=1400",
        ),
        (
            Output(1, "PING 10.244.1.5\nFrom 10.244.0.1 icmp_seq=1 Frag needed and DF set (mtu = 1300)\n\n3 sent\n"),
            "From 10.244.0.1 icmp_seq=1 Frag needed and DF set (mtu = 1300)",
        ),
        (Output(1, "PING 10.244.1.5\n\n10 packets transmitted, 0 received\n"), "10 packets transmitted, 0 received"),
        (Output(124, ""), "ping says nothing"),
    ],
)
def test_why_a_packet_did_not_arrive(output: Output, why: str) -> None:
    class Silent(World):
        def batch(self, node: str, commands: dict[str, str]) -> dict[str, Output]:  # type: ignore[override]
            return dict.fromkeys(commands, output)

    session = Silent().session()
    paths = full_size.paths(session)
    assert full_size.unanswered(session, paths) == dict.fromkeys(paths, why)
    assert full_size.largest(session, paths[0]) == 0


def test_the_largest_that_arrives() -> None:
    session = World(fits=1100).session()
    paths = full_size.paths(session)
    assert set(full_size.unanswered(session, paths)) == set(paths)
    assert full_size.largest(session, paths[0]) == 1000


def test_a_default_route_may_let_less_out_than_the_interface() -> None:
    pod = replace(POD)  # with nothing looked up yet
    assert pod.eth0 and pod.mtu == pod.eth0.mtu
    smaller = edited_facts(pod.facts, "routes", changed({"dst": "default"}, metrics=[{"mtu": 1400}]))
    assert replace(pod, facts=smaller).mtu == 1400
    without = edited_facts(pod.facts, "links", lambda _: "[]")
    assert replace(pod, facts=without).mtu is None
