from __future__ import annotations

import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pulumi.automation import CommandError, ConcurrentUpdateError, EngineEvent, OutputValue
from pulumi.automation._cmd import CommandResult

from hoplab.core.errors import BusyError, EngineError, LabError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.engine import Applied, Change, schema
from hoplab.engine.pulumi_cli import PulumiCli, environment, workspace


class Heard:
    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.notes: list[str] = []

    def phase(self, title: str) -> AbstractContextManager[None]:
        return nullcontext()

    def task(self, text: str) -> None:
        self.tasks.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


def step(op: str, type: str, name: str, *diffs: str) -> EngineEvent:
    urn = f"urn:pulumi:dev::hoplab::hoplab:lab:Lab${type}::{name}"
    metadata = {"op": op, "urn": urn, "type": type, "provider": "p", "diffs": list(diffs)}
    return EngineEvent.from_json({"sequence": 1, "timestamp": 1, "resourcePreEvent": {"metadata": metadata}})


def says(severity: str, message: str) -> EngineEvent:
    diagnostic = {"message": message, "color": "never", "severity": severity}
    return EngineEvent.from_json({"sequence": 1, "timestamp": 1, "diagnosticEvent": diagnostic})


DOMAIN = "libvirt:index/domain:Domain"
EVENTS = [
    step("same", "pulumi:pulumi:Stack", "hoplab-dev"),
    step("create", "hoplab:lab:Node", "worker1"),
    step("same", "libvirt:index/pool:Pool", "store"),
    step("create-replacement", DOMAIN, "worker1"),
    step("replace", DOMAIN, "worker1", "memory", "disks"),
    step("delete-replaced", DOMAIN, "worker1"),
    step("delete", DOMAIN, "worker2"),
    says("info", "<{%fg 13%}>starting libvirt<{%reset%}>"),
    says("warning", "old plugin"),
    says("debug", "ed25519_private: never to be seen"),
]
CHANGES = (
    Change("same", "Pool", "store"),
    Change("replace", "Domain", "worker1", "disks, memory"),
    Change("delete", "Domain", "worker2"),
)


class FakeStack:
    """A stack that reports the same events whatever it is asked."""

    name = "dev"

    def __init__(self, error: Exception | None = None, *more: EngineEvent) -> None:
        self.error = error
        self.events = [*EVENTS, *more]
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.removed: dict[str, Any] = {}
        self.workspace = SimpleNamespace(remove_stack=lambda name, **options: self.removed.update({name: options}))

    def _do(self, verb: str, on_event: Callable[[EngineEvent], None], options: dict[str, Any]) -> SimpleNamespace:
        self.asked.append((verb, options))
        for event in self.events:
            on_event(event)
        if self.error:
            raise self.error
        return SimpleNamespace(outputs=self.outputs())

    def up(self, on_event: Callable[[EngineEvent], None], **options: Any) -> SimpleNamespace:
        return self._do("up", on_event, options)

    def preview(self, on_event: Callable[[EngineEvent], None], **options: Any) -> SimpleNamespace:
        return self._do("preview", on_event, options)

    def destroy(self, on_event: Callable[[EngineEvent], None], **options: Any) -> SimpleNamespace:
        return self._do("destroy", on_event, options)

    def outputs(self) -> dict[str, OutputValue]:
        return {"network": OutputValue("lab", secret=False)}


@pytest.fixture
def paths(tmp_path: Path) -> LabPaths:
    return LabPaths("dev", tmp_path)


def engine(paths: LabPaths, stack: FakeStack | None) -> PulumiCli:
    return PulumiCli(paths, lambda create: stack)  # type: ignore[arg-type,return-value]


def test_up_reports_libvirt_objects_and_outputs(paths: LabPaths) -> None:
    stack, heard = FakeStack(), Heard()
    assert engine(paths, stack).up(heard) == Applied({"network": "lab"}, CHANGES)
    assert stack.asked == [("up", {"refresh": True, "color": "never", "exclude": None})]
    assert heard.tasks == ["replace Domain worker1", "delete Domain worker2", "starting libvirt"]
    assert heard.notes == ["old plugin"]


def test_preview_reports_the_same(paths: LabPaths) -> None:
    assert engine(paths, FakeStack()).preview(Heard()) == CHANGES


def test_destroy_keeps_the_spec(paths: LabPaths) -> None:
    stack = FakeStack()
    assert engine(paths, stack).destroy(Heard()) == CHANGES
    assert stack.removed == {"dev": {"preserve_config": True}}


def test_without_a_stack_there_is_nothing(paths: LabPaths) -> None:
    assert engine(paths, None).destroy(Heard()) == ()
    assert engine(paths, None).outputs() is None


def failed(kind: type[CommandError], text: str) -> CommandError:
    return kind(CommandResult(stdout="", stderr=text, code=255))


def test_a_failure_is_told_with_pulumis_diagnostics(paths: LabPaths) -> None:
    stack = FakeStack(failed(CommandError, "long output"), says("error", "<{%fg 1%}>pool not found<{%reset%}>\n"))
    with pytest.raises(EngineError) as caught:
        engine(paths, stack).up(Heard())
    assert caught.value.message == "pulumi failed: pool not found"
    assert caught.value.remedy == "correct the cause; `lab up` continues"


