"""A load balancer's address outlives the node that announces it: another one answers, and tells everybody so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hoplab.core.paths import LabPaths
from hoplab.observe import capture
from hoplab.observe.capture import Capture
from hoplab.observe.pcap import CapturedPacket
from hoplab.observe.snapshot import Node
from hoplab.verify.session import LabSession, opened
from tests.system.announcers import announcer, settled
from tests.system.conftest import LabCommand
from tests.system.faults import wait

pytestmark = pytest.mark.timeout(0)  # every command that is run has a bound of its own


@pytest.fixture(scope="module")
def session(lab: LabCommand, paths: LabPaths) -> Iterator[LabSession]:
    with opened(paths) as session:
        if session.snapshot.setting.load_balancer != "metallb":
            pytest.skip("the lab has no load balancer: lab:loadBalancer.name")
        yield session


def run(session: LabSession, node: Node, command: str) -> None:
    found = session.hosts.batch(node.name, {"it": command})["it"]
    assert found.code == 0, f"`{command}` on {node.name} ended with {found.code}: {found.err}"


@contextmanager
def heard(session: LabSession, node: Node) -> Iterator[Callable[[], list[CapturedPacket]]]:
    """What this node says to all of who has the address (gratuitous ARP), from now until it is asked for."""
    address = session.announced("announced")
    captures, place = {"arp": Capture("eth0", f"arp and host {address}")}, capture.new_place()
    started = session.hosts.batch(node.name, capture.start(captures, place))

    def said() -> list[CapturedPacket]:
        stopped = session.hosts.batch(node.name, capture.stop(captures, place))
        found = capture.read({**started, **stopped})["arp"]
        return [packet for packet in found if packet.src == packet.dst == address and packet.eth_src == mac(node)]

    yield said


def speaker(session: LabSession, node: Node) -> dict[str, Any]:
    """MetalLB's pod on the node; an empty one while there is none."""
    _, found = session.api("GET", "/api/v1/namespaces/metallb-system/pods?labelSelector=component%3Dspeaker")
    return next((pod for pod in found["items"] if pod["spec"].get("nodeName") == node.name), {"metadata": {}})


def test_the_address_moves_when_its_speaker_stands_still_and_comes_back(session: LabSession) -> None:
    """Nobody took leave: the other speaker has to notice. What it then says to all reaches who never asked again."""
    address = session.announced("announced")
    before = settled(session)
    (other,) = (node for node in session.snapshot.nodes if node is not before)
    with heard(session, other) as said:
        began = time.monotonic()
        try:
            run(session, before, "kill -STOP $(pidof metallb-speaker)")
            # a client that has talked to the old node does not ask again: gratuitous ARP changes what it knows
            wait(lambda: session.external.neighbour(address) == mac(other))
            took = time.monotonic() - began
            assert said(), "no gratuitous ARP"
            assert announcer(session) is other
            answer = session.request_from_outside(f"http://{address}/")
            assert answer, "the address does not answer by way of the other node"
        finally:
            run(session, before, "kill -CONT $(pidof metallb-speaker)")
    wait(lambda: announcer(session) is before)
    print(f"{address} moved from {before.name} to {other.name} after {took:.0f} s")


def test_the_address_moves_when_its_speaker_takes_leave(session: LabSession) -> None:
    """A speaker that is ended says so: the other one has the address until the DaemonSet has made another one."""
    before = settled(session)
    (other,) = (node for node in session.snapshot.nodes if node is not before)
    old = speaker(session, before)["metadata"]
    with heard(session, other) as said:
        session.api("DELETE", f"/api/v1/namespaces/metallb-system/pods/{old['name']}")
        wait(lambda: speaker(session, before)["metadata"].get("uid") not in (old["uid"], None))
        wait(lambda: announcer(session) is before)
        assert said(), f"{other.name} never had the address"


def mac(node: Node) -> str:
    eth0 = node.link("eth0")
    assert eth0
    return eth0.mac
