"""The errors that are reported to the user, each with a cause and a remedy.

LabError                exit code 1; shown as "error: <message>", then "  -> <remedy>"
├── SpecError           the spec is wrong (exit code 2)
├── HostError           the workstation lacks something: a package, root, memory, disk space
├── FileError           a file cannot be written
├── ImageError          the node image could not be built
├── EngineError         a resource could not be created, changed or deleted
│   └── ProtectedError  ... because the spec protects it
├── StateError          the files of a lab cannot be trusted
├── BusyError           another command works on the same lab or image
├── BootError           a virtual machine crashed or hung at boot too often
├── ConvergeError       Ansible failed on a host
├── FactError           a command failed, or its output is not understood
├── UnavailableError    a part of the lab could not be looked at: a node, its API
└── ClusterError        the cluster is not usable, or its API server does not answer

Anything else is a bug in hoplab and shows a traceback.
"""

from __future__ import annotations

from dataclasses import dataclass


class LabError(Exception):
    """A failure with its cause (``message``), a ``remedy`` and, where there is one, a ``log`` to read."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "", log: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.log = log

    def whole(self) -> str:
        """Return message, remedy and log as one text."""
        return (
            self.message
            + (f"\n  -> {self.remedy}" if self.remedy else "")
            + (f"\n  log: {self.log}" if self.log else "")
        )


MOST_SHOWN = 50  # issues of a spec; a file that is something else has thousands


@dataclass(frozen=True)
class SpecIssue:
    """One issue in a spec: where it is, what is wrong, and what would be right."""

    path: str  # "nodes.workers"
    problem: str  # "is 0"
    hint: str  # "at least 1"

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {self.hint}"


class SpecError(LabError):
    """The spec is wrong; carries every issue found, not only the first."""

    exit_code = 2

    def __init__(self, source: str, issues: list[SpecIssue]) -> None:
        more = [f"  ... and {len(issues) - MOST_SHOWN} more"] if len(issues) > MOST_SHOWN else []
        lines = "\n".join([*(f"  {issue}" for issue in issues[:MOST_SHOWN]), *more])
        plural = "s" if len(issues) != 1 else ""
        super().__init__(f"{source}: {len(issues)} mistake{plural}\n{lines}", remedy="edit the file, then try again")
        self.issues = tuple(issues)


class HostError(LabError):
    """The workstation lacks something (a package, root, memory, disk space)."""


class FileError(LabError):
    """A file cannot be written."""


class ImageError(LabError):
    """The node image could not be built."""


class EngineError(LabError):
    """A resource could not be created, changed or deleted."""


class ProtectedError(EngineError):
    """A resource that the spec protects would be lost."""


class StateError(LabError):
    """The files of a lab cannot be trusted."""


class BusyError(LabError):
    """Another command works on the same lab or image."""


class BootError(LabError):
    """A virtual machine crashed or hung at boot, more often than it is restarted."""


class ConvergeError(LabError):
    """Ansible failed on a host; carries host, task and message."""


class FactError(LabError):
    """A command failed, or its output is not understood."""


class UnavailableError(LabError):
    """A part of the lab could not be looked at; what depends on it is unknown, not wrong."""


class ClusterError(LabError):
    """The cluster is not usable, or its API server does not answer."""
