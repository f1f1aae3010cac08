"""Run a verb on the labs of a fleet, some at a time, each as a process with its own log."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from hoplab.core import host_network
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.lab.fleet_members import Fleet, FleetError
from hoplab.lab.fleet_sheets import private_folder

CLOCK = re.compile(r"^\[ *\w+\] ")  # the time at the front of a line of plain progress


class _Running:
    """The running labs' processes: an interrupt reaches each of them once, also one that starts at that moment."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self.interrupted = False

    def add(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._processes.add(process)
            if self.interrupted:
                process.send_signal(signal.SIGINT)

    def discard(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._processes.discard(process)

    def interrupt(self) -> None:
        """End each process cleanly, as after Ctrl-C on its own terminal."""
        with self._lock:
            self.interrupted = True
            for process in self._processes:
                process.send_signal(signal.SIGINT)


def run_all(
    fleet: Fleet,
    members: Iterable[LabPaths],
    verb: str,
    parallel: int,
    progress: Progress,
    *,
    options: Mapping[LabPaths, Sequence[str]] | None = None,
    first_alone: bool = False,
) -> None:
    """Run ``./lab VERB`` on every member, each as a process with its own log; raise FleetError when some failed.

    ``options`` are further words for some of them. With ``first_alone`` the others wait for the end of the first one.
    """
    waiting = tuple(members)
    private_folder(fleet.folder)
    running = _Running()
    done: list[str] = []

    def run(member: LabPaths) -> str:
        if running.interrupted:
            return ""
        words = (verb, "--lab", member.lab, *(options or {}).get(member, ()))
        error = _run(fleet, member, words, progress, running)
        if not error:
            done.append(member.lab)
            progress.note(f"{member.lab}: {verb} is done ({len(done)} of {len(waiting)})")
        return error

    with ThreadPoolExecutor(parallel) as pool:
        try:
            ahead = [pool.submit(run, member).result() for member in waiting[: int(first_alone)]]
            errors = [*ahead, *pool.map(run, waiting[len(ahead) :])]
            failed = {member.lab: error for member, error in zip(waiting, errors, strict=True) if error}
        except KeyboardInterrupt:
            running.interrupt()
            raise
    if failed:
        lines = "\n".join(f"  {lab}: {error}" for lab, error in failed.items())
        raise FleetError(
            f"{len(failed)} of {len(waiting)} labs failed:\n{lines}",
            remedy="run the same command again to continue with them",
            log=str(fleet.folder),
        )


def _run(fleet: Fleet, member: LabPaths, words: Sequence[str], progress: Progress, running: _Running) -> str:
    """Run the verb for one member; return its error, "" where it succeeded."""
    start = partial(
        subprocess.Popen,
        [str(fleet.project / "lab"), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=fleet.project,
        start_new_session=True,  # run_all passes Ctrl-C on, once
    )
    process = host_network.run(start)  # of which each moves to the lab's by itself
    running.add(process)
    error = ""
    assert process.stdout is not None
    with process, process.stdout, fleet.log(member).open("w") as log:
        for line in process.stdout:
            log.write(line)
            log.flush()
            if line.startswith("error: "):
                error = line.removeprefix("error: ").strip()
            elif CLOCK.match(line):
                progress.task(f"{member.lab}: {CLOCK.sub('', line).strip()}")
    running.discard(process)
    return "" if process.returncode == 0 else error or f"ended with {process.returncode}"
