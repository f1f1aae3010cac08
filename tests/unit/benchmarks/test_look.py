"""Benchmarks of looking at a lab and of its ingress controllers: they read what wrk and the lab print."""

from __future__ import annotations

import shlex
from typing import cast

import pytest

from benchmarks import ingress, look
from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT
from hoplab.expectations.parts import known_parts
from hoplab.observe.facts import discover
from hoplab.observe.recording_format import load as load_recording
from hoplab.observe.script import Output
from hoplab.observe.ssh import Hosts
from hoplab.verify import observations
from hoplab.verify.workload import APP1
from tests.support.imaginary import ingress as ingress_lab
from tests.support.lesson_functions import failures, read_only


def test_asking_one_by_one_sees_the_same_lab_with_many_more_commands() -> None:
    recorded = load_recording(PROJECT / "tests" / "recordings" / "flannel-vxlan.json")
    asked: list[str] = []

    class Nodes:
        def batch(self, node: str, commands: dict[str, str]) -> dict[str, Output]:
            """What the recording has for the fact whose command this is, on the node or in a pod's namespace."""
            (command,) = commands.values()
            asked.append(command)
            words = shlex.split(command) if command.startswith("nsenter") else []
            facts = recorded.netns_facts[node][words[1].rpartition("/")[2]] if words else recorded.node_facts[node]
            wanted = words[4] if words else command
            facts_there = (fact for where in ("node", "pod") for fact in discover(where))
            name = next(fact.name for fact in facts_there if fact.command_for(known_parts()) == wanted)
            return {"it": facts.outputs[name]}

    def api(path: str) -> Output:
        outputs = recorded.api.outputs  # of the facts that share an answer, some are younger than the recording
        return next(outputs[fact.name] for fact in discover("api") if fact.command == path and fact.name in outputs)

    asker = look.Asker(cast("Hosts", Nodes()), api)
    assert failures(read_only()[:20], look.asking(recorded, asker)) == {}
    assert asker.asked > len(asked) > 2 * len(recorded.node_facts)


WRK = """\
Running 20s test @ http://192.168.77.20:80/
  1 threads and 8 connections
  4321 requests in 20.05s, 1.73MB read
"""


def test_wrk_is_read() -> None:
    assert ingress.parse(f"{WRK}Requests/sec:    215.51\n") == ingress.Wrk(215.51, 4321, 0, 0)
    more = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 7\nRequests/sec: 1.5\n"
    assert ingress.parse(WRK + more) == ingress.Wrk(1.5, 4321, 10, 7)
    with pytest.raises(LabError, match="wrk printed no figures: unable to connect"):
        ingress.parse("unable to connect")


def test_the_plain_nginx_has_the_same_pods_behind_it() -> None:
    world = ingress_lab.World()
    (_, conf), (_, pod) = ingress.plain(world.session())
    text = conf["data"]["nginx.conf"]
    assert all(f"server {address}:8080;" in text for address in ingress_lab.PODS[APP1][:2])
    assert pod["spec"]["nodeName"] == ingress_lab.FIRST.name
    assert pod["spec"]["containers"][0]["ports"][0]["hostPort"] == ingress.PLAIN_PORT


def test_what_is_lost_while_things_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "SETTLE_DEADLINE", 2.0)
    assert ingress.changing(ingress_lab.World().session(), 1).lost == ()
    found = ingress.changing(ingress_lab.World(loses=True).session(), 3)
    assert set(found.lost) <= {"502"} and found.sent >= len(found.lost)
