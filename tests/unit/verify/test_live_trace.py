"""`./lab trace` on a lab: which relays it starts, and what it says of one that does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hoplab.core.paths import LabPaths
from hoplab.lab import state
from hoplab.observe.snapshot import Snapshot
from hoplab.trace import needs
from hoplab.trace.live import run
from hoplab.trace.live.run import Wire
from hoplab.trace.model import Trace
from hoplab.trace.places import Target
from hoplab.verify import live_look, live_trace
from tests.support.labs import MADE
from tests.support.live_network import BRIDGE
from tests.support.recordings import recording

PATHS = LabPaths("dev", Path("/nowhere"))


def test_it_looks_at_what_a_trace_needs_and_sends_with_a_relay_on_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    lab, asked = recording("flannel-vxlan"), dict[str, Any]()

    @contextmanager
    def opened(paths: LabPaths, *, without: frozenset[str]) -> Iterator[Any]:
        asked.update(paths=paths, without=without)
        yield lambda: lab

    def send(
        seen: Snapshot, model: Trace, goal: Target, hosts: Mapping[str, Sequence[str]], wire: Wire, *_: Any, **__: Any
    ) -> Trace:
        asked.update(seen=seen, goal=goal, hosts=hosts, wire=wire)
        return model

    monkeypatch.setattr(live_look, "opened", opened)
    monkeypatch.setattr(run, "send", send)
    monkeypatch.setattr(state, "load_summary", lambda _paths: replace(MADE, netns="hoplab-dev-0"))
    said: list[str] = []
    found = live_trace.trace(PATHS, "outside", "service/single", via="nodeport", say=said.append)
    assert found.target == "service hoplab-verify/single" and said == ["looking at the lab"]
    assert asked["without"] == needs.others() and asked["seen"] is lab
    assert asked["wire"] == Wire("hoplab-dev-0", BRIDGE)
    assert list(asked["hosts"]) == ["", "worker1", "worker2"]
    assert "worker1" in asked["hosts"]["worker1"] and "ssh" in asked["hosts"]["worker1"][0]
    assert {place.kind for place in asked["goal"].arrives} == {"pod"}


@pytest.mark.parametrize(
    ("receiver", "options", "ipv6"),
    [("worker2", {}, False), ("worker2", {"ipv6": True}, True), ("[fd00:77::21]:22", {}, True)],
)
def test_it_looks_at_the_facts_of_ipv6_for_its_packets_alone(
    monkeypatch: pytest.MonkeyPatch, receiver: str, options: dict[str, Any], ipv6: bool
) -> None:
    lab, asked = recording("flannel-vxlan-dual"), dict[str, Any]()

    @contextmanager
    def opened(paths: LabPaths, *, without: frozenset[str]) -> Iterator[Any]:
        asked["without"] = without
        yield lambda: lab

    def send(seen: Snapshot, model: Trace, goal: Target, *_: Any, **__: Any) -> Trace:
        asked["goal"] = goal
        return model

    monkeypatch.setattr(live_look, "opened", opened)
    monkeypatch.setattr(run, "send", send)
    monkeypatch.setattr(state, "load_summary", lambda _paths: replace(MADE, netns="hoplab-dev-0"))
    found = live_trace.trace(PATHS, "worker1", receiver, **options)
    assert asked["without"] == needs.others(ipv6=ipv6) and ("routes6" in asked["without"]) is not ipv6
    assert asked["goal"].address.version == found.shown.header.src.version == (6 if ipv6 else 4)


@pytest.mark.parametrize(
    ("node", "printed", "code", "message", "remedy"),
    [
        (
            "",
            "PermissionError: [Errno 1] Operation not permitted",
            1,
            "the trace on this machine ended: PermissionError: [Errno 1] Operation not permitted",
            "become root: sudo ./lab trace ...",
        ),
        (
            "worker1",
            "sudo: python3: command not found",
            1,
            "worker1 can't trace: sudo: python3: command not found",
            "python3 has to work there: ./lab ssh worker1 sudo python3 -V",
        ),
        (
            "worker1",
            "ssh: connect to host 192.168.77.20 port 22: No route to host",
            255,
            "worker1 can't be reached over SSH: No route to host",
            "`./lab status` shows whether it runs; `ssh -v -F /nowhere/inventory/dev.ssh_config worker1` shows why not",
        ),
    ],
)
def test_a_relay_that_does_not_run(node: str, printed: str, code: int, message: str, remedy: str) -> None:
    error = live_trace._unreachable(PATHS)(node, printed, code)
    assert (error.message, error.remedy) == (message, remedy)
