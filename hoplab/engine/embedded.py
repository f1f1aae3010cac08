"""The embedded engine: runs the Pulumi program in this process and applies its resources to libvirt.

For each registered resource the engine does nothing, creates, updates in place or replaces. It compares the
registration with the state file, which holds the last applied properties, and with libvirt's objects. Resources that
the program no longer registers are deleted at the end. The state file is written before and after every step, so the
next run continues an interrupted one.
"""

from __future__ import annotations

import base64
import contextlib
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import libvirt

from hoplab.core.errors import EngineError, ProtectedError, StateError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import CURRENT, Progress
from hoplab.engine import Applied, Change, Changes, Op, schema
from hoplab.engine.export import deployment
from hoplab.engine.libvirt_objects import DRIVERS, Driver
from hoplab.engine.monitor import UNKNOWN, Registered, Registration, run_file
from hoplab.engine.state_file import Resource, StateFile

DETAIL_LENGTH = 40  # characters of a value in a change's detail


class EmbeddedEngine:
    """The engine without the Pulumi CLI."""

    makes_clusters = False
    state_in_lab = True

    def __init__(self, paths: LabPaths, program: Path | None = None) -> None:
        self.paths = paths
        self.program = program or paths.project / "__main__.py"

    def preview(self, progress: Progress) -> Changes:
        deployment = self._run(progress, dry_run=True)
        return tuple(deployment.changes)

    def up(self, progress: Progress) -> Applied:
        deployment = self._run(progress, dry_run=False)
        return Applied(deployment.state.outputs or {}, tuple(deployment.changes))

    def converged(self) -> None:
        state = self._load_state()
        for resource in [made for made in state.resources.values() if made.type == schema.CLUSTER and made.pending]:
            state.put(replace(resource, pending=False))

    def destroy(self, progress: Progress) -> Changes:
        state = self._load_state()
        with Deployment(state, progress, dry_run=False) as deployment:
            deployment.delete_all()
        state.delete()
        return tuple(deployment.changes)

    def outputs(self) -> dict[str, Any] | None:
        return self._load_state().outputs

    def exported(self, kubeconfig: str = "") -> dict[str, Any]:
        """Return its state in Pulumi's deployment format, with secrets in plain text."""
        if not self.paths.engine_state.exists():
            raise StateError(
                f"the embedded engine has no lab {self.paths.lab!r}",
                remedy=f"`./lab up --lab {self.paths.lab}` makes one; for a stack of the CLI use `pulumi stack export`",
            )
        return deployment(self._load_state(), self.paths.lab, kubeconfig)

    def _load_state(self) -> StateFile:
        return StateFile.load(self.paths.engine_state, self.paths.id)

    def _run(self, progress: Progress, *, dry_run: bool) -> Deployment:
        with Deployment(self._load_state(), progress, dry_run=dry_run) as deployment:
            CURRENT.progress = progress
            try:
                run_file(self.program, self.paths.lab, deployment, progress, dry_run=dry_run)
            finally:
                CURRENT.progress = None
            deployment.delete_leftovers()
        return deployment


