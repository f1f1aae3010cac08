"""The embedded engine's state: all of its resources, written to disk after every step."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, ClassVar

from hoplab.core import fs
from hoplab.core.errors import StateError
from hoplab.core.serialization import from_json, to_json

FORMAT = 1


@dataclass(frozen=True)
class Resource:
    """One resource as it was last applied."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    urn: str
    type: str
    name: str
    custom: bool  # False: a component, recorded as a parent only
    parent: str = ""
    provider: str = ""  # "<urn>::<id>" of its provider
    id: str = ""
    pending: bool = False  # its creation started and may have been interrupted
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()  # inputs that are never shown
    dependencies: tuple[str, ...] = ()
    property_dependencies: dict[str, tuple[str, ...]] = field(default_factory=dict)
    protect: bool = False  # not to be deleted or replaced

    @property
    def needs(self) -> set[str]:
        """Return the URNs of the resources that it depends on."""
        return {self.parent, self.provider.rpartition("::")[0], *self.dependencies} - {""}

    def built_on(self, urns: set[str]) -> bool:
        """Return whether one of its properties comes from one of these resources."""
        return any(not urns.isdisjoint(sources) for sources in self.property_dependencies.values())


@dataclass(frozen=True)
class _Document:
    """The content of the file; its field names are the keys in it."""

    format: int
    lab: str  # its id
    resources: tuple[Resource, ...]
    condemned: tuple[Resource, ...]  # replaced, but not deleted yet
    outputs: dict[str, Any] | None


class StateFile:
    """All resources of a lab. Each change is on disk before the method that makes it returns."""

    def __init__(self, path: Path, lab_id: str) -> None:
        self.path = path
        self.lab_id = lab_id
        self.resources: dict[str, Resource] = {}  # by URN
        self.pending_delete: list[Resource] = []  # replaced, to delete once no resource uses them
        self.outputs: dict[str, Any] | None = None
        self._written = ""

    @property
    def previous(self) -> Path:
        """Return the path of the version before the last step."""
        return self.path.with_name(self.path.name + ".previous")

    @staticmethod
    def load(path: Path, lab_id: str) -> StateFile:
        """Return a lab's state, an empty one without a file; raise StateError when the file is not intact."""
        state = StateFile(path, lab_id)
        try:
            text = path.read_text()
        except FileNotFoundError:
            return state
        except (OSError, UnicodeDecodeError) as error:
            raise state._refused(f"can't be read: {error}") from error
        try:
            document = json.loads(text)
            if document["format"] != FORMAT:
                raise state._refused(f"has format {document['format']!r}, this version reads format {FORMAT}")
            if document["lab"] != lab_id:
                raise state._refused(f"belongs to the lab {document['lab']!r}, not to {lab_id!r}")
            found = from_json(_Document, document)
        except (ValueError, KeyError, TypeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise state._refused(f"is not an intact state file ({what})") from error
        state.resources = {resource.urn: resource for resource in found.resources}
        state.pending_delete = list(found.condemned)
        state.outputs = found.outputs
        state._written = text
        return state

    def ordered(self) -> list[Resource]:
        """Return all resources, dependencies first."""
        graph = {resource.urn: resource.needs for resource in self.resources.values()}
        return [self.resources[urn] for urn in TopologicalSorter(graph).static_order() if urn in self.resources]

    def put(self, resource: Resource) -> None:
        """Add a resource, or bring it up to date."""
        self.resources[resource.urn] = resource
        self.write()

    def remove(self, resource: Resource) -> None:
        """Remove a deleted resource."""
        if resource in self.pending_delete:
            self.pending_delete.remove(resource)
        elif self.resources.get(resource.urn) == resource:
            del self.resources[resource.urn]
        self.write()

    def mark_for_delete(self, resource: Resource) -> None:
        """Keep a replaced resource until it is deleted; its replacement has its URN."""
        self.resources.pop(resource.urn, None)
        self.pending_delete.append(resource)
        self.write()

    def write(self) -> None:
        """Write the file atomically if its content changed, and keep the previous version."""
        resources, pending_delete = tuple(self.resources.values()), tuple(self.pending_delete)
        document = _Document(FORMAT, self.lab_id, resources, pending_delete, self.outputs)
        text = json.dumps(to_json(document), indent=1) + "\n"
        if text == self._written:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fs.write(self.path, text, mode=0o600, previous=self.previous)  # it holds host keys
        self._written = text

    def delete(self) -> None:
        """Remove the files of a lab without resources."""
        for suffix in ("", ".previous", ".part", ".link"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)  # the last two: of older versions

    def _refused(self, why: str) -> StateError:
        kept = f"; the version before it is {self.previous}" if self.previous.exists() else ""
        remedy = f"`lab destroy --lab {self.lab_id.rpartition('-')[0]}` removes the lab by name"
        if self.previous.exists():
            remedy = (
                f"put the previous version in its place (mv {self.previous} {self.path}) and run `lab up`, or {remedy}"
            )
        return StateError(f"{self.path} {why}{kept}", remedy=remedy)
