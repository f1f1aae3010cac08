"""The runner of exercises: starts one on a node, inspects it in one round trip, checks and removes it.

A ``Run`` runs commands as root on one machine and returns their outputs, as ``Hosts.batch`` does. Files on the node:

/run/netns/practice-*              the namespaces; nothing else of the node changes
/run/hoplab-practice/veth/         ready (started), hints (number shown so far), practice-right.log (of a server)
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.lab import state
from hoplab.observe.facts import Facts
from hoplab.observe.facts.links import LINKS
from hoplab.observe.script import Output
from hoplab.practice import CheckResult, Exercise, Inspection, PracticeError, Request

Run = Callable[[Mapping[str, str]], Mapping[str, Output]]

PATIENCE = 4.0  # seconds to wait for an answer; a dropped packet takes all of them
ECHO = (Path(__file__).parent / "echo.py").read_text()
_DO = "it"  # key of the only command of a batch


def nodes(paths: LabPaths) -> dict[str, Run]:
    """Return the nodes of a running lab, workers first."""
    from hoplab.observe.ssh import Hosts  # noqa: PLC0415 -- imports testinfra, which a list of exercises does not need

    machines = sorted(state.load(paths).nodes, key=lambda node: node.role != "worker")
    hosts = Hosts([machine.name for machine in machines], paths.ssh_config)
    return {name: partial(hosts.batch, name) for name in hosts.names}


@dataclass(frozen=True)
class CheckedExercise:
    """The check results of an exercise, and its node."""

    node: str
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> int:
        """Return the number of passed checks."""
        return sum(result.passed for result in self.results)


@dataclass(frozen=True)
class ExerciseRunner:
    """A runner of exercises on the nodes of one lab. An exercise is on one node at a time, which the runner finds."""

    nodes: Mapping[str, Run]
    option: str = ""  # " --lab blue", for the commands in messages

    def command(self, verb: str, exercise: Exercise, flags: str = "") -> str:
        """Return the command line of a verb, for messages."""
        return f"./lab practice {verb} {exercise.name}{flags}{self.option}"

    def start(self, exercise: Exercise, node: str = "", *, again: bool = False) -> tuple[str, bool]:
        """Make the starting state; return the node, and False where an exercise started before is kept."""
        if node and node not in self.nodes:
            raise PracticeError(f"there is no machine {node!r} in this lab", remedy=f"one of: {', '.join(self.nodes)}")
        where = self._where(exercise)
        if where and node not in ("", where):
            raise PracticeError(
                f"{exercise.name} is started on {where}, and is on one node at a time",
                remedy=f"`{self.command('reset', exercise)}` removes it there",
            )
        if where and not again:
            return where, False
        target = where or node or next(iter(self.nodes))
        output = self.nodes[target]({_DO: f"({start_script(exercise)})"})[_DO]
        if output.code != 0:
            raise PracticeError(
                f"{exercise.name} could not be started on {target}: {output.err.strip() or output.code}",
                remedy=f"`{self.command('reset', exercise)}` removes what is there of it",
            )
        return target, True

    def check(self, exercise: Exercise, patience: float) -> CheckedExercise:
        """Send the packets of the exercise, inspect it and check it; ``patience`` is seconds for each answer."""
        for node, outputs in self._all(inspect_commands(exercise, patience)).items():
            if outputs["ready"].code == 0:
                return CheckedExercise(node, self._check_results(exercise, outputs))
        raise self._not_started(exercise)

    def hint(self, exercise: Exercise, *, more: bool = False) -> tuple[int, int]:
        """Return the next hint as a range of ``exercise.hints``: all of them with ``more`` or after the last."""
        total = len(exercise.hints)
        now = total if more else f"$((given < {total} ? given + 1 : given))"
        folder = _folder(exercise)
        script = f"[ -e {folder}/ready ] && given=$(cat {folder}/hints) && echo $given && echo {now} >{folder}/hints"
        for outputs in self._all({_DO: f"({script})"}).values():
            if outputs[_DO].code == 0:
                given = int(outputs[_DO].out)
                return (0, total) if more or given == total else (given, given + 1)
        raise self._not_started(exercise)

    def reset(self, exercise: Exercise) -> list[str]:
        """Remove the exercise and everything in its namespaces; return the removed objects."""
        removed = []
        for node, outputs in self._all({_DO: f"({reset_script(exercise)})"}).items():
            if left := outputs[_DO].err.strip():
                raise PracticeError(
                    f"{exercise.name} could not be removed from {node}: {left}", remedy=f"log in to {node} and look"
                )
            removed += [f"{line} ({node})" for line in outputs[_DO].out.splitlines()]
        return removed

    def _where(self, exercise: Exercise) -> str:
        found = self._all({_DO: f"[ -e {_folder(exercise)}/ready ]"})
        return next((node for node, outputs in found.items() if outputs[_DO].code == 0), "")

    def _all(self, commands: Mapping[str, str]) -> dict[str, Mapping[str, Output]]:
        """Run the same on all nodes at the same time; skip unreachable nodes, unless all are unreachable."""
        with ThreadPoolExecutor(max_workers=len(self.nodes)) as pool:
            futures = {node: pool.submit(run, commands) for node, run in self.nodes.items()}
        errors = {node: error for node, future in futures.items() if isinstance(error := future.exception(), LabError)}
        if len(errors) == len(futures):
            raise next(iter(errors.values()))
        return {node: future.result() for node, future in futures.items() if node not in errors}

    def _check_results(self, exercise: Exercise, outputs: Mapping[str, Output]) -> tuple[CheckResult, ...]:
        gone = [name for name in exercise.namespaces if outputs[f"{name}/there"].code != 0]
        if gone:
            remedy = f"`{self.command('start', exercise, ' --again')}` begins anew"
            return tuple(CheckResult(False, f"the namespace {name} is gone", (remedy,)) for name in gone)
        inspection = Inspection(
            places={
                name: Facts(name, {fact.name: outputs[f"{name}/{fact.name}"] for fact in facts})
                for name, facts in exercise.facts.items()
            },
            answers={request: outputs[_key(request)] for request in exercise.requests},
            node_links=Facts("the node", {LINKS.name: outputs["node/links"]})[LINKS] if exercise.makes else (),
        )
        return tuple(exercise.check(inspection))

    def _not_started(self, exercise: Exercise) -> PracticeError:
        return PracticeError(
            f"{exercise.name} is not started", remedy=f"`{self.command('start', exercise)}` makes its starting state"
        )


def inspect_commands(exercise: Exercise, patience: float) -> dict[str, str]:
    """Return the commands of a check by key, in their order: requests first, so that rules count them."""
    started = f"[ -e {_folder(exercise)}/ready ]"  # no command runs on the other nodes
    commands = {"ready": started}
    for name in exercise.namespaces:
        commands[f"{name}/there"] = f"[ -e /run/netns/{name} ]"
    for request in exercise.requests:
        client = echo_command("ask", str(request.address), str(request.port), f"{patience:g}")
        commands[_key(request)] = f"{started} && {_inside(request.source, client)}"
    for name, facts in exercise.facts.items():
        for fact in facts:
            commands[f"{name}/{fact.name}"] = f"{started} && {_inside(name, fact.command)}"
    if exercise.makes:
        commands["node/links"] = f"{started} && {LINKS.command}"
    return commands


def start_script(exercise: Exercise) -> str:
    """Return the script that makes the starting state from nothing; ``ready`` is its last file."""
    folder = _folder(exercise)
    lines = [reset_script(exercise), "set -e"]
    for name in exercise.makes:
        refuse = f'{{ echo "it has an interface {name} already" >&2; exit 1; }}'
        lines.append(f"! ip link show dev {name} >/dev/null 2>&1 || {refuse}")
    lines += [f"mkdir -p {folder}", f"echo 0 >{folder}/hints"]
    for name in exercise.namespaces:
        lines += [f"ip netns add {name}", f"ip -n {name} link set lo up"]
    lines.append(exercise.setup)
    for server in exercise.servers:
        serve = echo_command("serve", server.namespace, str(server.port), f"{folder}/{server.namespace}.log")
        lines.append(_inside(server.namespace, serve))
    return "\n".join([*lines, f"touch {folder}/ready"])


def reset_script(exercise: Exercise) -> str:
    """Return the script that removes the exercise, started or half started, and prints the removed objects.

    A namespace exists as long as a process is in it, so the script first kills these processes, including a learner's
    shell. It kills none in the node's own namespace, which `ip netns attach` may have given a name.
    """
    folder = _folder(exercise)
    strays = [  # start_script refuses a node with such an interface
        f'[ -z "$(ip -o link show dev {name} type {kind} 2>/dev/null)" ] || '
        f'{{ ip link delete {name} && echo "{name} on the node itself"; }}'
        for name, kind in exercise.makes.items()
    ]
    return "\n".join(
        [
            f"for name in {' '.join(exercise.namespaces)}; do",
            "  [ -e /run/netns/$name ] || continue",
            "  tries=0",
            "  while [ ! /run/netns/$name -ef /proc/self/ns/net ] && [ $tries -lt 50 ]; do",
            "    inside=$(ip netns pids $name)",
            '    [ -n "$inside" ] || break',
            "    kill -KILL $inside 2>/dev/null || :",
            "    tries=$((tries + 1))",
            "    [ $tries = 1 ] || sleep 0.1",
            "  done",
            '  ip netns delete $name && echo "namespace $name"',
            "done",
            f"if [ -d {folder} ]; then",
            ":",
            *strays,
            f"rm -r {folder}",
            f"rmdir --ignore-fail-on-non-empty {folder.rpartition('/')[0]}",
            "fi",
        ]
    )


def echo_command(*words: str) -> str:
    """Return a command line that runs echo.py without installing it on the node."""
    return shlex.join(["python3", "-I", "-S", "-c", ECHO, *words])


def _inside(namespace: str, command: str) -> str:
    return f"nsenter --net=/run/netns/{namespace} sh -c {shlex.quote(command)}"


def _folder(exercise: Exercise) -> str:
    return f"/run/hoplab-practice/{exercise.name}"


def _key(request: Request) -> str:
    return f"{request.source}/asks-{request}"
