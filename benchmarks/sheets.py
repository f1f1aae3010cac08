"""The input files of a lab by hand, which are those of `./lab up`.

They come from the project itself (the Pulumi program under mocks, the roles' templates), so both sides of the
benchmark always make the same machines and the same cluster. Neither Pulumi nor Ansible runs when the lab is made.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nativetypes
import pulumi
import yaml
from ansible.plugins.filter.core import FilterModule  # type: ignore[import-untyped]  # has no types
from jinja2.utils import missing

from hoplab.cluster.inventory import HOSTED, lab_facts
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.engine import schema
from hoplab.expectations.parts import known_parts
from hoplab.host.libvirtd import PrivateLibvirt
from hoplab.image import KERNEL_CMDLINE, NodeImage
from hoplab.infra.components import Lab, LabArgs
from hoplab.infra.context import LabContext
from hoplab.pki.keys import ensure_keys
from hoplab.spec.plan import LabPlan

SLOWNESS = 8  # timeouts of kubeadm for the slowest machine of the roles; without failures they cost no time


@dataclass(frozen=True)
class Resource:
    """A libvirt resource of the program."""

    type: str
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class Sheets:
    """The inputs of the commands of a lab by hand."""

    resources: tuple[Resource, ...]
    kubeadm: str  # configuration of `kubeadm init`
    patches: Mapping[str, str]  # of static pods, by name
    network: str  # manifest of the pod network
    inputs: Mapping[str, Any]

    def of(self, type: str) -> list[Mapping[str, Any]]:
        """Return the resources of a type, in the program's order."""
        return [resource.inputs for resource in self.resources if resource.type == type]

    def join(self, node: str, *, token: str, ca_hash: str) -> str:
        """Return the configuration of `kubeadm join` for a node."""
        known = {"kubeadm_worker_token": token, "kubeadm_worker_ca_hash": ca_hash, "inventory_hostname": node}
        return render("kubeadm_worker", "join.yml.j2", {**self.inputs, **known})


def sheets(plan: LabPlan, image: NodeImage, paths: LabPaths) -> Sheets:
    """Make the lab's keys, which are on the machines' seeds, and return its sheets."""
    keys = ensure_keys(paths, [node.name for node in plan.nodes])
    context = LabContext(plan, image, PrivateLibvirt(paths).uri, paths.netns, keys, KERNEL_CMDLINE)
    inputs = role_inputs(plan, image, paths)
    patches: Mapping[str, Any] = resolve("kubeadm_control_plane", "kubeadm_control_plane_static_pod_patches", inputs)
    return Sheets(
        resources=registered(context, paths),
        kubeadm=render("kubeadm_control_plane", "kubeadm.yml.j2", inputs),
        patches={pod: yaml.safe_dump(patch) for pod, patch in patches.items()},
        network=render(f"cni_{plan.cni.name}", f"{plan.cni.name}.yml.j2", inputs),
        inputs=inputs,
    )


def role_inputs(plan: LabPlan, image: NodeImage, paths: LabPaths) -> dict[str, Any]:
    """Return the variables of the lab with which Ansible evaluates inventory/group_vars/all.yml."""
    return {
        "lab": lab_facts(
            plan, paths, netns=paths.netns, image_bin=image.bin, image_digest=image.digest, parts=known_parts()
        ),
        "inventory_hostname": HOSTED if plan.placement == "hosted" else plan.nodes[0].name,
        "machine": {"traces": False},
        "machine_slowness": SLOWNESS,
    }


def registered(context: LabContext, paths: LabPaths) -> tuple[Resource, ...]:
    """Return the libvirt resources that the Pulumi program registers for a lab.

    The id of an uploaded volume is its source file, any other id is the resource's name, so a machine's properties show
    its parts.
    """
    seen: list[Resource] = []

    class Recorder(pulumi.runtime.Mocks):
        def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
            if args.typ in schema.SHAPES and args.typ != schema.PROVIDER:
                seen.append(Resource(args.typ, _plain(args.inputs)))
            return str(args.inputs.get("source") or args.inputs.get("name", args.name)), args.inputs

        def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], None]:
            return {}, None

    @pulumi.runtime.test  # type: ignore[untyped-decorator]  # waits until everything is registered
    def program() -> None:
        Lab(paths.lab, LabArgs.of(context, paths))

    # The mocks need the thread's event loop, and asyncio.run() leaves a thread without one.
    try:
        asyncio.get_event_loop()
    except RuntimeError:
        asyncio.set_event_loop(asyncio.new_event_loop())
    pulumi.runtime.set_mocks(Recorder(), stack=paths.lab)
    program()
    return tuple(seen)


def _plain(value: Any) -> Any:
    """Return a property as the program set it: Pulumi's protocol wraps secrets and has only floats (2.0 -> 2)."""
    match value:
        case dict() if pulumi.runtime.rpc.is_rpc_secret(value):
            return _plain(pulumi.runtime.rpc.unwrap_rpc_secret(value))
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case _:
            return value


def render(role: str, template: str, inputs: Mapping[str, Any]) -> str:
    """Render a role's template with its defaults, overridden by the lab's inputs, overridden by ``known``."""
    path = Path("roles") / role / "templates" / template
    return str(_environment(jinja2.Environment).get_template(str(path)).render(_variables(role, inputs)))


def resolve(role: str, name: str, inputs: Mapping[str, Any]) -> Any:
    """Return the value of one input of a role."""
    return _resolved(_variables(role, inputs)[name], _variables(role, inputs))


def _variables(role: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {**_load(f"roles/{role}/defaults/main.yml"), **_load("inventory/group_vars/all.yml"), **inputs}


@functools.cache
def _load(path: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROJECT / path).read_text())
    return loaded


class _Lazy(jinja2.runtime.Context):
    """Values that are templates themselves; like in Ansible, a template's access renders them."""

    def resolve_or_missing(self, key: str) -> Any:
        value = super().resolve_or_missing(key)
        return value if value is missing or key not in self.parent else _resolved(value, self.parent)


@functools.cache
def _environment(kind: type[jinja2.Environment]) -> Any:
    environment = kind(
        loader=jinja2.FileSystemLoader(PROJECT),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.context_class = _Lazy
    environment.filters.update(FilterModule().filters())
    return environment


def _resolved(value: Any, variables: Mapping[str, Any]) -> Any:
    """Return a value with all of its templates rendered, with the types of their results."""
    match value:
        case str() if "{{" in value or "{%" in value:
            return _environment(jinja2.nativetypes.NativeEnvironment).from_string(value.strip()).render(variables)
        case list():
            return [_resolved(item, variables) for item in value]
        case dict():
            return {key: _resolved(item, variables) for key, item in value.items()}
        case _:
            return value
