"""Runs a Pulumi program in this process, as the resource monitor of its SDK.

In place of an address the SDK accepts any object with the methods of its gRPC service, so there is no server and no
port. Requests become plain Python values. Unused features of the service are errors that name the feature.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import runpy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pulumi
import pulumi.runtime
from google.protobuf import empty_pb2, json_format, struct_pb2  # type: ignore[import-untyped]  # has no types
from pulumi.runtime import rpc
from pulumi.runtime.proto import engine_pb2, resource_pb2
from pulumi.runtime.settings import Settings

from hoplab.core.errors import EngineError
from hoplab.core.progress import Progress

PROJECT_NAME = "hoplab"  # as in Pulumi.yaml
UNKNOWN = rpc.UNKNOWN  # in previews, a value that exists only after `up`
STACK = "pulumi:pulumi:Stack"

FEATURES = [
    resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
    resource_pb2.RESOURCE_MONITOR_FEATURE_DELETED_WITH,  # ignored: such a resource is only recorded
]

SIGNATURE = "4dabf18193072939515e22adb298388d"  # marks special values in Pulumi's wire format
SECRET = "1b47061264138c4ac30d75fd1eb44270"


@dataclass(frozen=True)
class Registration:
    """A resource that the program registers."""

    urn: str
    type: str
    name: str
    custom: bool
    parent: str
    provider: str
    inputs: dict[str, Any]
    secrets: tuple[str, ...]
    dependencies: tuple[str, ...]
    property_dependencies: dict[str, tuple[str, ...]]
    delete_before_replace: bool
    protect: bool = False


@dataclass(frozen=True)
class Registered:
    """The registered resource; an empty id is not known yet."""

    id: str
    outputs: dict[str, Any]


class Registrar(Protocol):
    """A receiver of registrations, which applies them."""

    def register(self, wanted: Registration) -> Registered: ...

    def stack_outputs(self, outputs: dict[str, Any]) -> None: ...


def run_file(program: Path, stack: str, registrar: Registrar, progress: Progress, *, dry_run: bool) -> None:
    """Run a file as a Pulumi program, like ``pulumi up``."""

    def execute() -> None:
        runpy.run_path(str(program), run_name="__main__")

    run_program(execute, stack, registrar, progress, dry_run=dry_run)


def run_program(
    program: Callable[[], None], stack: str, registrar: Registrar, progress: Progress, *, dry_run: bool
) -> None:
    """Run a Pulumi program; raise the first error of a registration, which ends it."""
    monitor = Monitor(stack, registrar)
    settings = Settings(project=PROJECT_NAME, stack=stack, monitor=monitor, engine=Log(progress), dry_run=dry_run)

    def main() -> None:
        pulumi.runtime.settings.set_root_resource(None)  # type: ignore[arg-type]  # as the SDK's own reset does
        pulumi.runtime.configure(settings)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # report an error once, not for each dependent
        asyncio.run(_in_stack(program, monitor))

    try:
        contextvars.copy_context().run(main)
    except BaseException as error:
        said = error.__cause__ if isinstance(error, pulumi.RunError) else None  # the exception is the program's own
        raise monitor.failure or said or error from None


async def _in_stack(program: Callable[[], None], monitor: Monitor) -> None:
    try:
        await pulumi.runtime.run_in_stack(program)
    except BaseException:
        monitor.close()  # queued registrations do not start, also after Ctrl-C
        raise


class Monitor:
    """The methods of Pulumi's ResourceMonitor service that the lab's program needs."""

    def __init__(self, stack: str, registrar: Registrar) -> None:
        self.stack = stack
        self.registrar = registrar
        self.failure: BaseException | None = None
        self._closed = False
        self._lock = threading.Lock()  # the SDK registers from several threads; steps are written one at a time
        self._stack_urn = ""

    def close(self) -> None:
        """Refuse all later requests."""
        self._closed = True

    def GetDeploymentInfo(self, _: object) -> resource_pb2.DeploymentInfo:
        return resource_pb2.DeploymentInfo(supportedFeatures=FEATURES)

    def SupportsFeature(self, request: resource_pb2.SupportsFeatureRequest) -> resource_pb2.SupportsFeatureResponse:
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id in ("secrets", "deletedWith"))

    def SignalAndWaitForShutdown(self, _: object) -> empty_pb2.Empty:
        return empty_pb2.Empty()

    def RegisterResource(self, request: resource_pb2.RegisterResourceRequest) -> resource_pb2.RegisterResourceResponse:
        with self._step():
            wanted = self._registration(request)
            done = self.registrar.register(wanted)
        return resource_pb2.RegisterResourceResponse(
            urn=wanted.urn, id=done.id, object=to_struct({**wanted.inputs, **done.outputs})
        )

    def RegisterResourceOutputs(self, request: resource_pb2.RegisterResourceOutputsRequest) -> empty_pb2.Empty:
        with self._step():
            if request.urn == self._stack_urn:
                self.registrar.stack_outputs(from_struct(request.outputs)[0])
        return empty_pb2.Empty()

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest) -> None:
        self._refuse(f"the function {request.tok}")

    def Call(self, request: resource_pb2.ResourceCallRequest) -> None:
        self._refuse(f"the method {request.tok}")

    def ReadResource(self, request: resource_pb2.ReadResourceRequest) -> None:
        self._refuse(f"reading an existing resource ({request.type} {request.name})")

    def RegisterPackage(self, request: resource_pb2.RegisterPackageRequest) -> None:
        self._refuse(f"the parameterized package {request.name}")

    def _refuse(self, what: str) -> None:
        with self._step():
            raise _unsupported(what)

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Handle one request at a time; the first failure ends the run, even if the SDK catches the exception."""
        with self._lock:
            if self._closed:
                raise EngineError("stopped after an earlier error")
            try:
                yield
            except BaseException as error:
                self._closed = True
                self.failure = error
                raise EngineError("stopped") from error  # after a BaseException the SDK waits for ever

    def _registration(self, request: resource_pb2.RegisterResourceRequest) -> Registration:
        options = {
            "retain_on_delete": request.retainOnDelete,
            "import_": request.importId,
            "ignore_changes": list(request.ignoreChanges),
            "replace_on_changes": list(request.replaceOnChanges),
            "aliases": list(request.aliasURNs) or list(request.aliases),
            "remote components": request.remote,
        }
        for option, value in options.items():
            if value:
                raise _unsupported(f"the resource option {option} ({request.type} {request.name})")
        inputs, secrets = from_struct(request.object)
        urn = self._urn(request.parent, request.type, request.name)
        if request.type == STACK:
            self._stack_urn = urn
        return Registration(
            urn=urn,
            type=request.type,
            name=request.name,
            custom=request.custom,
            parent=request.parent,
            provider=request.provider,
            inputs=inputs,
            secrets=secrets,
            dependencies=tuple(sorted(request.dependencies)),
            property_dependencies={
                key: tuple(sorted(sources.urns))
                for key, sources in sorted(request.propertyDependencies.items())
                if sources.urns
            },
            delete_before_replace=request.deleteBeforeReplace,
            protect=request.protect,
        )

    def _urn(self, parent: str, type: str, name: str) -> str:
        """Return Pulumi's name of a resource: "urn:pulumi:dev::hoplab::hoplab:lab:Lab$hoplab:lab:Node::worker1"."""
        parents = parent.split("::")[2] + "$" if parent and parent != self._stack_urn else ""
        return f"urn:pulumi:{self.stack}::{PROJECT_NAME}::{parents}{type}::{name}"


