"""The exercises on this machine: started, solved, solved with one wrong step, and removed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.lab import state
from hoplab.lab.spec_file import plan_lab
from hoplab.observe.script import Output
from hoplab.observe.ssh import Hosts
from hoplab.practice import CheckResult, Inspection, PracticeError, Request, checks, discover, find, runner
from hoplab.practice.runner import ExerciseRunner
from hoplab.spec.model import LabSpec
from tests.support.courses import LONG, course, missing, nearly_done, nothing_done, typed
from tests.support.machine import Machine

NAMES = [exercise.name for exercise in discover()]


# -- every exercise


@pytest.mark.parametrize("name", NAMES)
def test_exercise_is_started_solved_and_removed(name: str, worker: ExerciseRunner, machine: Machine) -> None:
    exercise = find(name)
    before, node = machine.left(), machine.node()
    assert worker.start(exercise) == ("worker1", True)
    nothing_done(worker, exercise)
    machine.run(course(name)["solution"])
    checked = worker.check(exercise, LONG)
    assert [result for result in checked.results if not result.passed] == []
    assert checked.node == "worker1"
    assert machine.node() == node
    removed = worker.reset(exercise)
    assert removed == [f"namespace {namespace} (worker1)" for namespace in exercise.namespaces]
    assert machine.left() == before
    assert worker.reset(exercise) == []


@pytest.mark.parametrize("name", NAMES)
def test_check_reports_one_wrong_step(name: str, worker: ExerciseRunner, machine: Machine) -> None:
    exercise = find(name)
    for step in course(name)["nearly"]:
        worker.start(exercise, again=True)
        machine.run(typed(name, step))
        nearly_done(worker, exercise, step)


@pytest.mark.parametrize("name", NAMES)
def test_exercise_stays_in_its_own_namespaces(name: str) -> None:
    exercise = find(name)
    others = {namespace for other in discover() if other != exercise for namespace in other.namespaces}
    assert not others & set(exercise.namespaces)
    assert all(namespace.startswith("practice-") for namespace in exercise.namespaces)
    inside = re.compile(rf"(ip -n|nsenter --net=/run/netns/)\s*({'|'.join(exercise.namespaces)}) .+")
    assert [line for line in exercise.setup.strip().splitlines() if not inside.fullmatch(line)] == []
    ranges = IPv4Network("172.31.0.0/16"), IPv4Network("10.200.0.0/16")
    for address in re.findall(r"\d+\.\d+\.\d+\.\d+", "\n".join([exercise.setup, exercise.task, *exercise.hints])):
        assert any(IPv4Address(address) in network for network in ranges), address


@pytest.mark.parametrize("name", NAMES)
def test_task_and_hints_leave_out_the_solution(name: str) -> None:
    exercise = find(name)
    assert len(exercise.hints) >= 2
    assert max(map(len, exercise.task.splitlines())) <= 100
    told = "\n".join([exercise.task, *exercise.hints])
    for line in course(name)["solution"].strip().splitlines():
        assert re.sub(r"ip (-n|netns exec) \S+ ", "", line) not in told


def test_discover_orders_exercises_by_day() -> None:
    assert [(exercise.day, exercise.name) for exercise in discover()] == [
        (1, "addresses"),
        (2, "gateway"),
        (3, "veth"),
        (4, "bridge"),
        (5, "dnat"),
        (5, "snat"),
        (6, "hooks"),
    ]


def test_find_of_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(PracticeError, match=r"there is no exercise 'brigde'; the nearest is 'bridge'") as error:
        find("brigde")
    assert error.value.remedy == f"there are: {', '.join(NAMES)}"


# -- starting, and where it is

VETH = find("veth")


def nothing_there(commands: Mapping[str, str]) -> dict[str, Output]:
    """A node on which nothing is started."""
    return {key: Output(1, "") for key in commands}


def unreachable(_: Mapping[str, str]) -> dict[str, Output]:
    raise LabError("worker1 can't be reached over SSH: no route to host")


def test_start_again_keeps_what_was_made(worker: ExerciseRunner, machine: Machine) -> None:
    worker.start(VETH)
    machine.run("ip -n practice-left link add left0 type veth peer name right0 netns practice-right")
    assert worker.start(VETH) == ("worker1", False)
    assert "practice-left has no interface left0" not in missing(worker, VETH)
    assert worker.start(VETH, again=True) == ("worker1", True)
    assert "practice-left has no interface left0" in missing(worker, VETH)


def test_reset_leaves_another_exercise_alone(worker: ExerciseRunner, machine: Machine) -> None:
    worker.start(VETH)
    worker.start(find("gateway"))
    machine.run(course("gateway")["solution"])
    worker.reset(VETH)
    assert missing(worker, find("gateway")) == []


def test_runner_finds_the_node_of_an_exercise(machine: Machine) -> None:
    both = ExerciseRunner({"worker1": nothing_there, "worker2": machine})
    assert both.start(VETH, "worker2") == ("worker2", True)
    assert both.start(VETH) == ("worker2", False)
    assert both.start(VETH, again=True) == ("worker2", True)
    assert both.check(VETH, LONG).node == "worker2"
    with pytest.raises(PracticeError, match="veth is started on worker2, and is on one node at a time") as error:
        both.start(VETH, "worker1")
    assert error.value.remedy == "`./lab practice reset veth` removes it there"


def test_runner_skips_an_unreachable_node(machine: Machine) -> None:
    both = ExerciseRunner({"worker1": unreachable, "worker2": machine})
    both.start(VETH, "worker2")
    assert both.check(VETH, LONG).node == "worker2"
    with pytest.raises(LabError, match="worker1 can't be reached"):
        ExerciseRunner({"worker1": unreachable}).check(VETH, LONG)


def test_not_started_error_names_the_start_command() -> None:
    blue = ExerciseRunner({"worker1": nothing_there}, " --lab blue")
    for verb in (partial(blue.check, patience=LONG), blue.hint):
        with pytest.raises(PracticeError, match="veth is not started") as error:
            verb(VETH)
        assert error.value.remedy == "`./lab practice start veth --lab blue` makes its starting state"


def test_start_on_an_unknown_node() -> None:
    with pytest.raises(PracticeError, match="there is no machine 'worker9' in this lab") as error:
        ExerciseRunner({"worker1": nothing_there}).start(VETH, "worker9")
    assert error.value.remedy == "one of: worker1"


def test_start_refuses_a_node_with_an_interface_of_that_name(worker: ExerciseRunner, machine: Machine) -> None:
    machine.run("ip link add left0 type bridge")
    with pytest.raises(PracticeError, match="veth could not be started on worker1: it has an interface left0") as error:
        worker.start(VETH)
    assert error.value.remedy == "`./lab practice reset veth` removes what is there of it"
    assert worker.reset(VETH) == []
    assert "left0" in machine.run("ip -o link")


# -- what learners do besides


def test_check_reports_and_reset_removes_a_pair_on_the_node_itself(worker: ExerciseRunner, machine: Machine) -> None:
    before = machine.left()
    worker.start(VETH)
    machine.run("ip link add left0 type veth peer name right0")
    on_node = "is on the node itself, not in practice-{}: it was made there, and never moved"
    assert missing(worker, VETH)[:2] == [f"left0 {on_node.format('left')}", f"right0 {on_node.format('right')}"]
    assert "left0 on the node itself (worker1)" in worker.reset(VETH)
    assert machine.left() == before


def test_check_reports_an_end_in_the_wrong_namespace(worker: ExerciseRunner, machine: Machine) -> None:
    worker.start(VETH)
    machine.run("ip -n practice-right link add right0 type veth peer name left0")
    assert missing(worker, VETH)[0] == "left0 is in practice-right, not in practice-left"


def test_check_reports_a_removed_namespace(worker: ExerciseRunner, machine: Machine) -> None:
    worker.start(VETH)
    machine.run("ip netns delete practice-right")
    assert worker.check(VETH, LONG).results == (
        CheckResult(
            False, "the namespace practice-right is gone", ("`./lab practice start veth --again` begins anew",)
        ),
    )
    assert worker.reset(VETH) == ["namespace practice-left (worker1)"]


def test_reset_ends_what_runs_inside(worker: ExerciseRunner, machine: Machine) -> None:
    before = machine.left()
    worker.start(VETH)
    endless = "trap '' TERM HUP; touch /run/inside; while :; do sleep 60; done"
    machine.run(f'ip netns exec practice-left sh -c "{endless}" >/dev/null 2>&1 &')
    machine.run("timeout 30 sh -c 'until [ -e /run/inside ]; do sleep 0.02; done'")
    worker.reset(VETH)
    assert machine.left() == before


def test_reset_ends_nothing_on_the_node(worker: ExerciseRunner, machine: Machine) -> None:
    worker.start(VETH)
    machine.run("ip netns delete practice-left; ip netns attach practice-left 1")
    assert worker.reset(VETH) == ["namespace practice-left (worker1)", "namespace practice-right (worker1)"]
    assert machine.run("ip netns") == ""


def test_reset_reports_what_it_could_not_remove() -> None:
    def stuck(commands: Mapping[str, str]) -> dict[str, Output]:
        return {key: Output(1, "", "Device or resource busy\n") for key in commands}

    with pytest.raises(PracticeError, match="veth could not be removed from worker1: Device or resource busy"):
        ExerciseRunner({"worker1": stuck}).reset(VETH)


def test_hint_gives_one_after_the_other(worker: ExerciseRunner) -> None:
    worker.start(VETH)
    assert [worker.hint(VETH) for _ in range(5)] == [(0, 1), (1, 2), (2, 3), (0, 3), (0, 3)]
    worker.start(VETH, again=True)
    assert worker.hint(VETH) == (0, 1)
    assert worker.hint(VETH, more=True) == (0, 3)
    assert worker.hint(VETH) == (0, 3)


# -- the answer to a real packet

ASK = Request("practice-left", IPv4Address("172.31.3.2"))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            Output(0, "practice-right was asked by 172.31.3.1\n"),
            "practice-left asks 172.31.3.2:8080 and gets an answer: practice-right saw 172.31.3.1",
        ),
        (
            Output(1, "", "connection refused\n"),
            "practice-left gets no answer from 172.31.3.2:8080: connection refused",
        ),
        (
            Output(0, "<html>"),
            "practice-left gets no answer from 172.31.3.2:8080: what answers is no server of this exercise",
        ),
        (
            Output(0, "practice-blue was asked by 172.31.3.1\n"),
            "practice-blue answers practice-left on 172.31.3.2:8080, not practice-right",
        ),
        (
            Output(0, "practice-right was asked by 10.200.5.2\n"),
            "practice-left gets an answer from 172.31.3.2:8080, but practice-right saw 10.200.5.2, not 172.31.3.1",
        ),
    ],
)
def test_answered_checks_server_and_source(output: Output, message: str) -> None:
    found = checks.answered(Inspection({}, {ASK: output}), ASK, by="practice-right", sees=IPv4Address("172.31.3.1"))
    assert found == CheckResult(output.out.endswith("right was asked by 172.31.3.1\n"), message)


def test_server_keeps_a_log(worker: ExerciseRunner, machine: Machine) -> None:
    worker.start(VETH)
    machine.run(course("veth")["solution"])
    worker.check(VETH, LONG)
    log = machine.run("cat /run/hoplab-practice/veth/practice-right.log")
    assert log == "practice-right was asked by 172.31.3.1"


def test_nodes_lists_workers_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = LabPaths("dev", tmp_path)
    plan = plan_lab(LabSpec("dev"), lab_id="dev-1a2b3c", accel="kvm")
    state.save(state.lab_state(plan, libvirt_uri="", netns="", image="", image_bin=tmp_path), paths)
    asked = []
    monkeypatch.setattr(Hosts, "batch", lambda _, name, commands: asked.append((name, commands)))
    found = runner.nodes(paths)
    found["worker2"]({"it": "true"})
    assert list(found) == ["worker1", "worker2", "cp1"]
    assert asked == [("worker2", {"it": "true"})]
