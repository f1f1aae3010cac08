"""The OCI runtime in containerd's words: what the script of roles/container_runtime changes, and what it leaves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jinja2
import pytest

from hoplab.core.paths import PROJECT

TEMPLATE = PROJECT / "roles" / "container_runtime" / "templates" / "oci-runtime.sh.j2"
# What crun prints for a container whose removal was cut off, as seen on nodes
GONE = "error opening file `/run/containerd/runc/k8s.io/183a97ff/status`: No such file or directory"
GONE_ALTOGETHER = "cannot open directory `/run/containerd/runc/k8s.io/183a97ff`: No such file or directory"
OTHER = "open pidfd: Permission denied"


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """The script over a runtime that prints its arguments, and fails with what `fails` has in it."""
    crun = tmp_path / "crun"
    crun.write_text(f'#!/bin/sh\necho "ran $*"\n[ ! -e {tmp_path}/fails ] || {{ cat {tmp_path}/fails >&2; exit 7; }}\n')
    script = tmp_path / "runtime"
    script.write_text(jinja2.Template(TEMPLATE.read_text()).render(container_runtime_oci_runtime=str(crun)))
    for file in (crun, script):
        file.chmod(0o755)
    return script


def run(runtime: Path, *words: str) -> tuple[int, str, str]:
    arguments = ["--root", "/run/containerd/runc/k8s.io", "--log-format", "json", *words]
    done = subprocess.run([runtime, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("verb", ["kill", "delete"])
@pytest.mark.parametrize("said", [GONE, GONE_ALTOGETHER])
def test_a_container_that_is_gone_does_not_exist(runtime: Path, verb: str, said: str) -> None:
    """containerd looks for these words, in checkKillError and where it deletes a task."""
    (runtime.parent / "fails").write_text(said + "\n")
    assert run(runtime, verb, "183a97ff") == (7, "", "container does not exist\n")


@pytest.mark.parametrize("verb", ["kill", "delete"])
def test_other_failures_say_what_they_said(runtime: Path, verb: str) -> None:
    (runtime.parent / "fails").write_text(OTHER + "\n")
    code, _, error = run(runtime, verb, "--all", "183a97ff", "9")
    assert (code, error.splitlines()[-1]) == (7, OTHER)


def test_what_works_is_silent(runtime: Path) -> None:
    assert run(runtime, "kill", "183a97ff", "9") == (0, "", "")


def test_all_else_is_the_runtimes_own(runtime: Path) -> None:
    """It gets the standard streams: those of `create` are the container's."""
    (runtime.parent / "fails").write_text(GONE + "\n")
    ran = "ran --root /run/containerd/runc/k8s.io --log-format json state 183a97ff\n"
    assert run(runtime, "state", "183a97ff") == (7, ran, GONE + "\n")
