"""The Pulumi CLI, driven through its Automation API: same program, same results as the embedded engine.

It needs no account: unless the user is logged in to a backend, the state is in <lab>/pulumi, encrypted with a
passphrase of the lab (<lab>/keys/passphrase). There the CLI has its own project file with the same program. The CLI
writes its encryption settings to the stack file beside it, so the lab's spec stays unchanged.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pulumi import automation
from pulumi.automation import EngineEvent, OpType, Stack

from hoplab.core import fs, host_network, proxies
from hoplab.core.errors import BusyError, EngineError, LabError, ProtectedError
from hoplab.core.lock import LOCK_INHERITED
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.engine import MARK, Applied, Change, Changes, Op, schema

OPS: dict[OpType, Op] = {
    OpType.SAME: "same",
    OpType.CREATE: "create",
    OpType.UPDATE: "update",
    OpType.REPLACE: "replace",
    OpType.DELETE: "delete",
}
COLOUR = re.compile(r"<\{%.*?%\}>")  # Pulumi's colour marks


class PulumiCli:
    """The engine with the Pulumi CLI. ``open_stack(create)`` returns the stack, None when there is none."""

    makes_clusters = True

    def __init__(self, paths: LabPaths, open_stack: Callable[[bool], Stack | None] | None = None) -> None:
        self.paths = paths
        self._open = open_stack or self._open_stack

    def preview(self, progress: Progress, *, refresh: bool = True) -> Changes:
        seen = _Events(progress)
        stack = self._required()
        with self._translated(seen):
            host_network.run_long(lambda: stack.preview(on_event=seen, refresh=refresh, color="never"))
        return seen.changes

    def up(self, progress: Progress, *, exclude: list[str] | None = None) -> Applied:
        seen = _Events(progress)
        stack = self._required()
        with self._translated(seen):
            result = host_network.run_long(
                lambda: stack.up(on_event=seen, refresh=True, color="never", exclude=exclude)
            )
        return Applied({name: output.value for name, output in result.outputs.items()}, seen.changes)

    def converged(self) -> None:
        """Do nothing: the CLI's state has the Cluster resource that ``up`` made."""

    def destroy(self, progress: Progress) -> Changes:
        seen = _Events(progress)
        with self._translated(seen):
            stack = self._open(False)
            if stack is None:
                return ()
            host_network.run_long(lambda: stack.destroy(on_event=seen, color="never"))
            host_network.run_long(lambda: stack.workspace.remove_stack(stack.name, preserve_config=True))
        return seen.changes

    def adopt(self, deployment: dict[str, Any]) -> None:
        """Import the state of another engine, in Pulumi's format."""
        stack = self._required()
        with self._translated(None):
            empty = json.loads(json.dumps(host_network.run_long(stack.export_stack).deployment or {}))
            if empty.get("resources"):
                raise EngineError(
                    f"the stack {self.paths.lab!r} of the Pulumi CLI has resources already",
                    remedy=f"they may be of another lab: pulumi stack --stack {self.paths.lab} lists them",
                )
            # The secrets provider is the stack's; without one in the document the CLI panics on the first secret.
            document = dict(deployment["deployment"])
            if "secrets_providers" in empty:
                document["secrets_providers"] = empty["secrets_providers"]
            whole = automation.Deployment(deployment["version"], document)
            host_network.run_long(lambda: stack.import_stack(whole))

    def outputs(self) -> dict[str, Any] | None:
        with self._translated(None):
            stack = self._open(False)
            outputs = host_network.run_long(stack.outputs) if stack else None
        return None if outputs is None else {name: output.value for name, output in outputs.items()}

    @property
    def state_in_lab(self) -> bool:
        return not _logged_in(dict(os.environ))

    def _required(self) -> Stack:
        with self._translated(None):
            stack = self._open(True)
        assert stack is not None
        return stack

    def _open_stack(self, create: bool) -> Stack | None:
        variables = {**environment(self.paths), LOCK_INHERITED: "1"}
        options = automation.LocalWorkspaceOptions(env_vars=variables)
        find = automation.create_or_select_stack if create else automation.select_stack
        try:
            folder = str(workspace(self.paths))
            return host_network.run_long(lambda: find(self.paths.lab, work_dir=folder, opts=options))
        except automation.StackNotFoundError:
            return None

    @contextmanager
    def _translated(self, seen: _Events | None) -> Iterator[None]:
        """Raise LabErrors in place of Pulumi's errors."""
        try:
            yield
        except automation.ConcurrentUpdateError as error:
            raise BusyError(
                f"another Pulumi operation is working on the stack {self.paths.lab!r}",
                remedy=f"wait for it; if it was interrupted: pulumi cancel --stack {self.paths.lab}",
            ) from error
        except automation.CommandError as error:
            said = "\n".join(seen.errors) if seen and seen.errors else _last_lines(str(error))
            if MARK in said:  # a LabError of the Cluster resource
                raise _ours(said.rpartition(MARK)[2]) from None
            if "is protected" in said or "cannot be deleted" in said:
                remedy = "if that is what you want: set lab:protect to false, run `lab up`, then try again"
                raise ProtectedError(f"pulumi refused: {said}", remedy=remedy) from error
            raise EngineError(f"pulumi failed: {said}", remedy="correct the cause; `lab up` continues") from error


