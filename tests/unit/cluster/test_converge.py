"""What a converge tells the person who runs it: events turned into progress, figures and errors."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_runner
import pytest

from hoplab.cluster.converge import SKIPPED_S, RunEvents, converge, leave, play, task_message
from hoplab.core.errors import ConvergeError
from hoplab.core.paths import LabPaths
from tests.support.labs import PLAN
from tests.support.progress import RecordingProgress


def event(kind: str, task: str = "Join the cluster", host: str = "worker1", **data: Any) -> dict[str, Any]:
    return {"event": kind, "event_data": {"host": host, "task": task, **data}}


RUN = [
    event("playbook_on_play_start", play="Control plane"),
    event("runner_on_start", task="Start etcd", host="control-plane"),
    event("runner_on_ok", task="Start etcd", host="control-plane", res={"changed": True}),
    event("playbook_on_play_start", play="Workers"),
    event("runner_on_start"),
    event("runner_on_ok", res={"changed": False}),
    event("runner_on_skipped"),
    event("playbook_on_stats"),
]
FAILED = event(
    "runner_on_failed",
    res={"rc": 1, "msg": "non-zero return code", "stderr": "error: no route to the API server\n"},
)


@dataclass
class FakeRunner:
    """ansible-runner without Ansible: plays the given events to the handler."""

    events: list[dict[str, Any]]
    status: str = "successful"
    given: dict[str, Any] = field(default_factory=dict)

    def run(self, **given: Any) -> FakeRunner:
        self.given = given
        artifacts = Path(given["private_data_dir"]) / "artifacts" / given["ident"]
        artifacts.mkdir(parents=True)
        (artifacts / "command").write_text('{"env": {"SECRET": "of the user"}}')
        (artifacts / "stdout").write_text("first line\nERROR! the playbook could not be found\n")
        for event in self.events:
            given["event_handler"](event)
        return self


def ran(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    events: list[dict[str, Any]],
    status: str = "successful",
    **options: Any,
) -> tuple[FakeRunner, Any, RecordingProgress]:
    fake, told = FakeRunner(events, status), RecordingProgress()
    monkeypatch.setattr(ansible_runner, "run", fake.run)
    monkeypatch.setattr("hoplab.cluster.converge.inputs_digests", lambda *_: ("0123", "89ab"))
    return fake, converge(PLAN, LabPaths("dev", tmp_path), "", told, **options), told


def test_a_converge_counts_tasks_and_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, result, _ = ran(monkeypatch, tmp_path, RUN)
    assert (result.changed, result.tasks) == (1, 2)


def test_the_current_task_and_host_are_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, _, told = ran(monkeypatch, tmp_path, RUN)
    assert told.tasks == ["control-plane: Start etcd", "worker1: Join the cluster"]


def test_a_skipped_task_is_not_shown_and_a_long_one_before_it_ends() -> None:
    told, now = RecordingProgress(), [0.0]
    seen = RunEvents(told, clock=lambda: now[0])
    seen(event("runner_on_start", task="Drain", host="worker1"))
    seen(event("runner_on_start", task="Join", host="worker2"))
    seen(event("runner_on_skipped", task="Drain", host="worker1"))
    seen.show_running()
    assert told.tasks == []
    now[0] = SKIPPED_S
    seen.show_running()
    seen(event("runner_on_ok", task="Join", host="worker2"))
    assert told.tasks == ["worker2: Join"]


def test_a_run_shows_its_long_tasks_when_it_asks_whether_it_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("hoplab.cluster.converge.SKIPPED_S", 0.0)

    class Asking(FakeRunner):
        def run(self, **given: Any) -> FakeRunner:
            given["event_handler"](event("runner_on_start"))
            assert given["cancel_callback"]() is False
            return super().run(**given)

    told = RecordingProgress()
    monkeypatch.setattr(ansible_runner, "run", Asking([]).run)
    play("reset.yml", LabPaths("dev", tmp_path), "", told, "")
    assert told.tasks == ["worker1: Join the cluster"]


def test_a_failed_task_is_one_short_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConvergeError) as caught:
        ran(monkeypatch, tmp_path, [*RUN[:5], FAILED], "failed")
    assert caught.value.message == "worker1: Join the cluster: error: no route to the API server"
    assert caught.value.remedy == "remove the cause, then continue where it stopped: ./lab up --lab dev"
    assert Path(caught.value.log).name == "stdout"


def test_an_unreachable_host_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lost = event("runner_on_unreachable", res={"msg": "Connection timed out", "unreachable": True})
    with pytest.raises(ConvergeError, match="worker1: Join the cluster: Connection timed out"):
        ran(monkeypatch, tmp_path, [lost], "failed")


def test_a_run_without_a_failed_task_shows_the_end_of_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConvergeError, match="the playbook could not be found"):
        ran(monkeypatch, tmp_path, [], "failed")


def test_an_ignored_failure_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ignored = event("runner_on_failed", ignore_errors=True, res={"msg": "no matter"})
    _, result, _ = ran(monkeypatch, tmp_path, [*RUN, ignored])
    assert result.changed == 1


def test_a_run_does_not_keep_the_users_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran(monkeypatch, tmp_path, RUN)
    paths = LabPaths("dev", tmp_path)
    assert not list(paths.runner.rglob("command"))
    assert paths.runner.stat().st_mode & 0o777 == 0o700


def test_ansible_gets_inventory_variables_and_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake, _, _ = ran(monkeypatch, tmp_path, RUN, full=True)
    assert fake.given["extravars"] == {"full": True, "inputs": "0123", "worker_inputs": "89ab"}
    assert fake.given["playbook"] == str(tmp_path / "playbooks/site.yml")
    assert fake.given["inventory"] == str(tmp_path / "inventory/dev.yml")
    assert fake.given["suppress_env_files"] is True
    assert os.pathsep in fake.given["envvars"]["PATH"]
    assert Path(fake.given["envvars"]["KUBECACHEDIR"]).is_relative_to(fake.given["project_dir"])
    assert fake.given["envvars"]["ANSIBLE_HOST_KEY_CHECKING"] == "True", "ansible-runner would switch it off"


def test_workers_that_leave(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = FakeRunner(RUN)
    monkeypatch.setattr(ansible_runner, "run", fake.run)
    assert leave(["worker2", "worker3"], LabPaths("dev", tmp_path), "", RecordingProgress()).changed == 1
    assert (Path(fake.given["playbook"]).name, fake.given["limit"]) == ("leave.yml", "worker2,worker3")


@pytest.mark.parametrize(("stamp", "starts"), [("0123", 1), ("4567", 0), ("", 0)])
def test_an_applied_control_plane_is_kept_running(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stamp: str, starts: int
) -> None:
    started: list[str] = []
    monkeypatch.setattr("hoplab.cluster.converge.HostedControlPlane.start", lambda hosted: started.append(hosted.lab))
    paths = LabPaths("dev", tmp_path)
    if stamp:
        paths.control_plane.mkdir(parents=True)
        (paths.control_plane / "applied").write_text(f"{stamp}\n")
    ran(monkeypatch, tmp_path, RUN)
    assert len(started) == starts


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"msg": "unsupported parameter"}, "unsupported parameter"),
        ({"msg": "non-zero return code", "stderr": "", "stdout": "the reason"}, "the reason"),
        ({"msg": "MODULE FAILURE\nSee stdout/stderr", "module_stderr": "sudo: no such user"}, "sudo: no such user"),
        ({"stderr": "\n".join(str(n) for n in range(20))}, "\n".join(str(n) for n in range(12, 20))),
        (
            {"msg": "One or more items failed", "results": [{"changed": True}, {"failed": True, "msg": "second item"}]},
            "second item",
        ),
        ({"msg": "non-zero return code"}, "non-zero return code"),
        ({}, "it gave no reason"),
    ],
)
def test_task_message(result: dict[str, Any], message: str) -> None:
    assert task_message(result) == message
