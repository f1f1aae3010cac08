"""LabState: the result of applying a plan. It is written to <lab>/state.json and holds no secrets."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from hoplab.core import fs, proxies
from hoplab.core.errors import LabError, SpecError, StateError
from hoplab.core.paths import LabPaths
from hoplab.core.serialization import from_json, to_json
from hoplab.observe import setting
from hoplab.observe.setting import Setting
from hoplab.spec.catalog import minor_of
from hoplab.spec.changes import changed_settings
from hoplab.spec.libvirt_uri import RemoteHost, remote_host
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import LabPlan, dataplane


@dataclass(frozen=True)
class NodeState:
    """One machine that exists."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    role: str  # "control-plane" | "worker"
    address: str
    mac: str


@dataclass(frozen=True)
class LabSummary:
    """The part of a lab's state that quick verbs need: it is read without pydantic."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    lab: str
    id: str
    libvirt_uri: str  # resolved, e.g. "qemu+unix:///system?socket=/run/hoplab/<id>/..." for a private libvirt
    netns: str  # "" unless libvirt is private
    accel: Literal["kvm", "tcg"]
    placement: Literal["vm", "hosted"]
    gateway: str  # the host end of the lab network
    network: str  # libvirt's name of the lab network
    image: str  # digest of the node image
    image_bin: str  # folder with the host-native kubectl, kubeadm, ... of that image
    nodes: tuple[NodeState, ...]
    ingress: str = "none"  # the selected ingress controller
    dataplane: str = ""  # the parts of its network, see plan.dataplane; "" for a lab of an older version
    network6: str = ""  # the lab network's IPv6 range, "" where it has none
    spec_digest: str = ""  # of the file with the spec of the last `up`; "" where not known

    @property
    def hosted(self) -> bool:
        return self.placement == "hosted"

    @property
    def remote(self) -> RemoteHost | None:
        """Return the other host that runs the machines; None for this one."""
        return remote_host(self.libvirt_uri)

    @property
    def way(self) -> str:
        """Return the way to the lab network: a namespace, the URI of another host's libvirt, or "" for none."""
        return self.netns or (self.libvirt_uri if self.remote else "")

    def environment(self, paths: LabPaths) -> dict[str, str]:
        """Return the environment of programs that use the lab's API: no proxy is asked for the addresses of the lab."""
        environment = proxies.bypassing(os.environ, [self.gateway, *(node.address for node in self.nodes)])
        return {**environment, "KUBECONFIG": str(paths.kubeconfig), "KUBECACHEDIR": str(paths.discovery)}


@dataclass(frozen=True)
class LabState(LabSummary):
    """The state that verbs after ``up`` read; everything else comes from libvirt or Kubernetes."""

    phases: tuple[tuple[str, float], ...] = ()  # (title, seconds) of the last `lab up`
    setting: Setting | None = None  # what lessons depend on; None for a lab of an older version
    spec: LabSpec | None = None  # the spec of the last `up`; None for a lab of an older version
    api_port: int = 0  # of this host's loopback, forwarded to the API server; 0 where it never was
    kubeconfig: str = ""  # the user's file with the lab's context, "" where none has it
    context: str = ""  # the name of that context


def lab_state(
    plan: LabPlan, *, libvirt_uri: str, netns: str, image: str, image_bin: Path, spec: LabSpec | None = None
) -> LabState:
    """Return the state of a lab after the engine has applied its machines."""
    return LabState(
        lab=plan.lab,
        id=plan.id,
        libvirt_uri=libvirt_uri,
        netns=netns,
        accel=plan.accel,
        placement=plan.placement,
        gateway=str(plan.network.gateway),
        network=plan.network.name,
        image=image,
        image_bin=str(image_bin),
        ingress=plan.ingress_controller,
        dataplane=dataplane(plan),
        network6=str(plan.network.cidr6 or ""),
        nodes=tuple(NodeState(node.name, node.role, str(node.address), node.mac) for node in plan.nodes),
        setting=setting.of_plan(plan),
        spec=spec,
    )


def save(state: LabState, paths: LabPaths) -> None:
    """Write the state atomically: a reader gets the old or the new state, never a part."""
    paths.root.mkdir(parents=True, exist_ok=True)
    fs.write(paths.state, json.dumps(to_json(state), indent=2))


def load(paths: LabPaths) -> LabState:
    """Return the state of an existing lab; raise StateError when there is none or it can't be read."""
    document = _read(paths)
    try:
        return from_json(LabState, document)
    except ValueError as error:
        raise _unreadable(paths, error) from None


def load_summary(paths: LabPaths) -> LabSummary:
    """Return the state, or its part that is texts where that part is as ``save`` writes it; raise as ``load`` does."""
    document = _read(paths)
    try:
        nodes = tuple(NodeState(**node) for node in document["nodes"])
        names = {field.name for field in fields(LabSummary)} - {"nodes"}
        texts = {name: document[name] for name in names & document.keys()}
        summary = LabSummary(nodes=nodes, **texts)
    except (AttributeError, KeyError, TypeError):
        return load(paths)  # it says what does not fit
    values = [*texts.values(), *(value for node in nodes for value in vars(node).values())]
    known = document.keys() <= {field.name for field in fields(LabState)}
    return summary if known and all(isinstance(value, str) for value in values) else load(paths)