class Deployment:
    """One run of the program, applied to libvirt and the state file; a dry run only lists the changes."""

    def __init__(self, state: StateFile, progress: Progress, *, dry_run: bool) -> None:
        self.state = state
        self.progress = progress
        self.dry_run = dry_run
        self.changes: list[Change] = []
        self._seen: set[str] = set()
        self._cleared: dict[str, str] = {}  # URN -> reason of a deletion before the replacement
        self._renewed: set[str] = set()  # URNs of objects that are new in this run
        self._connections: dict[str, libvirt.virConnect] = {}

    def __enter__(self) -> Deployment:
        libvirt.registerErrorHandler(lambda _context, _error: None, None)  # otherwise the library prints every error
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    # Registrations

    def register(self, wanted: Registration) -> Registered:
        if wanted.urn in self._seen:
            raise EngineError(
                f"the program has two resources of type {wanted.type} named {wanted.name!r}",
                remedy="rename one of them",
            )
        self._seen.add(wanted.urn)
        if not wanted.custom:
            self._store(wanted)
            return Registered("", {})
        schema.check(wanted.type, wanted.name, wanted.inputs)
        if wanted.type in schema.RECORDED:
            return self._record(wanted, self.state.resources.get(wanted.urn))
        if not wanted.provider:
            raise EngineError(
                f"{schema.short(wanted.type)} {wanted.name!r} has no explicit libvirt provider", remedy="pass provider="
            )
        return self._apply(wanted, self.state.resources.get(wanted.urn))

    def _record(self, wanted: Registration, old: Resource | None) -> Registered:
        """Only record the resource: it has no object in libvirt. ``lab.lifecycle`` makes the cluster afterwards."""
        id = str(uuid5(NAMESPACE_URL, wanted.urn))
        changed = changed_properties(old.inputs if old else {}, wanted.inputs) - {"__provider"}
        if wanted.type == schema.MEMBER:
            return self._record_member(wanted, old, id)
        unmade = wanted.type == schema.CLUSTER and (old is None or old.pending or bool(changed))
        if unmade and old is None:
            self._change("create", wanted)
        elif unmade and old is not None:
            self._change("update", wanted, describe(old, wanted, changed) or "was half made")
        elif wanted.type == schema.CLUSTER:
            self._change("same", wanted)
        self._store(wanted, id=id, pending=unmade)
        return Registered(id, {})

    def _record_member(self, wanted: Registration, old: Resource | None, id: str) -> Registered:
        """Record a member; a node with a new machine joins before the next machine is replaced."""
        machine = wanted.inputs.get("machine")
        if old is not None and not self.dry_run and (old.pending or old.inputs.get("machine") != machine):
            self._store(wanted, id=id, pending=True)
            _provider_of(wanted.inputs).create(wanted.inputs)
        self._store(wanted, id=id)
        return Registered(id, {})

    def stack_outputs(self, outputs: dict[str, Any]) -> None:
        if not self.dry_run:
            self.state.outputs = outputs
            self.state.write()

    def _apply(self, wanted: Registration, old: Resource | None) -> Registered:
        if old is not None and old.pending:
            return self._finish_making(wanted, old)
        if old is None:
            why = self._cleared.get(wanted.urn)
            return self._create(wanted, "create" if why is None else "replace", why or "")
        changed = changed_properties(old.inputs, wanted.inputs)
        drift = self._drift(wanted, old)
        if drift == "gone":
            self._renewed.add(wanted.urn)
            if not self.dry_run:
                self.state.remove(old)
            return self._create(wanted, "create", "was gone")
        if self._changes_kind(wanted, old, changed):
            return self._replace(wanted, old, changed)
        if not drift and wanted.type == schema.DOMAIN and self._rests_on_renewed(wanted):
            drift = "what it is built on is new"
        if changed or drift:
            return self._update(wanted, old, changed, drift)
        self._store(wanted, id=old.id, outputs=old.outputs)
        self._change("same", wanted)
        return Registered(old.id, old.outputs)

    def _changes_kind(self, wanted: Registration, old: Resource, changed: set[str]) -> bool:
        if not changed:
            return False
        driver: type[Driver] = DRIVERS[wanted.type]
        return driver.must_replace(driver.__new__(driver), old.inputs, wanted.inputs, changed)

    def _rests_on_renewed(self, wanted: Registration) -> bool:
        return any(not self._renewed.isdisjoint(urns) for urns in wanted.property_dependencies.values())

    # The steps

    def _create(self, wanted: Registration, op: Op, detail: str = "") -> Registered:
        self._change(op, wanted, detail)
        if self.dry_run:
            return Registered("", {})
        with self._step("create", wanted.type, wanted.name):
            driver = self._driver(wanted.type, wanted.provider)
            if driver.find(wanted.inputs):
                raise EngineError(
                    f"libvirt already has a {schema.short(wanted.type)} {wanted.inputs['name']!r} "
                    "that is not in this lab's state",
                    remedy="if it is a leftover of this lab, `lab destroy` removes it; then run `lab up` again",
                )
            self._store(wanted, pending=True)
            made = driver.create(wanted.inputs, self.progress)
        self._store(wanted, id=made.id, outputs=made.outputs)
        return Registered(made.id, made.outputs)

    def _finish_making(self, wanted: Registration, old: Resource) -> Registered:
        """Create an object again after an interrupted creation; no resource uses it yet."""
        if not self.dry_run:
            self._delete(old)
        return self._create(wanted, "create", "was half made")

    def _update(self, wanted: Registration, old: Resource, changed: set[str], drift: str) -> Registered:
        detail = describe(old, wanted, changed)
        self._change("update", wanted, ", ".join(filter(None, (drift, detail))))
        if self.dry_run:
            return Registered(old.id, old.outputs)
        with self._step("update", wanted.type, wanted.name):
            outputs = self._driver(wanted.type, wanted.provider).update(old.id, wanted.inputs, self.progress)
        self._store(wanted, id=old.id, outputs={**old.outputs, **outputs})
        return Registered(old.id, {**old.outputs, **outputs})

    def _replace(self, wanted: Registration, old: Resource, changed: set[str]) -> Registered:
        detail = describe(old, wanted, changed)
        if wanted.protect:
            raise _protected(wanted, f"would be replaced ({detail})")
        same_name = wanted.inputs.get("name") == old.inputs.get("name")
        if not wanted.delete_before_replace and not same_name:
            if not self.dry_run:
                self.state.mark_for_delete(old)
            return self._create(wanted, "replace", detail)
        if not self.dry_run:
            for member in self._members_on(old):
                self.state.put(replace(member, pending=True))
                _provider_of(member.inputs).delete(member.id, member.inputs)
        for dependent in self._built_on(old):
            self._cleared[dependent.urn] = f"is built on {old.name}"
            if not self.dry_run:
                self._delete(dependent)
        if not self.dry_run:
            self._delete(old)
        return self._create(wanted, "replace", detail)

    def _members_on(self, resource: Resource) -> list[Resource]:
        """Return the members whose machines depend on it: one for a node's own disk, none for its backing image."""
        urns = {resource.urn, *(dependent.urn for dependent in self._built_on(resource))}
        return [member for member in self.state.ordered() if member.type == schema.MEMBER and member.built_on(urns)]

    def _built_on(self, resource: Resource) -> list[Resource]:
        """Return the direct and indirect dependents of a resource, the newest first."""
        urns = {resource.urn}
        found: list[Resource] = []
        for other in self.state.ordered():
            if _is_object(other) and other.built_on(urns):
                urns.add(other.urn)
                found.append(other)
        return found[::-1]

    def delete_leftovers(self) -> None:
        """Delete replaced resources and those that the program no longer registers, the newest first."""
        if protected := [old for old in self.state.ordered() if old.urn not in self._seen and old.protect]:
            raise _protected(protected[0], "would be deleted")
        gone = [*self.state.pending_delete, *(old for old in self.state.ordered() if old.urn not in self._seen)]
        for resource in reversed(gone):
            if _is_object(resource) and resource not in self.state.pending_delete:
                self._change("delete", resource)
            if not self.dry_run:
                self._delete(resource)

    def delete_all(self) -> None:
        """Delete every resource of the state file, the newest first. The caller checks the spec's protection."""
        for resource in reversed([*self.state.pending_delete, *self.state.ordered()]):
            if _is_object(resource):
                self._change("delete", resource)
            self._delete(resource)

    def _delete(self, resource: Resource) -> None:
        if _is_object(resource):
            with self._step("delete", resource.type, resource.name):
                driver = self._driver(resource.type, resource.provider)
                id = resource.id or driver.find(resource.inputs)
                if id:
                    driver.delete(id, resource.inputs)
        self.state.remove(resource)

    # Helpers

    def _drift(self, wanted: Registration, old: Resource) -> str:
        """Return the drift of an object from its created state; a dry run ignores an unreachable libvirt."""
        try:
            return self._driver(wanted.type, wanted.provider).drift(old.id, old.inputs)
        except EngineError:
            if self.dry_run:
                return ""
            raise

    def _driver(self, type: str, provider: str) -> Driver:
        uri = self.state.resources[provider.rpartition("::")[0]].inputs["uri"]
        if uri not in self._connections:
            try:
                self._connections[uri] = libvirt.open(uri)
            except libvirt.libvirtError as error:
                raise EngineError(
                    f"libvirt does not answer at {uri}: {error}", remedy="`lab doctor` checks the host"
                ) from error
        driver: Driver = DRIVERS[type](self._connections[uri], uri)
        return driver

    @contextmanager
    def _step(self, verb: str, type: str, name: str) -> Iterator[None]:
        self.progress.task(f"{verb} {schema.short(type)} {name}")
        try:
            yield
        except libvirt.libvirtError as error:
            raise EngineError(
                f"could not {verb} {schema.short(type)} {name}: {error}",
                remedy="`lab doctor` checks the host; `lab up` continues where it stopped",
            ) from error

    def _store(
        self, wanted: Registration, *, id: str = "", outputs: Mapping[str, Any] | None = None, pending: bool = False
    ) -> None:
        resource = Resource(
            urn=wanted.urn,
            type=wanted.type,
            name=wanted.name,
            custom=wanted.custom,
            parent=wanted.parent,
            provider=wanted.provider,
            id=id,
            pending=pending,
            inputs=wanted.inputs,
            outputs=dict(outputs or {}),
            secrets=wanted.secrets,
            dependencies=wanted.dependencies,
            property_dependencies=wanted.property_dependencies,
            protect=wanted.protect,
        )
        if self.dry_run:
            if wanted.type == schema.PROVIDER:  # later resources need the URI of their libvirt
                self.state.resources[wanted.urn] = resource
        else:
            self.state.put(resource)

    def _change(self, op: Op, what: Registration | Resource, detail: str = "") -> None:
        self.changes.append(Change(op, schema.short(what.type), what.name, detail))


