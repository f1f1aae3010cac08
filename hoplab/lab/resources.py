"""Dynamic resources of the Pulumi CLI for the parts of a lab outside of libvirt: the host's part, and the cluster.

    Host     the namespace, the private libvirtd, the hosted control plane, the lab's files: `pulumi destroy` ends them
    Member   a worker's membership: drained before its machine is replaced, admitted again before the next replacement
    Cluster  from machines to a usable cluster: the converge of `pulumi up`, which runs only after a change

`pulumi up` runs their providers in a process of its own and shows its standard output. The embedded engine only
records them: ``hoplab.lab.lifecycle`` does the work in its next step.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pulumi import Input, Output, Resource, ResourceOptions
from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    CreateResult,
    DiffResult,
    ReadResult,
    ResourceProvider,
    UpdateResult,
)
from pulumi.dynamic import Resource as DynamicResource

from hoplab.cluster.inventory import lab_facts, roles_digest
from hoplab.core.errors import LabError, SpecError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import CURRENT
from hoplab.engine import MARK
from hoplab.expectations.parts import known_parts
from hoplab.host import rootless
from hoplab.infra.context import LabContext

OF_THIS_HOST = ("project", "python", "control_plane", "kubeconfig", "ssh_config", "image", "nodes", "reset")
CONVERGE_LOCK = threading.Lock()  # Pulumi creates resources in parallel; a lab has one inventory
CONVERGE_INPUTS = ("settings", "roles", "image", "nodes")  # a change of one of these requires a converge


@dataclass(frozen=True)
class ClusterArgs:
    """The inputs of a converge."""

    lab: str
    settings: Mapping[str, Any]  # facts about the lab that the roles get
    roles: str  # digest of roles and playbooks
    image: str  # digest of the node image
    nodes: Mapping[str, Input[str]]  # name -> id of the machine; a new machine of the same name has to join

    @staticmethod
    def of(context: LabContext, paths: LabPaths, nodes: Mapping[str, Input[str]]) -> ClusterArgs:
        digest = context.image.digest
        bin, parts = context.image.bin, known_parts()
        facts = lab_facts(context.plan, paths, netns=context.netns, image_bin=bin, image_digest=digest, parts=parts)
        settings = {name: value for name, value in facts.items() if name not in OF_THIS_HOST}
        return ClusterArgs(paths.lab, settings, roles_digest(paths.project), digest, nodes)


class Host(DynamicResource, module="hoplab", name="Host"):
    """The lab's part of this host outside of libvirt: created before libvirt's objects, deleted after them."""

    def __init__(self, name: str, lab: str, opts: ResourceOptions | None = None) -> None:
        super().__init__(HostProvider(), name, {"lab": lab}, opts)


class Cluster(DynamicResource, module="hoplab", name="Cluster"):
    """The Kubernetes cluster on the machines."""

    kubeconfig: Output[str | None]

    def __init__(
        self,
        name: str,
        args: ClusterArgs,
        *,
        host: Resource,
        members: Sequence[Resource] = (),
        opts: ResourceOptions | None = None,
    ) -> None:
        # Deleting the host's part deletes all of the cluster, so nothing needs to be drained or reset. A member with
        # a new machine is admitted before: converges run one at a time, and this one finds the node joined.
        own = ResourceOptions(
            additional_secret_outputs=["kubeconfig"], deleted_with=host, depends_on=list(members) or None
        )
        inputs = {**vars(args), "nodes": dict(args.nodes), "kubeconfig": None}
        super().__init__(ClusterProvider(), name, inputs, ResourceOptions.merge(opts, own))


class Member(DynamicResource, module="hoplab", name="Member"):
    """A worker's membership in the cluster. It acts on later changes: all workers of a new cluster join together."""

    def __init__(
        self, node: str, lab: str, machine: Input[str], *, host: Resource, opts: ResourceOptions | None = None
    ) -> None:
        own = ResourceOptions(deleted_with=host)
        inputs = {"lab": lab, "node": node, "machine": machine}
        super().__init__(MemberProvider(), f"{node}-member", inputs, ResourceOptions.merge(opts, own))


