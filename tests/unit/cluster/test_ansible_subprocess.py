"""ansible-runner in a process of its own: the same events, figures and endings as in this one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from hoplab.cluster import ansible_subprocess
from hoplab.cluster.converge import play
from hoplab.core.errors import ConvergeError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import CURRENT
from tests.support.progress import RecordingProgress

PLAYBOOK = """
- name: Here
  hosts: all
  gather_facts: false
  tasks:
    - name: Say it
      ansible.builtin.debug:
        msg: "{{ word }}"
    - name: Change it
      ansible.builtin.command: "{{ command }}"
"""


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabPaths:
    """A project with one playbook for this machine, and a process that may not fork."""
    monkeypatch.setattr(CURRENT, "forks", False)
    here = f"all: {{hosts: {{here: {{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}}}}}"
    for name, text in {"playbooks/it.yml": PLAYBOOK, "inventory/dev.yml": here, "ansible.cfg": "[defaults]\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return LabPaths("dev", tmp_path)


def played(paths: LabPaths, command: str, **options: Any) -> tuple[Any, RecordingProgress]:
    told = RecordingProgress()
    return play("it.yml", paths, "", told, "mend it", variables={"word": "hi", "command": command}, **options), told


def test_a_run_passes_events_and_status_on(paths: LabPaths) -> None:
    result, told = played(paths, "true")
    assert (result.changed, result.tasks) == (1, 2)
    assert told.tasks == ["here: Say it", "here: Change it"]


def test_a_failed_run_has_the_status_failed(paths: LabPaths) -> None:
    with pytest.raises(ConvergeError, match="here: Change it: ls: cannot access '/nonexistent'"):
        played(paths, "ls /nonexistent")


def test_a_cancelled_run_ends_early(paths: LabPaths) -> None:
    begun = paths.project / "begun"
    task = f"bash -c 'touch {begun}; while test -e {begun}; do read -t 0.1 line <>{begun}.never; done'"
    os.mkfifo(f"{begun}.never")
    with pytest.raises(ConvergeError, match="Ansible ended with status 'canceled'"):
        played(paths, task, cancelled=begun.exists)
    begun.unlink()  # a task's own process goes on until its end


def test_a_run_whose_process_ends_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert ansible_subprocess.run({}, lambda _event: True, lambda: False) == ansible_subprocess.LOST