def _provider_of(inputs: Mapping[str, Any]) -> Any:
    """Return the provider of a dynamic resource from its pickle; hoplab/lab/resources.py has its class."""
    return pickle.loads(base64.b64decode(inputs["__provider"]))


def _is_object(resource: Resource) -> bool:
    """Return whether libvirt has an object of this resource."""
    return resource.custom and resource.type not in schema.RECORDED


def _protected(resource: Registration | Resource, what: str) -> ProtectedError:
    return ProtectedError(
        f"{schema.short(resource.type)} {resource.name} is protected, and {what}",
        remedy="if that is what you want: set lab:protect to false, run `lab up`, then try again",
    )


def changed_properties(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """Return the names of properties that differ; an unknown value counts as different."""
    return {key for key in {*old, *new} if old.get(key) != new.get(key) or _unknown(new.get(key))}


def describe(old: Resource, wanted: Registration, changed: set[str]) -> str:
    """Return the differences as text, "memory 2048 -> 3072", without secrets."""

    def one(key: str) -> str:
        before, after = old.inputs.get(key), wanted.inputs.get(key)
        secret = key in old.secrets or key in wanted.secrets
        long = max(len(str(before)), len(str(after))) > DETAIL_LENGTH
        if secret or long or _unknown(after):
            return key
        return f"{key} {before} -> {after}"

    return ", ".join(one(key) for key in sorted(changed))


def _unknown(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(_unknown(item) for item in value)
    return bool(value == UNKNOWN)
