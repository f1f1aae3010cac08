"""One small exception tree: every failure a user can meet names its cause and its remedy.

A ``LabError`` reaches the screen as ``error: <message>`` and, on the next line, ``  -> <remedy>``; the process then
exits with ``exit_code``. Anything that is not a ``LabError`` is a bug in hoplab and shows a traceback.
"""

from __future__ import annotations

from dataclasses import dataclass


class LabError(Exception):
    """A failure with a cause (``message``), a way out (``remedy``) and, where there is one, a ``log`` to read."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "", log: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.log = log

    def whole(self) -> str:
        """All of it, as it is shown where only text comes through."""
        return (
            self.message
            + (f"\n  -> {self.remedy}" if self.remedy else "")
            + (f"\n  log: {self.log}" if self.log else "")
        )


@dataclass(frozen=True)
class Mistake:
    """One mistake in a spec: where it is, what is wrong, and what would be right."""

    path: str  # "nodes.workers"
    wrong: str  # "is 0"
    right: str  # "at least 1"

    def __str__(self) -> str:
        return f"{self.path}: {self.wrong}; {self.right}"


class SpecError(LabError):
    """The spec is wrong; carries every mistake found, not only the first."""

    exit_code = 2

    def __init__(self, source: str, mistakes: list[Mistake]) -> None:
        lines = "\n".join(f"  {mistake}" for mistake in mistakes)
        plural = "s" if len(mistakes) != 1 else ""
        super().__init__(f"{source}: {len(mistakes)} mistake{plural}\n{lines}", remedy="edit the file, then try again")
        self.mistakes = tuple(mistakes)


class HostError(LabError):
    """This machine lacks something (a package, root, memory, disk space)."""


class ImageError(LabError):
    """The node image could not be built."""


class EngineError(LabError):
    """A resource could not be created, changed or deleted."""


class ProtectedError(EngineError):
    """What the spec protects would be lost."""


class StateError(LabError):
    """What is on disk about a lab can't be trusted."""


class BusyError(LabError):
    """Another command is working on the same lab or image."""


class BootError(LabError):
    """A virtual machine crashed or hung at boot, more often than we retry."""


class ConvergeError(LabError):
    """Ansible failed on a host; carries host, task and message."""


class FactError(LabError):
    """The output of a command does not look as it should, or the command failed."""


class ClusterError(LabError):
    """The cluster did not become usable in time."""
