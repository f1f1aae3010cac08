"""Where one practises: starts an exercise on a node, looks at it in one round trip and grades it, removes it.

A ``Run`` runs commands as root on one machine and gives their outputs: ``Hosts.batch`` for a node. What is on the node:

/run/netns/practice-*              the namespaces; nothing else of the node is touched
/run/hoplab-practice/veth/         ready (it is started), hints (how many were given), practice-right.log (a server's)
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
from hoplab.practice import Exercise, Grade, PracticeError, Request, Seen

Run = Callable[[Mapping[str, str]], Mapping[str, Output]]

PATIENCE = 4.0  # seconds for the answer to a check's packet; what is dropped costs as long
TALK = (Path(__file__).parent / "echo.py").read_text()
_DO = "it"  # key of the only command of a batch


def nodes(paths: LabPaths) -> dict[str, Run]:
    """The nodes of a lab that exists, workers first."""
    from hoplab.observe.ssh import Hosts  # noqa: PLC0415 -- brings testinfra along, which a list of exercises can do without

    machines = sorted(state.load(paths).nodes, key=lambda node: node.role != "worker")
    hosts = Hosts([machine.name for machine in machines], paths.ssh_config)
    return {name: partial(hosts.batch, name) for name in hosts.names}


@dataclass(frozen=True)
class Checked:
    """The grades of an exercise, on the node where it is started."""

    node: str
    grades: tuple[Grade, ...]

    @property
    def done(self) -> int:
        return sum(grade.done for grade in self.grades)


@dataclass(frozen=True)
class Desk:
    """The nodes of one lab. An exercise is on one of them at a time, so nobody has to say on which."""

    nodes: Mapping[str, Run]
    option: str = ""  # " --lab blue", for the commands that messages name

    def command(self, verb: str, exercise: Exercise, flags: str = "") -> str:
        return f"./lab practice {verb} {exercise.name}{flags}{self.option}"

    def start(self, exercise: Exercise, node: str = "", *, again: bool = False) -> tuple[str, bool]:
        """Make the starting state; the node, and whether it was started now (False: it was already, and is kept)."""
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
        chosen = where or node or next(iter(self.nodes))
        output = self.nodes[chosen]({_DO: f"({start_script(exercise)})"})[_DO]
        if output.code != 0:
            raise PracticeError(
                f"{exercise.name} could not be started on {chosen}: {output.err.strip() or output.code}",
                remedy=f"`{self.command('reset', exercise)}` removes what is there of it",
            )
        return chosen, True

    def check(self, exercise: Exercise, patience: float) -> Checked:
        """Look at the exercise, send its packets (for each answer, so many seconds), and grade what was seen."""
        for node, outputs in self._all(look_commands(exercise, patience)).items():
            if outputs["ready"].code == 0:
                return Checked(node, self._graded(exercise, outputs))
        raise self._not_started(exercise)

    def hint(self, exercise: Exercise, *, more: bool = False) -> tuple[int, int]:
        """Which hints are due, as a range of ``exercise.hints``: the next one, all with ``more`` or after the last."""
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
        """Remove the exercise and all that the learner made in its namespaces; what was removed."""
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
        """The same on every node at once. A node that can't be reached has nothing started, as long as another can."""
        with ThreadPoolExecutor(max_workers=len(self.nodes)) as pool:
            asked = {node: pool.submit(run, commands) for node, run in self.nodes.items()}
        broken = [error for each in asked.values() if isinstance(error := each.exception(), LabError)]
        if len(broken) == len(asked):
            raise broken[0]
        return {node: each.result() for node, each in asked.items() if not isinstance(each.exception(), LabError)}

    def _graded(self, exercise: Exercise, outputs: Mapping[str, Output]) -> tuple[Grade, ...]:
        gone = [name for name in exercise.namespaces if outputs[f"{name}/there"].code != 0]
        if gone:
            remedy = f"`{self.command('start', exercise, ' --again')}` begins anew"
            return tuple(Grade(False, f"the namespace {name} is gone", (remedy,)) for name in gone)
        seen = Seen(
            places={
                name: Facts(name, {fact.name: outputs[f"{name}/{fact.name}"] for fact in facts})
                for name, facts in exercise.looks.items()
            },
            answers={request: outputs[_key(request)] for request in exercise.requests},
            node_links=Facts("the node", {LINKS.name: outputs["node/links"]})[LINKS] if exercise.makes else (),
        )
        return tuple(exercise.grade(seen))

    def _not_started(self, exercise: Exercise) -> PracticeError:
        return PracticeError(
            f"{exercise.name} is not started", remedy=f"`{self.command('start', exercise)}` makes its starting state"
        )


def look_commands(exercise: Exercise, patience: float) -> dict[str, str]:
    """Everything a check asks, in the order it is asked: packets first, so that rules have counted them."""
    started = f"[ -e {_folder(exercise)}/ready ]"  # where it is not, nothing is run
    commands = {"ready": started}
    for name in exercise.namespaces:
        commands[f"{name}/there"] = f"[ -e /run/netns/{name} ]"
    for request in exercise.requests:
        asking = talk("ask", str(request.address), str(request.port), f"{patience:g}")
        commands[_key(request)] = f"{started} && {_inside(request.source, asking)}"
    for name, facts in exercise.looks.items():
        for fact in facts:
            commands[f"{name}/{fact.name}"] = f"{started} && {_inside(name, fact.command)}"
    if exercise.makes:
        commands["node/links"] = f"{started} && {LINKS.command}"
    return commands


def start_script(exercise: Exercise) -> str:
    """Make the starting state, from nothing. It is ready when every line went well."""
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
        serving = talk("serve", server.namespace, str(server.port), f"{folder}/{server.namespace}.log")
        lines.append(_inside(server.namespace, serving))
    return "\n".join([*lines, f"touch {folder}/ready"])


def reset_script(exercise: Exercise) -> str:
    """Remove everything of the exercise, started or half started, and say what was removed.

    A namespace lives as long as a process is in it, so those are ended first, a learner's shell among them. A name
    that somebody gave to the node's own namespace is only a name: nothing in there is ended.
    """
    folder = _folder(exercise)
    strays = [  # before it was started, the node had no such interface: see start_script
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


def talk(*words: str) -> str:
    """A command line of talk.py: nothing is installed on the node."""
    return shlex.join(["python3", "-I", "-S", "-c", TALK, *words])


def _inside(namespace: str, command: str) -> str:
    return f"nsenter --net=/run/netns/{namespace} sh -c {shlex.quote(command)}"


def _folder(exercise: Exercise) -> str:
    return f"/run/hoplab-practice/{exercise.name}"


def _key(request: Request) -> str:
    return f"{request.source}/asks-{request}"