def _read(paths: LabPaths) -> Any:
    try:
        return json.loads(paths.state.read_text())
    except FileNotFoundError:
        raise StateError(
            f"there is no lab {paths.lab!r} here", remedy=f"make it with `./lab up --lab {paths.lab}`"
        ) from None
    except ValueError as error:
        raise _unreadable(paths, error) from None


def _unreadable(paths: LabPaths, error: ValueError) -> StateError:
    return StateError(
        f"{paths.state} can't be read as a lab's state: {error}",
        remedy=f"`./lab up --lab {paths.lab}` writes it again from the machines that exist",
    )


def made_before(paths: LabPaths) -> LabState | None:
    """Return the state that an earlier ``up`` wrote; None where it is missing or unreadable."""
    with contextlib.suppress(StateError):
        return load(paths)
    return None


def built_setting(lab: LabState, paths: LabPaths) -> Setting:
    """Return the setting that ``up`` stored; for a lab of an older version, without one, the setting of its spec."""
    if lab.setting:
        return lab.setting
    from hoplab.lab.spec_file import load_spec, plan_lab  # noqa: PLC0415 -- see spec_notice

    plan = plan_lab(load_spec(paths), lab_id=lab.id, accel=lab.accel)
    return replace(setting.of_plan(plan), ingress=lab.ingress)


def digest_of_spec(spec: LabSpec, paths: LabPaths) -> str:
    """Return the digest of the spec's file; "" where the file was edited after ``spec`` was read from it."""
    from hoplab.lab.spec_file import load_spec  # noqa: PLC0415 -- see spec_notice

    with contextlib.suppress(LabError):
        digest = _digest(paths.spec)
        if load_spec(paths) == spec:
            return digest
    return ""


def _digest(file: Path) -> str:
    """Return the digest of a file; "" where it can't be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def spec_notice(lab: LabSummary, paths: LabPaths) -> str:
    """Return one line on the difference between the spec and the spec of the last ``up``; "" where there is none."""
    name = paths.spec.name
    if lab.spec_digest and lab.spec_digest == _digest(paths.spec):
        return ""  # so `./lab status` neither reads YAML nor imports every part
    built = lab if isinstance(lab, LabState) else load(paths)
    if built.spec is None:
        return (
            f"lab {lab.lab} was made by an older version, which did not write its settings down: "
            f"they are read from {name} until the next `./lab up`"
        )
    from hoplab.lab.spec_file import load_spec  # noqa: PLC0415

    try:
        changed = changed_settings(built.spec, load_spec(paths))
    except SpecError as error:
        wrong = dict.fromkeys(issue.path for issue in error.issues)
        return f"{name} has changed since `up`, and is not valid now: {', '.join(wrong)}"
    except LabError as error:
        return f"{name} is not what `up` read: {error.message.splitlines()[0]}"
    return f"{name} has changed since `up`: {', '.join(changed)}" if changed else ""


def refuse_another_family(spec: LabSpec, before: LabState | None) -> None:
    """Raise LabError where the spec changes IPv6: its ranges are in the network and in every machine's seed."""
    asked = str(spec.ipv6.network) if spec.ipv6 else ""
    if before and asked != before.network6:
        had, asks = (f"the IPv6 network {range}" if range else "no IPv6" for range in (before.network6, asked))
        raise LabError(
            f"lab {before.lab!r} was made with {had}, and its spec now asks for {asks}",
            remedy="its network and machines have to be made anew: "
            f"./lab destroy --lab {before.lab}, then ./lab up --lab {before.lab}",
        )


def refuse_another_kubernetes(spec: LabSpec, before: LabState | None) -> None:
    """Raise LabError where the spec changes the minor of Kubernetes: etcd's data and the nodes are of the old one."""
    had = before.spec.kubernetes_version if before and before.spec else ""
    if before and had and minor_of(had) != minor_of(spec.kubernetes_version):
        raise LabError(
            f"lab {before.lab!r} was made with Kubernetes {had}, and its spec now asks for {spec.kubernetes_version}",
            remedy=f"keep it by lab:kubernetes.version {minor_of(had)}, or make the lab anew: "
            f"./lab destroy --lab {before.lab}, then ./lab up --lab {before.lab}",
        )


def refuse_another_dataplane(spec: LabSpec, before: LabState | None) -> None:
    """Raise LabError where the spec changes the dataplane: rules and links of the old one would stay on the nodes."""
    asked = dataplane(spec)
    if before and before.dataplane and asked != before.dataplane:
        raise LabError(
            f"lab {before.lab!r} was made with {before.dataplane}, and its spec now asks for {asked}",
            remedy=f"make its cluster anew on the same machines, all pods are lost: "
            f"./lab up --recreate --lab {before.lab}",
        )
