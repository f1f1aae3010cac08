"""How the Pulumi program is applied: by the Pulumi CLI through its Automation API, or by the embedded engine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from hoplab.core.errors import EngineError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.spec.model import LabSpec

if TYPE_CHECKING:
    from hoplab.engine.pulumi_cli import PulumiCli

MARK = "hoplab: "  # marks a LabError in the text of a traceback

Op = Literal["create", "update", "replace", "delete", "same"]


@dataclass(frozen=True)
class Change:
    """A change of one libvirt object or of the cluster; in a preview, a change that `up` would make."""

    op: Op
    type: str  # "Domain", "Volume", "CloudInitDisk", "Network", "Pool", "Cluster"
    name: str  # the resource's name in the program: "worker1"
    detail: str = ""  # "memory 2048 -> 3072"


Changes = tuple[Change, ...]


@dataclass(frozen=True)
class Applied:
    """The changes of ``up``, and the exports of the program."""

    outputs: dict[str, Any]
    changes: Changes


class Engine(Protocol):
    """An engine that applies the lab's program."""

    makes_clusters: bool  # its ``up`` makes machines and cluster, not only the machines

    @property
    def state_in_lab(self) -> bool:
        """Return whether its state is in the lab's folder, and goes where that goes."""
        ...

    def preview(self, progress: Progress) -> Changes:
        """Return the changes that ``up`` would make; change nothing."""
        ...

    def up(self, progress: Progress) -> Applied:
        """Apply the program; continue after an interruption."""
        ...

    def converged(self) -> None:
        """Record that the cluster of the last ``up`` was made; do nothing where the engine itself makes it."""
        ...

    def destroy(self, progress: Progress) -> Changes:
        """Delete every resource of this engine, the newest first."""
        ...

    def outputs(self) -> dict[str, Any] | None:
        """Return the exports of the program at the last ``up``; None when there is no lab."""
        ...


def choose_engine(spec: LabSpec, paths: LabPaths) -> Engine:
    """Return the engine of the spec; "auto" is the engine of an existing lab, else the Pulumi CLI if installed."""
    if uses_cli(spec, paths):
        return cli_engine(paths)
    from hoplab.engine.embedded import EmbeddedEngine  # noqa: PLC0415 - the SDK takes a while to import

    return EmbeddedEngine(paths)


def uses_cli(spec: LabSpec, paths: LabPaths) -> bool:
    """Return whether the Pulumi CLI applies the program of a spec."""
    return spec.engine == "pulumi" or (spec.engine == "auto" and has_cli() and not paths.engine_state.exists())


def has_cli() -> bool:
    """Return whether there is a Pulumi CLI."""
    return shutil.which("pulumi") is not None


def cli_engine(paths: LabPaths) -> PulumiCli:
    """Return the Pulumi CLI's engine; raise EngineError without a CLI."""
    if not has_cli():
        raise EngineError(
            "there is no `pulumi` on PATH",
            remedy="run `./lab pulumi install`, or set lab:engine to embedded, which needs no CLI",
        )
    from hoplab.engine.pulumi_cli import PulumiCli  # noqa: PLC0415

    return PulumiCli(paths)


def exported(paths: LabPaths, kubeconfig: str) -> dict[str, Any]:
    """Return the embedded engine's state of a lab in Pulumi's deployment format."""
    from hoplab.engine.embedded import EmbeddedEngine  # noqa: PLC0415

    return EmbeddedEngine(paths).exported(kubeconfig)
