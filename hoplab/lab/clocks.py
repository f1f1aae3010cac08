"""The clocks of running machines beside this host's, and how they are set.

The clock of a machine stands still while the machine is saved, and on many hosts while the host sleeps. Nodes have no
time server. The guest agent tells a clock and moves it; its ``guest-set-time`` would wait for the hardware clock:

    host                          node
    guest-get-time                tells its time
    guest-exec sh -c '...'        moves its clock by the difference

Where no agent answers, SSH does the same. It takes ten seconds and more on an emulated node:

    ssh NODE sudo sh -c '...'
                                  prints its time, waits for a line
    writes the difference         moves its clock
"""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from hoplab.core.errors import LabError, UnavailableError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.host import agent, machines, remote
from hoplab.host.agent import Agent, AgentError
from hoplab.lab.state import LabState, LabSummary

SKEW_S = 2.0  # a smaller difference is not corrected: reading a clock takes a part of it on an emulated node
ANSWER_S = 180.0  # a login takes seconds on an emulated node; this bound only ends a hang

# RNDRESEEDCRNG is 0x5207 (linux/random.h): the kernel uses what was written now, not minutes later
RESEED = (  # Perl, which every Debian has, starts faster than Python
    "open(P, q(+<), q(/dev/urandom)) or die; syswrite(P, pack(q(H*), shift)) or die; ioctl(P, 0x5207, 0) or die"
)
SCRIPT = f"""\
read -r moved seed || exit 1
[ "$moved" = keep ] || date -s "$moved seconds" >/dev/null || exit 2
[ -z "$seed" ] || perl -e "{RESEED}" "$seed" || exit 3
echo done
"""
SCRIPT_WITH_CLOCK = f"""\
echo "clock $(date +%s.%N)"
{SCRIPT}"""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Skew:
    """How many seconds a node's clock was ahead of this host's; below 0 it was behind. ``set``: it is corrected."""

    node: str
    seconds: float
    set: bool = False

    def __str__(self) -> str:
        """Return it in words.

        >>> str(Skew("worker1", -61.3, set=True))
        'the clock of worker1 was 61 s behind: set'
        """
        way = "ahead" if self.seconds > 0 else "behind"
        return f"the clock of {self.node} was {abs(self.seconds):.0f} s {way}{': set' if self.set else ''}"


def mend(lab: LabState, paths: LabPaths, progress: Progress) -> list[Skew]:
    """Set the clocks that differ from this host's, with a note for each; return those of all nodes.

    A node that can't be reached gets a note: what waits for it next says more.
    """
    found: list[Skew] = []
    for node, answer in _each(lab, lambda node: _converse(lab, paths, node)).items():
        if isinstance(answer, UnavailableError):
            progress.note(f"the clock of {node} could not be looked at: {answer.message}")
            continue
        found.append(answer)
        if answer.set:
            progress.note(str(answer))
    return found


def renew(lab: LabState, paths: LabPaths) -> list[Skew]:
    """Set the clocks of restored nodes at once, and give their kernels new entropy; raise UnavailableError."""
    answers = _each(lab, lambda node: _converse(lab, paths, node, reseed=True, limit_s=0.0))
    for answer in answers.values():
        if isinstance(answer, UnavailableError):
            raise answer
    return [answer for answer in answers.values() if isinstance(answer, Skew)]


def _each(lab: LabState, work: Callable[[str], Skew]) -> dict[str, Skew | UnavailableError]:
    nodes = [node.name for node in lab.nodes]  # each in a thread of its own

    def one(node: str) -> Skew | UnavailableError:
        try:
            return work(node)
        except UnavailableError as error:
            return error

    with ThreadPoolExecutor(max(1, len(nodes))) as pool:
        return dict(zip(nodes, pool.map(one, nodes), strict=True))


def _converse(lab: LabState, paths: LabPaths, node: str, *, reseed: bool = False, limit_s: float = SKEW_S) -> Skew:
    """Do what ``converse`` does by the guest agent, or over SSH where no agent answers."""
    clock = clock_of(lab)
    try:
        with agent.opened(lab.libvirt_uri, machines.domain_name(lab.id, node)) as guest:
            return by_agent(guest, node, reseed=reseed, limit_s=limit_s, clock=clock)
    except AgentError:
        return converse(paths, node, reseed=reseed, limit_s=limit_s, clock=clock)


def clock_of(lab: LabSummary) -> Clock:
    """Return the clock of the host that runs the machines: this host's, or that of another host over SSH."""
    if lab.remote is None:
        return time.time
    began = time.time()
    try:
        there = float(remote.run(lab.remote, "date +%s.%N"))
    except (LabError, ValueError) as error:
        raise UnavailableError(f"the clock of {lab.remote.name} can't be read: {error}") from None
    ahead = there - (began + time.time()) / 2
    return lambda: time.time() + ahead


def by_agent(guest: Agent, node: str, *, reseed: bool, limit_s: float, clock: Clock = time.time) -> Skew:
    """Do what ``converse`` does by the guest agent; raise AgentError where it does not answer."""
    began = clock()
    there = guest.clock()
    ahead = there - (began + clock()) / 2  # the answer is as old as half of the way there and back
    due = abs(ahead) > limit_s
    if due or reseed:
        done = guest.run(SCRIPT, _line(ahead if due else None, reseed), ANSWER_S)
        if done.code != 0 or "done" not in done.out:
            raise _unavailable(node, done.err or f"exit code {done.code}")
    return Skew(node, ahead, set=due)


def _line(ahead: float | None, reseed: bool) -> str:
    """Return what the script reads: how far to move the clock, and entropy."""
    return f"{'keep' if ahead is None else f'{-ahead:+.3f}'} {secrets.token_hex(64) if reseed else ''}\n"


def converse(
    paths: LabPaths,
    node: str,
    *,
    reseed: bool = False,
    limit_s: float = SKEW_S,
    clock: Clock = time.time,
) -> Skew:
    """Read a node's clock and set it where it differs by more than ``limit_s``; raise UnavailableError.

    The node's time is read after the login, so the difference has only the way of a line in it.
    """
    command = ["ssh", "-F", str(paths.ssh_config), node, "sudo", "sh", "-c", f"'{_quoted(SCRIPT_WITH_CLOCK)}'"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as ssh:
        assert ssh.stdin and ssh.stdout and ssh.stderr
        try:
            line = ssh.stdout.readline()
            now = clock()
            if not line.startswith("clock "):
                raise _unavailable(node, ssh.communicate(timeout=ANSWER_S)[1])
            ahead = float(line.split()[1]) - now
            due = abs(ahead) > limit_s
            out, said = ssh.communicate(_line(ahead if due else None, reseed), timeout=ANSWER_S)
        except subprocess.TimeoutExpired:
            raise _unavailable(node, f"no answer after {ANSWER_S:.0f} s") from None
        except BrokenPipeError:
            raise _unavailable(node, "the connection broke") from None
        finally:
            with suppress(ProcessLookupError):
                ssh.kill()
    if ssh.returncode != 0 or "done" not in out:
        raise _unavailable(node, said or f"exit code {ssh.returncode}")
    return Skew(node, ahead, set=due)


def _quoted(script: str) -> str:
    """Return a script for the inside of single quotes of the node's shell."""
    return script.replace("'", "'\\''")


def _unavailable(node: str, said: str) -> UnavailableError:
    return UnavailableError(
        f"the clock of {node} could not be set: {said.strip() or 'ssh does not say why'}",
        remedy=f"log in to it (./lab ssh {node}) and set it: sudo date -s @$(seconds since 1970)",
    )
