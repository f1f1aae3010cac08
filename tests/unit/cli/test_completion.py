"""Completion: candidates without libvirt, and scripts that bash, zsh and fish understand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from benchmarks.imports import imported_by
from hoplab import cli
from hoplab.cli import completion
from hoplab.core import paths as places
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.practice import discover


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the labs dev, which is made, and blue."""
    for lab in ("dev", "blue"):
        (tmp_path / f"Pulumi.{lab}.yaml").touch()
    (tmp_path / "Pulumi.yaml").touch()
    paths = LabPaths("dev", tmp_path)
    paths.root.mkdir(parents=True)
    paths.state.write_text(json.dumps({"nodes": [{"name": "worker1"}, {"name": "worker2"}, {"name": "cp1"}]}))
    monkeypatch.setattr(places, "PROJECT", tmp_path)
    monkeypatch.setattr("hoplab.cli.options.LabPaths", lambda lab: LabPaths(lab, tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HOPLAB_LAB", raising=False)
    return tmp_path


def offered(*words: str) -> list[str]:
    """What is offered for the last word."""
    complete = ShellComplete(cli.cli, {}, "./lab", completion.VARIABLE)
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.usefixtures("project")
def test_names_of_labs_machines_and_lessons() -> None:
    assert offered("status", "--lab", "") == ["blue", "dev"]
    assert offered("up", "--lab", "b") == ["blue"]
    assert offered("ssh", "worker") == ["worker1", "worker2"]
    assert offered("ssh", "--lab", "blue", "") == []
    assert offered("practice", "start", "veth", "--node", "c") == ["cp1"]
    lessons = offered("verify", "-k", "who_d")
    assert lessons == ["who_decrypts_is_written_down"]
    assert "ssh" in offered("s") and "completion" in offered("")
    assert offered("completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.usefixtures("project")
def test_exercises_have_the_names_of_their_modules() -> None:
    assert offered("practice", "check", "") == sorted(exercise.name for exercise in discover())


def test_checkpoints_of_the_lab(project: Path) -> None:
    kept = project / "cache" / "hoplab" / "checkpoints" / LabPaths("dev", project).id
    for name in ("day-4", ".part"):
        (kept / name).mkdir(parents=True)
    (kept / "a file").touch()
    assert offered("checkpoint", "restore", "") == ["day-4"]
    assert offered("checkpoint", "create", "") == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nodes": 5}'])
def test_a_state_that_cannot_be_read_offers_nothing(project: Path, text: str) -> None:
    LabPaths("dev", project).state.write_text(text)
    assert offered("ssh", "") == []


def script(shell: str) -> str:
    result = CliRunner().invoke(cli.cli, ["completion", shell], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_runs_what_was_typed(shell: str) -> None:
    text = script(shell)
    typed = {"bash": f"{completion.VARIABLE}=bash_complete $1)", "zsh": "${(Q)words[1]})", "fish": "[1])"}
    assert typed[shell] in text
    assert "commands[lab]" not in text and "_lab_completion" in text


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_script_is_one_of_its_shell(shell: str, check: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "script").write_text(script(shell))
    subprocess.run([program, check, tmp_path / "script"], check=True, timeout=60)


def test_bash_completes_by_the_program_that_was_typed(tmp_path: Path) -> None:
    lab = tmp_path / "a lab" / "lab"
    lab.parent.mkdir()
    words = f"exec {sys.executable} -P -c 'from hoplab.cli import main; main()'"
    lab.write_text(f"#!/bin/bash\n{words}\n")
    lab.chmod(0o755)
    (tmp_path / "script").write_text(script("bash"))
    typed = """
        source ./script; cd 'a lab'
        complete -p lab
        COMP_WORDS=(./lab completion z); COMP_CWORD=2
        _lab_completion ./lab; echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", typed],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert done.stdout.splitlines() == ["complete -o nosort -F _lab_completion lab", "zsh"], done.stderr


def test_candidates_import_no_heavy_package() -> None:
    heavy = {"kubernetes", "libvirt", "pulumi", "pydantic", "rich", "yaml"}
    assert not {name.partition(".")[0] for name in imported_by("completion", "bash")} & heavy