def test_a_failure_without_diagnostics_is_told_with_its_last_lines(paths: LabPaths) -> None:
    with pytest.raises(EngineError, match="no such plugin"):
        engine(paths, FakeStack(failed(CommandError, "\n".join([*"abcdefghijk", "no such plugin"])))).up(Heard())


def test_an_error_of_the_cluster_comes_through_as_it_was(paths: LabPaths) -> None:
    told = "hoplab.lab.resources.Failed: hoplab: worker1: Join: no route\n  -> ask\n  log: l"
    text = f"Traceback (most recent call last):\n  ...\n{told}"
    with pytest.raises(LabError) as caught:
        engine(paths, FakeStack(failed(CommandError, "long output"), says("error", text))).up(Heard())
    assert (caught.value.message, caught.value.remedy, caught.value.log) == ("worker1: Join: no route", "ask", "l")


def test_the_cluster_is_reported(paths: LabPaths) -> None:
    stack = FakeStack(None, step("update", schema.CLUSTER, "dev", "image"), step("same", schema.HOST, "dev"))
    assert engine(paths, stack).preview(Heard()) == (*CHANGES, Change("update", "Cluster", "dev", "image"))


def test_the_cli_works_in_a_folder_of_the_lab(paths: LabPaths) -> None:
    (paths.project / "Pulumi.yaml").write_text((PROJECT / "Pulumi.yaml").read_text())
    folder = workspace(paths)
    project = yaml.safe_load((folder / "Pulumi.yaml").read_text())
    assert folder == paths.root / "pulumi"
    assert (project["name"], project["main"]) == ("hoplab", str(paths.project))
    assert project["runtime"]["options"]["virtualenv"] == str(paths.project / ".venv")


def test_a_locked_stack_says_how_to_unlock_it(paths: LabPaths) -> None:
    with pytest.raises(BusyError) as caught:
        engine(paths, FakeStack(failed(ConcurrentUpdateError, "locked"))).up(Heard())
    assert caught.value.message == "another Pulumi operation is working on the stack 'dev'"
    assert caught.value.remedy == "wait for it; if it was interrupted: pulumi cancel --stack dev"


def test_without_an_account_state_and_passphrase_are_the_labs_own(paths: LabPaths, tmp_path: Path) -> None:
    told = environment(paths, {"PULUMI_HOME": str(tmp_path / "none")})
    assert told["PULUMI_BACKEND_URL"] == f"file://{paths.root}/pulumi"
    passphrase = Path(told["PULUMI_CONFIG_PASSPHRASE_FILE"])
    assert stat.S_IMODE(passphrase.stat().st_mode) == 0o600
    assert len(passphrase.read_text()) > 20
    assert environment(paths, {"PULUMI_HOME": str(tmp_path / "none")}) == told
    assert passphrase.read_text() == Path(told["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text()


def test_pulumis_folder_is_that_of_the_users_home(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their own namespaces the user is root, and the CLI looks root's home up."""
    monkeypatch.setenv("HOME", "/home/student")
    assert environment(paths, {})["PULUMI_HOME"] == "/home/student/.pulumi"


@pytest.mark.parametrize("how", ["variable", "token", "login"])
def test_what_the_user_has_settled_is_kept(paths: LabPaths, tmp_path: Path, how: str) -> None:
    user = {"PULUMI_HOME": str(tmp_path), "PULUMI_CONFIG_PASSPHRASE": ""}
    if how == "login":
        (tmp_path / "credentials.json").write_text('{"current": "https://api.example.org"}')
    else:
        user |= {"PULUMI_BACKEND_URL": "s3://x"} if how == "variable" else {"PULUMI_ACCESS_TOKEN": "t"}
    direct = {"no_grpc_proxy": "localhost,127.0.0.1,::1"}  # the SDK finds the engine beside an HTTPS_PROXY
    assert environment(paths, user) == {"PULUMI_SKIP_UPDATE_CHECK": "true", **direct}
    assert environment(paths, {**user, "no_grpc_proxy": "mine"}) == {"PULUMI_SKIP_UPDATE_CHECK": "true"}


def test_adopting_leaves_it_to_the_stack_how_secrets_are_kept(paths: LabPaths) -> None:
    kept = {"type": "passphrase", "state": {"salt": "v1:x"}}
    empty: dict[str, Any] = {"manifest": {}, "secrets_providers": kept}
    imported: list[Any] = []
    stack = SimpleNamespace(export_stack=lambda: SimpleNamespace(deployment=empty), import_stack=imported.append)
    engine(paths, stack).adopt({"version": 3, "deployment": {"resources": ["all"]}})  # type: ignore[arg-type]
    assert imported[0].deployment == {"resources": ["all"], "secrets_providers": kept}
    empty["resources"] = ["another's"]
    with pytest.raises(EngineError, match="has resources already"):
        engine(paths, stack).adopt({"version": 3, "deployment": {}})  # type: ignore[arg-type]