class Log:
    """The log method of Pulumi's Engine service: log lines become progress."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def Log(self, request: engine_pb2.LogRequest) -> empty_pb2.Empty:
        if request.severity == engine_pb2.INFO:
            self.progress.task(request.message)
        elif request.severity == engine_pb2.WARNING:
            self.progress.note(request.message)
        return empty_pb2.Empty()  # errors reach the user as exceptions; debug lines are dropped


def from_struct(struct: struct_pb2.Struct) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the properties as plain Python values, and the names of properties with a secret."""
    secrets: list[str] = []

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, Mapping):
            if value.get(SIGNATURE) == SECRET:
                secrets.append(name)
                return plain(value["value"], name)
            if SIGNATURE in value:
                raise _unsupported(f"the kind of value in property {name} (an asset, archive or resource)")
            return {key: plain(item, name) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item, name) for item in value]
        if isinstance(value, float) and value.is_integer():
            return int(value)  # the wire format has only floating-point numbers
        return value

    properties = {name: plain(value, name) for name, value in json_format.MessageToDict(struct).items()}
    return properties, tuple(dict.fromkeys(secrets))


def to_struct(properties: Mapping[str, Any]) -> struct_pb2.Struct:
    """Return plain Python values in Pulumi's wire format."""
    struct = struct_pb2.Struct()
    struct.update(dict(properties))
    return struct


def _unsupported(what: str) -> EngineError:
    return EngineError(
        f"the embedded engine does not support {what}",
        remedy="it knows what this project's program uses; for anything else install the Pulumi CLI",
    )
