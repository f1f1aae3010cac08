"""The only importer of ansible-runner: runs a playbook and turns its events into progress, figures and errors.

A failure is one short text on the screen; everything else is in Ansible's own log below ``<lab>/ansible``:

    error: worker1: Join the cluster: kubeadm join: error execution phase preflight: ...
      -> fix the cause, then continue where it stopped: ./lab up --lab dev
      log: .lab/dev/ansible/artifacts/<time>/stdout
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import ansible_runner

from hoplab.cluster import ansible_subprocess, stamps
from hoplab.cluster.control_plane import HostedControlPlane
from hoplab.cluster.inventory import inputs_digests
from hoplab.core import proxies
from hoplab.core.errors import ConvergeError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.core.progress import CURRENT, Progress
from hoplab.host import netns as namespaces
from hoplab.spec.plan import LabPlan

BIN_DIR = PROJECT / "playbooks/bin"  # has an ansible-playbook that ends with this process
KEPT_RUNS = 5  # logs of earlier runs that are kept
CHECKS = ("Validating arguments", "Check that the inputs make sense")  # of a role: over before one could read it
RESULTS = ("runner_on_ok", "runner_on_failed", "runner_on_unreachable")
SKIPPED_S = 2.0  # within which Ansible has decided to skip a task
MESSAGE_LINES = 8  # of a task's output, in an error


@dataclass(frozen=True)
class ConvergeResult:
    """What a converge did."""

    changed: int  # tasks that changed something
    tasks: int  # tasks that ran
    seconds: float


@dataclass(frozen=True)
class Failure:
    """One failed task on one host."""

    host: str
    task: str
    message: str


def converge(
    plan: LabPlan,
    paths: LabPaths,
    netns: str,
    progress: Progress,
    *,
    uri: str = "",
    full: bool = False,
    only: str = "",
    cancelled: Callable[[], bool] = lambda: False,
) -> ConvergeResult:
    """Apply the roles to every machine (or ``only`` one) whose inputs changed; with ``full`` to every machine.

    Where the guest agents of the machines at libvirt's ``uri`` show that no inputs changed, Ansible does not start.
    May start before the machines answer. ``cancelled`` is called about once a second; True ends the run.
    """
    inputs = inputs_digests(paths.inventory, paths.project)
    began = time.monotonic()
    in_place = True
    if plan.placement == "hosted":
        applied = paths.control_plane / "applied"
        in_place = applied.exists() and applied.read_text().strip() == inputs[0]
        if in_place:  # the playbook will leave it alone, and the host may have been rebooted
            HostedControlPlane(paths, netns).start()
    if in_place and uri and not (full or only) and stamps.are_in_place(plan, paths, uri, inputs):
        return ConvergeResult(changed=0, tasks=0, seconds=time.monotonic() - began)
    again = f"remove the cause, then continue where it stopped: ./lab up --lab {paths.lab}"
    given = {"inputs": inputs[0], "worker_inputs": inputs[1], "full": full}
    return play("site.yml", paths, netns, progress, again, variables=given, limit=only, cancelled=cancelled)


def leave(
    nodes: Iterable[str], paths: LabPaths, netns: str, progress: Progress, *, comes_back: bool = False
) -> ConvergeResult:
    """Drain, delete and reset these workers, which the inventory still has; only drain one that ``comes_back``."""
    again = f"remove the cause and run it again: ./lab up --lab {paths.lab}"
    given = {"comes_back": comes_back}
    return play("leave.yml", paths, netns, progress, again, variables=given, limit=",".join(nodes))


def reset(paths: LabPaths, netns: str, progress: Progress) -> ConvergeResult:
    """Remove the cluster from every machine; raise ConvergeError where one is not as it was before it joined."""
    again = f"remove the cause and run it again, or make the machines anew: ./lab destroy --lab {paths.lab}"
    return play("reset.yml", paths, netns, progress, again)


def play(
    playbook: str,
    paths: LabPaths,
    netns: str,
    progress: Progress,
    remedy: str,
    *,
    variables: Mapping[str, Any] | None = None,
    limit: str = "",
    cancelled: Callable[[], bool] = lambda: False,
) -> ConvergeResult:
    """Run a playbook on the lab, from within its namespace; raise ConvergeError with the remedy where it fails."""
    paths.runner.mkdir(parents=True, exist_ok=True)
    paths.runner.chmod(0o700)  # ansible's logs are for the lab's owner
    events = RunEvents(progress)
    ident = datetime.now().strftime("%Y%m%d-%H%M%S")
    began = time.monotonic()
    arguments = {
        "private_data_dir": str(paths.runner),
        "project_dir": str(paths.project),
        "playbook": str(paths.project / "playbooks" / playbook),
        "inventory": str(paths.inventory),
        "limit": limit or None,
        "extravars": dict(variables or {}),
        "envvars": {
            "ANSIBLE_CONFIG": str(paths.project / "ansible.cfg"),
            "ANSIBLE_HOME": str(paths.runner / "home"),
            "ANSIBLE_HOST_KEY_CHECKING": "True",  # ansible-runner's own default is False
            "KUBECACHEDIR": str(paths.discovery),
            "LC_ALL": "C.UTF-8",  # Ansible refuses any other encoding, and a locale that this host does not have
            **proxies.none(),  # nothing is downloaded, and kubeadm would write proxies into manifests
            "PATH": os.pathsep.join([str(BIN_DIR), str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        },
        "ident": ident,
        "rotate_artifacts": KEPT_RUNS,
        "suppress_env_files": True,
        "quiet": True,
    }

    def look() -> bool:
        events.show_running()
        return cancelled()

    with namespaces.entered(netns):
        if CURRENT.forks:
            status = ansible_runner.run(**arguments, event_handler=events, cancel_callback=look).status
        else:
            status = ansible_subprocess.run(arguments, events, look)
    artifacts = paths.runner / "artifacts" / ident
    with suppress(FileNotFoundError):
        (artifacts / "command").unlink()  # holds the whole environment of whoever ran this
    log = artifacts / "stdout"
    if status != "successful":
        raise run_error(events, status, log, remedy)
    return ConvergeResult(
        changed=events.changed,
        tasks=events.tasks,
        seconds=time.monotonic() - began,
    )


class RunEvents:
    """The event handler of a run: shows the current task, counts, and collects failures.

    Ansible starts a task before it decides whether to skip it. So a task is shown once it has a result, or runs for
    ``SKIPPED_S``.
    """

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self.progress = progress
        self._clock = clock
        self._started: dict[str, tuple[str, float]] = {}  # host -> its task that is not shown yet, and since when
        self.changed = 0
        self.tasks = 0
        self.failures: list[Failure] = []

    def __call__(self, event: dict[str, Any]) -> bool:
        data = event.get("event_data", {})
        kind, host = event.get("event"), str(data.get("host"))
        if kind in RESULTS and host in self._started:
            self._show(host)
        if kind == "runner_on_start" and not str(data.get("task")).startswith(CHECKS):
            self._started[host] = f"{host}: {data.get('task')}", self._clock()
        elif kind == "runner_on_skipped":
            self._started.pop(host, None)
        elif kind == "runner_on_ok":
            self.tasks += 1
            result = data.get("res") or {}
            self.changed += bool(result.get("changed"))
        elif kind == "runner_on_failed" and not data.get("ignore_errors"):
            self.tasks += 1
            self.failures.append(Failure(data["host"], data["task"], task_message(data.get("res") or {})))
        elif kind == "runner_on_unreachable":
            self.failures.append(Failure(data["host"], data["task"], task_message(data.get("res") or {})))
        return True  # keep the event: it is part of the log

    def show_running(self) -> None:
        """Show the tasks that have run for a while; to be called now and then."""
        for host in [host for host, (_, since) in self._started.items() if self._clock() - since >= SKIPPED_S]:
            self._show(host)

    def _show(self, host: str) -> None:
        self.progress.task(self._started.pop(host)[0])


def task_message(result: dict[str, Any]) -> str:
    """Return the few lines of a task's result that hold the reason of its failure.

    >>> task_message({"msg": "non-zero return code", "rc": 1, "stderr": "no such file"})
    'no such file'
    """
    texts = [str(result.get(key) or "") for key in ("stderr", "module_stderr", "msg", "stdout", "exception")]
    for item in result.get("results") or []:
        if isinstance(item, dict) and (item.get("failed") or item.get("unreachable")):
            return task_message(item)
    generic = ("non-zero return code", "MODULE FAILURE", "One or more items failed")
    for text in texts:
        if text.strip() and not text.startswith(generic):
            return "\n".join(text.strip().splitlines()[-MESSAGE_LINES:])
    return next((text for text in texts if text.strip()), "it gave no reason")


def run_error(events: RunEvents, status: str, log: Path, remedy: str) -> ConvergeError:
    """Return the error of a run that did not succeed."""
    lines = [f"{failure.host}: {failure.task}: {failure.message}" for failure in events.failures]
    if not lines:
        last = log.read_text(errors="replace").strip().splitlines()[-MESSAGE_LINES:] if log.exists() else []
        lines = [f"Ansible ended with status {status!r}", *(f"  {line}" for line in last)]
    shown = os.path.relpath(log) if log.is_relative_to(Path.cwd()) else str(log)
    return ConvergeError(
        "\n".join(lines),
        remedy=remedy,
        log=shown,
    )
