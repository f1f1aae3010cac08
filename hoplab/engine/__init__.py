"""How the Pulumi program is applied: by the Pulumi CLI through its Automation API, or by the embedded engine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from hoplab.errors import EngineError
from hoplab.paths import LabPaths
from hoplab.progress import Progress
from hoplab.spec import LabSpec

Op = Literal["create", "update", "replace", "delete", "same"]


@dataclass(frozen=True)
class Change:
    """What happened, or in a preview would happen, to one libvirt object."""

    op: Op
    type: str  # "Domain", "Volume", "CloudInitDisk", "Network", "Pool"
    name: str  # the resource's name in the program: "worker1"
    detail: str = ""  # "memory 2048 -> 3072"


Changes = tuple[Change, ...]


@dataclass(frozen=True)
class Applied:
    """What ``up`` did, and what the program exports."""

    outputs: dict[str, Any]
    changes: Changes


class Engine(Protocol):
    """Applies the lab's program."""

    def preview(self, progress: Progress) -> Changes:
        """What ``up`` would do; nothing is touched."""
        ...

    def up(self, progress: Progress) -> Applied:
        """Make everything what the program says; running it again after an interruption continues."""
        ...

    def destroy(self, progress: Progress) -> Changes:
        """Remove everything this engine has made, last made first."""
        ...

    def outputs(self) -> dict[str, Any] | None:
        """What the program exported at the last ``up``; None when there is no lab."""
        ...


def choose_engine(spec: LabSpec, paths: LabPaths) -> Engine:
    """The engine the spec asks for; "auto" stays with the one that made the lab, else prefers the Pulumi CLI."""
    cli = shutil.which("pulumi") is not None
    if spec.engine == "pulumi" and not cli:
        raise EngineError(
            "the spec asks for the Pulumi CLI, and there is no `pulumi` on PATH",
            remedy="install it, or set lab:engine to auto or embedded",
        )
    if spec.engine == "pulumi" or (spec.engine == "auto" and cli and not paths.engine_state.exists()):
        from hoplab.engine.pulumi_cli import PulumiCli  # noqa: PLC0415 - the SDK takes a while to import

        return PulumiCli(paths)
    from hoplab.engine.embedded import EmbeddedEngine  # noqa: PLC0415

    return EmbeddedEngine(paths)
