"""The life of one real lab, told through its command line. The files of this folder run in order, on one lab."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hoplab.core.paths import PROJECT, LabPaths
from hoplab.core.wait import NotYet, until
from hoplab.host import netns
from hoplab.lab.checkpoint.store import Store
from hoplab.lab.kubeconfig import users_file

LAB = "test"
HOUR = 3600.0  # far beyond any command of a healthy lab: it ends a hang, it does not time anything


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run what is marked on_request")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is run on request; pytest's last line counts it as deselected."""
    every = config.getoption("--all", default=True)  # not there where the tests of several folders are collected
    left_out = [item for item in items if item.get_closest_marker("on_request") and not every]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def some_on_request(values: Iterable[Any], every_run: Collection[Any], name: Callable[[Any], str]) -> list[Any]:
    """Return the values as parameters of a test; those not of ``every_run`` are marked on_request."""
    return [
        pytest.param(value, id=name(value), marks=() if value in every_run else pytest.mark.on_request)
        for value in values
    ]


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    code: int
    out: str

    def json(self) -> Any:
        """The JSON document that a verb with --json printed."""
        return json.loads(self.out[self.out.index("{") :])


@dataclass(frozen=True)
class LabCommand:
    """``./lab`` on the lab under test."""

    logs: Path
    paths: LabPaths

    def __call__(self, *words: str, expect: int | None = 0, env: dict[str, str] | None = None) -> Ran:
        """Run a verb to its end; standard output and error come back together and are kept as a log."""
        with self._log(words).open("w+") as log:
            print(f"$ ./lab {' '.join(words)}", file=sys.stderr, flush=True)
            with self._started(words, log.fileno(), env) as process:
                code = process.wait(timeout=HOUR)
            log.seek(0)
            ran = Ran(code, log.read())
        if expect is not None:
            assert ran.code == expect, f"./lab {' '.join(words)} ended with {ran.code}:\n{ran.out[-4000:]}"
        return ran

    def killed_when(self, reached: Callable[[], bool], *words: str, env: dict[str, str] | None = None) -> str:
        """Start a verb and kill -9 its whole process group as soon as a condition holds; what it had printed."""
        with self._log(words).open("w+") as log:
            with self._started(words, log.fileno(), env) as process:

                def is_due() -> NotYet | None:
                    if process.poll() is not None:
                        log.seek(0)
                        pytest.fail(f"./lab {' '.join(words)} ended before it could be killed:\n{log.read()[-4000:]}")
                    return None if reached() else NotYet("the moment to kill it never came")

                until(is_due, HOUR, poll_s=0.1)
            log.seek(0)
            return log.read()

    @contextmanager
    def _started(
        self, words: tuple[str, ...], log: int, env: dict[str, str] | None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A running ./lab; what still runs at the end of the body, whatever ended it, is killed with its group."""
        process = self._start(words, log, env)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _start(self, words: tuple[str, ...], log: int, env: dict[str, str] | None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(PROJECT / "lab"), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HOPLAB_LAB": self.paths.lab, **(env or {})},
            cwd=PROJECT,
            start_new_session=True,  # a process group of its own, so that killing it is like losing the terminal
        )

    def _log(self, words: tuple[str, ...]) -> Path:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self.logs / f"{len(list(self.logs.iterdir())):02d}-{words[0]}.log"


@pytest.fixture(scope="session")
def paths() -> LabPaths:
    return LabPaths(LAB)


@pytest.fixture(scope="session")
def lab(paths: LabPaths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCommand]:
    """The command, on a lab that does not exist yet; whatever the tests leave is removed at the end."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the system test makes network namespaces and virtual machines")
    command = LabCommand(tmp_path_factory.mktemp("lab-logs"), paths)

    def clean() -> None:
        command("destroy")
        for name in Store(paths).names():
            command("checkpoint", "delete", name)

    clean()
    yield command
    clean()


def virsh(paths: LabPaths, *words: str) -> str:
    """virsh on the lab's private libvirt, for looking at it (and breaking it) from behind hoplab's back."""
    uri = json.loads(paths.state.read_text())["libvirt_uri"]
    return subprocess.run(["virsh", "-c", uri, *words], check=True, capture_output=True, text=True).stdout


def processes_of(paths: LabPaths) -> list[int]:
    """Processes that live in the lab's network namespace."""
    return netns.processes(paths.netns) if netns.exists(paths.netns) else []


def recorded(paths: LabPaths, kind: str) -> int:
    """How many resources of a kind the engine's state holds as made."""
    try:
        resources = json.loads(paths.engine_state.read_text())["resources"]
    except (FileNotFoundError, ValueError):
        return 0
    return sum(kind in resource["type"].lower() and not resource.get("pending") for resource in resources)


def domains(paths: LabPaths) -> list[str]:
    return sorted(virsh(paths, "list", "--all", "--name").split())


def assert_nothing_left(paths: LabPaths) -> None:
    assert not paths.root.exists()
    assert not paths.run.exists()
    assert not any(file.exists() for file in (paths.inventory, paths.ssh_config, paths.ssh_include))
    kubeconfig = users_file(paths)
    assert not kubeconfig.exists() or paths.id not in kubeconfig.read_text(), f"a context is left in {kubeconfig}"
    spaces = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    assert paths.netns not in spaces
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = status.read_bytes()
        except OSError:
            continue  # that process has just ended
        assert paths.id.encode() not in command, f"process {status.parent.name} is left: {command!r}"
