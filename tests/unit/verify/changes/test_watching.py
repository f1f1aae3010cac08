"""`./lab watch`: what changed from look to look."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from hoplab import cli
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.expectations.parts import known_parts
from hoplab.lab import state
from hoplab.observe.facts import discover
from hoplab.observe.script import Output
from hoplab.observe.snapshot import PLACES, Snapshot, take
from hoplab.verify import live_look
from hoplab.verify.changes import watching
from hoplab.verify.partial import PartialLook
from tests.support.recordings import recording

HEALTHY = recording("flannel-vxlan")
MTU = recording("broken/the-mtu-of-cni0-is-wrong")
UNPLUGGED = recording("broken/a-veth-is-unplugged")


class Looks:
    """Looks at a lab that is as in these recordings, one after the other; then Ctrl-C."""

    def __init__(self, *labs: Snapshot) -> None:
        self._labs = iter(labs)

    def __call__(self) -> Snapshot:
        try:
            return next(self._labs)
        except StopIteration:
            raise KeyboardInterrupt from None


def watched(*labs: Snapshot) -> list[str]:
    """Return the lines of a watch, each without its time."""
    found = []
    with pytest.raises(KeyboardInterrupt):
        for seen in watching.watch(Looks(*labs), wait=lambda _seconds: None, clock=lambda: 0.0):
            assert re.match(r"\d\d:\d\d:\d\d  ", str(seen))
            found.append(str(seen)[10:])
    return found


def test_each_event_is_one_line_when_it_happens() -> None:
    lines = watched(HEALTHY, HEALTHY, MTU, HEALTHY, UNPLUGGED)
    assert lines[:2] == ["worker2: ~ interface cni0: mtu 1450 -> 1400", "worker2: ~ interface cni0: mtu 1400 -> 1450"]
    pod = r"hoplab-verify/echo-\w+"
    state = "state up -> down, port state forwarding -> disabled"
    (down,) = lines[2:]
    assert re.fullmatch(rf"worker2: ~ interface veth\w+ of {pod}: {state} \(pod {pod} on worker2: ~ 4 routes\)", down)


def test_nothing_is_said_while_nothing_changes() -> None:
    assert watched(HEALTHY, HEALTHY, HEALTHY) == []


def test_a_pause_is_as_long_as_a_look_takes() -> None:
    times = iter((0.0, 5.0, 10.0, 10.5))
    pauses: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        list(watching.watch(Looks(*[HEALTHY] * 3), wait=pauses.append, clock=lambda: next(times, 0.0)))
    assert pauses == [1.0, 5.0, 1.0]


def test_a_look_leaves_out_what_is_not_watched() -> None:
    """The recorded lab answers; what was asked is looked at."""
    asked: dict[str, set[str]] = {}

    class Hosts:
        def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]:
            asked.update(node=set(commands), pod=set(in_pods))
            return {
                name: {key: facts.outputs[key] for key in commands if key in facts.outputs} for name, facts in NODES
            }

    NODES = HEALTHY.node_facts.items()
    seen = take(HEALTHY.setting, {}, Hosts(), lambda _: Output(0, "{}"), known_parts(), without=watching.UNWATCHED)
    assert {"links", "routes", "iptables", "fdb"} <= asked["node"]
    assert not watching.UNWATCHED & (asked["node"] | asked["pod"])
    assert {fact.name for place in PLACES for fact in discover(place)} >= watching.UNWATCHED
    again = take(
        HEALTHY.setting, {}, Hosts(), lambda _: Output(0, "{}"), known_parts(), seen, without=watching.UNWATCHED
    )
    assert again.node_facts.keys() == seen.node_facts.keys()


def test_the_verb_ends_on_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[tuple[str, ...]] = []

    @contextmanager
    def opened(_: LabPaths, nodes: tuple[str, ...], *, without: frozenset[str]) -> Iterator[Looks]:
        assert without == watching.UNWATCHED
        try:
            yield Looks(HEALTHY, MTU)
        finally:
            closed.append(nodes)

    monkeypatch.setattr(live_look, "opened", opened)
    monkeypatch.setattr(watching, "LEAST_PAUSE", 0.0)
    found = CliRunner().invoke(cli.cli, ["watch", "--node", "worker2"], catch_exceptions=False)
    assert found.exit_code == 0
    assert found.stdout.endswith("worker2: ~ interface cni0: mtu 1450 -> 1400\n")
    assert found.stderr == "watching worker2, until Ctrl-C\nended\n"
    assert closed == [("worker2",)]


def test_connections_are_closed_and_only_the_chosen_nodes_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    closed: list[str] = []

    class Hosts:
        def __init__(self, names: list[str], _config: Path) -> None:
            made.append(names)
            self.names = names

        def close(self) -> None:
            closed.append("hosts")

    @contextmanager
    def connect(*_: Any, **__: Any) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(within=lambda _seconds: None)
        closed.append("api")

    lab = SimpleNamespace(
        nodes=[SimpleNamespace(name=name) for name in HEALTHY.node_facts], netns="", image="", accel="tcg"
    )
    monkeypatch.setattr(state, "load", lambda _: lab)
    monkeypatch.setattr(state, "built_setting", lambda *_: replace(HEALTHY.setting))
    monkeypatch.setattr(live_look, "connect", connect)
    monkeypatch.setattr(live_look, "Hosts", Hosts)
    monkeypatch.setattr(live_look, "Diagnosis", lambda *_: None)
    paths = LabPaths("dev")
    with live_look.opened(paths, ["worker2"]) as look:
        assert isinstance(look, PartialLook)
        assert list(look.setting.nodes) == ["worker2"]
    assert (made, closed) == ([["worker2"]], ["hosts", "api"])
    with live_look.opened(paths):
        assert made[-1] == ["worker1", "worker2"]
    with (
        pytest.raises(LabError, match="there is no machine 'gone' in lab dev") as error,
        live_look.opened(paths, ["gone"]),
    ):
        pass
    assert error.value.remedy == "one of: worker1, worker2"