class _Events:
    """A handler of events of Pulumi's engine: it shows progress and collects changes and errors."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.errors: list[str] = []
        self._changes: dict[str, Change] = {}

    @property
    def changes(self) -> Changes:
        return tuple(self._changes.values())

    def __call__(self, event: EngineEvent) -> None:
        if event.resource_pre_event is not None:
            step = event.resource_pre_event.metadata
            op = OPS.get(step.op)  # the two halves of a replacement are not separate changes
            if op is not None and (step.type.startswith("libvirt:") or step.type == schema.CLUSTER):
                name, type = step.urn.rpartition("::")[2], step.type.rpartition(":")[2]
                self._changes[step.urn] = Change(op, type, name, ", ".join(sorted(step.diffs or ())))
                if op != "same":
                    self.progress.task(f"{op} {type} {name}")
        if event.diagnostic_event is not None:
            text = COLOUR.sub("", event.diagnostic_event.message).strip()
            if event.diagnostic_event.severity == "error":
                self.errors.append(text)
            elif event.diagnostic_event.severity == "warning":
                self.progress.note(text)
            elif text and event.diagnostic_event.severity != "debug":  # a provider's debug lines show seeds with keys
                self.progress.task(text)


def environment(paths: LabPaths, given: dict[str, str] | None = None) -> dict[str, str]:
    """Return the CLI's environment variables, without overriding the user's."""
    user = dict(os.environ) if given is None else given
    variables = {"PULUMI_SKIP_UPDATE_CHECK": "true"}
    variables |= {name: value for name, value in proxies.LOCAL_GRPC.items() if name not in user}
    if "PULUMI_HOME" not in user:  # in a user's own namespaces the CLI would take root's home: the user is root there
        variables["PULUMI_HOME"] = str(_home(user))
    if not _logged_in(user):
        backend = paths.root / "pulumi"
        backend.mkdir(parents=True, exist_ok=True)
        variables["PULUMI_BACKEND_URL"] = f"file://{backend}"
    if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & user.keys():
        variables["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(_passphrase(paths))
    return variables


def workspace(paths: LabPaths) -> Path:
    """Make the CLI's working directory: a project file with this program and this virtual environment."""
    folder = paths.root / "pulumi"
    folder.mkdir(parents=True, exist_ok=True)
    project = yaml.safe_load((paths.project / "Pulumi.yaml").read_text())
    project["main"] = str(paths.project)
    project["runtime"]["options"]["virtualenv"] = str(paths.project / project["runtime"]["options"]["virtualenv"])
    fs.write(folder / "Pulumi.yaml", f"# written by `lab up`\n{yaml.safe_dump(project, sort_keys=False)}")
    return folder


def _ours(text: str) -> LabError:
    """Return the LabError whose text Pulumi printed."""
    message, _, rest = text.strip().partition("\n  -> ")
    remedy, _, log = rest.partition("\n  log: ")
    return LabError(message, remedy=remedy.strip(), log=log.strip())


def _logged_in(user: dict[str, str]) -> bool:
    if user.get("PULUMI_BACKEND_URL") or user.get("PULUMI_ACCESS_TOKEN"):
        return True
    try:
        return bool(json.loads((_home(user) / "credentials.json").read_text()).get("current"))
    except (OSError, ValueError, AttributeError):
        return False


def _home(user: dict[str, str]) -> Path:
    return Path(user.get("PULUMI_HOME") or Path.home() / ".pulumi")


def _passphrase(paths: LabPaths) -> Path:
    path = paths.keys / "passphrase"
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fs.write(path, secrets.token_urlsafe(24), mode=0o600)
    return path


def _last_lines(text: str, count: int = 8) -> str:
    return "\n".join([line for line in COLOUR.sub("", text).splitlines() if line.strip()][-count:])