class HostProvider(ResourceProvider):
    """The provider of Host. Create does nothing: libvirt and the files exist before the program runs."""

    serialize_as_secret_always = False

    def diff(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        changed = olds.get("lab") != news.get("lab")
        return DiffResult(changes=changed, replaces=["lab"] if changed else [])

    def create(self, props: dict[str, Any]) -> CreateResult:
        paths = LabPaths(props["lab"])
        return CreateResult(paths.id, {"lab": props["lab"]})

    def delete(self, id_: str, props: dict[str, Any]) -> None:

        from hoplab.lab import lifecycle  # noqa: PLC0415

        paths = LabPaths(props["lab"])
        with _working(paths, "pulumi destroy") as progress:
            lifecycle.leave_host(paths, progress.note, keep=("pulumi", "keys/passphrase"))


class MemberProvider(ResourceProvider):
    """The provider of Member: it rolls a change of machines through the cluster, one node at a time."""

    serialize_as_secret_always = False

    def diff(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        changed = olds.get("machine") != news.get("machine")
        return DiffResult(changes=changed, replaces=["machine"] if changed else [], delete_before_replace=True)

    def create(self, props: dict[str, Any]) -> CreateResult:
        from hoplab.lab import lifecycle  # noqa: PLC0415
        from hoplab.lab.context import resolve  # noqa: PLC0415
        from hoplab.lab.spec_file import load_spec  # noqa: PLC0415

        paths = LabPaths(props["lab"])
        with _working(paths, "pulumi up") as progress:
            if lifecycle.is_member(paths, props["node"]):
                context = resolve(load_spec(paths), paths, progress)
                lifecycle.admit_node(context, paths, props["node"], progress)
        return CreateResult(f"{paths.id}-{props['node']}", dict(props))

    def delete(self, id_: str, props: dict[str, Any]) -> None:

        from hoplab.lab import lifecycle  # noqa: PLC0415

        paths = LabPaths(props["lab"])
        with _working(paths, "pulumi up") as progress:
            if lifecycle.is_member(paths, props["node"]):
                lifecycle.drain_node(paths, props["node"], props["machine"], progress)


class ClusterProvider(ResourceProvider):
    """The provider of Cluster: converge as create, update and delete. Imports are late: most runs only make a diff."""

    serialize_as_secret_always = False

    def check(self, olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Check the spec against this host: `pulumi preview` shows its errors."""
        from hoplab.lab import libvirt_host, state  # noqa: PLC0415
        from hoplab.lab.spec_file import load_spec  # noqa: PLC0415

        paths, failures = LabPaths(news["lab"]), []
        try:
            spec, before = load_spec(paths, libvirt_host.host_for(paths)), state.made_before(paths)
            state.refuse_another_family(spec, before)
            state.refuse_another_dataplane(spec, before)
        except SpecError as error:
            failures = [CheckFailure(issue.path, f"{issue.problem}; {issue.hint}") for issue in error.issues]
        except LabError as error:
            failures = [CheckFailure("lab", error.whole())]
        return CheckResult(news, failures)

    def diff(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        return DiffResult(changes=any(olds.get(name) != news.get(name) for name in CONVERGE_INPUTS), replaces=[])

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(LabPaths(props["lab"]).id, _converged(props))

    def update(self, id_: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(_converged(news))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Return, for `pulumi refresh`, the member nodes according to the API; nothing without a cluster."""

        from hoplab.lab import lifecycle  # noqa: PLC0415

        paths = LabPaths(props["lab"])
        rootless.enter_network()
        members = lifecycle.members(paths)
        if members is None:
            return ReadResult("", {})
        nodes = {name: machine for name, machine in props.get("nodes", {}).items() if name in members}
        return ReadResult(id_, {**props, "nodes": nodes, "kubeconfig": paths.kubeconfig.read_text()})

    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Reset the machines, which stay, so that they can join another cluster."""
        from hoplab.lab import lifecycle, state  # noqa: PLC0415

        paths = LabPaths(props["lab"])
        if before := state.made_before(paths):
            with _working(paths, "pulumi destroy") as progress:
                lifecycle.remove_cluster(before, paths, progress)


def _converged(props: dict[str, Any]) -> dict[str, Any]:
    """Make the cluster; return its outputs."""
    from hoplab.lab import lifecycle  # noqa: PLC0415
    from hoplab.lab.context import resolve  # noqa: PLC0415
    from hoplab.lab.spec_file import load_spec  # noqa: PLC0415

    paths = LabPaths(props["lab"])
    with _working(paths, "pulumi up") as progress:
        context = resolve(load_spec(paths), paths, progress)
        lifecycle.drain_removed(context, paths, progress)
        lifecycle.make_cluster(context, paths, progress)
    return {**props, "kubeconfig": paths.kubeconfig.read_text()}


@contextmanager
def _working(paths: LabPaths, what: str) -> Iterator[Any]:
    """Hold the lab's lock, unless `lab` holds it; print progress where Pulumi shows it; raise errors as plain text."""
    from hoplab.core.console import PlainProgress  # noqa: PLC0415
    from hoplab.core.lock import LOCK_INHERITED, locked  # noqa: PLC0415

    inherited = os.environ.get(LOCK_INHERITED) or CURRENT.progress  # the embedded engine runs in `lab up` itself
    lock = contextlib.nullcontext() if inherited else locked(paths.lock, f"{what} --stack {paths.lab}")
    CURRENT.forks = CURRENT.progress is not None
    rootless.enter_network()  # this thread only: Pulumi's own threads stay where it has its ports
    try:
        with CONVERGE_LOCK, lock:
            yield CURRENT.progress or PlainProgress(sys.stdout)
    except LabError as error:
        if CURRENT.progress:
            raise
        raise Failed(f"{MARK}{error.whole()}") from None


class Failed(Exception):
    """A LabError as text: Pulumi shows it after a traceback."""
