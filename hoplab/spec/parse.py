"""Reads the lab spec: ``Pulumi.<lab>.yaml``, settings under the config namespace ``lab``.

``load_spec`` reads the file, ``parse_spec`` is pure. All issues are collected before any is reported, and the checks
between fields run only on fields that are right in themselves. docs/spec.md lists the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, cast

import yaml

from hoplab.core.errors import LabError, SpecError, SpecIssue
from hoplab.core.paths import LabPaths
from hoplab.spec.catalog import components, kubernetes_versions
from hoplab.spec.model import (
    Accel,
    Engine,
    Host,
    Keeping,
    LabSpec,
    Merging,
    Placement,
)
from hoplab.spec.parts import Parts
from hoplab.spec.reader import MOST_DIGITS, Reader, described, nearest
from hoplab.spec.settings import DEFAULT, choice_at, integer_at, part_at
from hoplab.spec.validate import field_issues, host_issues, name_issues

HostOf = Callable[[LabSpec], Host]  # returns the host that runs the machines of a spec


def load_spec(paths: LabPaths, parts: Parts, host: Host | HostOf | None = None) -> LabSpec:
    """Return the spec in ``Pulumi.<lab>.yaml``; with a host, also checked against what that host has."""
    lab, source = paths.lab, paths.spec.name
    name = name_issues(lab)
    if name:
        raise SpecError(f"lab {lab!r}", name)
    try:
        text = paths.spec.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _no_such_lab(lab, paths) from None
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"{source} can't be read: {error}", remedy="make it a readable UTF-8 text file") from None
    if len(text) > MOST_CHARACTERS:
        raise LabError(
            f"{source} can't be read: it has {len(text)} characters, and a spec has {MOST_CHARACTERS} at most",
            remedy="docs/spec.md has every setting; most specs have ten lines",
        )
    try:
        stack = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, RecursionError, *UNREADABLE) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        problem = getattr(error, "problem", None) or "is not YAML"
        issue = SpecIssue(place, problem, "valid YAML is needed (docs/spec.md has examples)")
        raise SpecError(source, [issue]) from None
    if stack is None:
        stack = {}
    config = stack.get("config") if isinstance(stack, dict) else stack
    if config is None:
        config = {}
    if not isinstance(config, dict):
        place = "config" if isinstance(stack, dict) else "the file"
        hint = "settings as `lab:name: value` below `config:`"
        raise SpecError(source, [SpecIssue(place, f"is {described(config)}", hint)])
    return parse_spec(lab, config, source, parts, host)


def parse_spec(
    lab: str,
    config: Mapping[str, Any],
    source: str,
    parts: Parts,
    host: Host | HostOf | None = None,
    versions: Collection[str] | None = None,
    known: Collection[str] | None = None,
) -> LabSpec:
    """Return the spec in a Pulumi configuration, {"lab:nodes": {"workers": 3}, ...}; SpecError has every issue.

    Values may be what ``pulumi config set`` writes: numbers as text, and a whole section as JSON text.
    """
    read = Reader(name_issues(lab))
    top = read.namespace(config)

    nodes = read.section(top, "nodes")
    workers = read.integer(nodes, integer_at("nodes.workers"))
    control_plane_size = read.size(nodes, "controlPlane")
    worker_size = read.size(nodes, "worker")
    control_plane = read.section(top, "controlPlane")
    placement = read.word(control_plane, choice_at("controlPlane.placement"))
    ingress = read.section(top, "ingress")
    load_balancer = read.section(top, "loadBalancer")
    accel = read.word(top, choice_at("accel"))
    engine = read.word(top, choice_at("engine"))
    checkpoint = read.word(top, choice_at("checkpoint"))
    kubeconfig = read.word(top, choice_at("kubeconfig"))
    image = read.section(top, "image")
    spec = LabSpec(
        lab=lab,
        workers=workers,
        control_plane_placement=cast(Placement, placement),
        control_plane_size=control_plane_size,
        worker_size=worker_size,
        network=read.network(top, "network", DEFAULT.network),
        pod_cidr=read.network(top, "podCIDR", DEFAULT.pod_cidr),
        service_cidr=read.network(top, "serviceCIDR", DEFAULT.service_cidr),
        ipv6=read.ipv6(top),
        cni=read.cni(read.section(top, "cni"), parts),
        proxy_mode=read.part(read.section(top, "proxy"), part_at("proxy.mode"), parts),
        network_policy=read.part(top, part_at("networkPolicy"), parts),
        ingress_controller=read.part(ingress, part_at("ingress.controller"), parts),
        gateway_api=read.truth(ingress, "gatewayApi"),
        gateway_controller=read.part(ingress, part_at("ingress.gateway"), parts),
        load_balancer=read.part(load_balancer, part_at("loadBalancer.name"), parts),
        load_balancer_pool=read.addresses(load_balancer, "pool"),
        kubernetes_version=read.version(
            read.section(top, "kubernetes"), supported_versions() if versions is None else versions
        ),
        libvirt=read.libvirt(top),
        accel=cast(Accel, accel),
        engine=cast(Engine, engine),
        checkpoint=cast(Keeping, checkpoint),
        family=read.text(top, "family", "a name") or "",
        kubeconfig=cast(Merging, kubeconfig),
        protect=read.truth(top, "protect"),
        image_mirror=read.mirror(image),
        image_components=read.names(image, "components", image_components() if known is None else known),
    )
    issues = read.issues + field_issues(spec, parts, read.wrong, read.given)
    if host is not None and not (callable(host) and "libvirt" in read.wrong):
        host = host(spec) if callable(host) else host
        issues += [issue for issue in host_issues(spec, host) if issue.path not in read.wrong]
    if issues:
        raise SpecError(source, issues)
    return spec


def supported_versions() -> tuple[str, ...]:
    """Return the Kubernetes versions that a node image can be built with, the default last."""
    return tuple(kubernetes_versions().values())


def image_components() -> tuple[str, ...]:
    """Return the components that only some node images have: images added as archives, or built and baked in."""
    table = components()
    return tuple(dict.fromkeys((*(entry.component for entry in table.archives), *sorted(table.baked))))


MOST_CHARACTERS = 16_384  # PyYAML reads as many in half a second
MOST_NESTED = 50  # brackets in brackets
MOST_MERGED = 100  # mappings and names that `<<` may bring into one mapping
UNREADABLE = (ValueError, TypeError, LookupError, OverflowError, AttributeError)  # PyYAML of `!!int x`, `!!timestamp x`


class _StrictLoader(yaml.SafeLoader):
    """YAML without duplicate keys, of which the last one would win, and without values that Python cannot make."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        """Begin a list or a mapping in brackets, unless it is so deep that PyYAML would need minutes."""
        if self.flow_level > MOST_NESTED:
            raise yaml.scanner.ScannerError(None, None, "is nested too deeply", self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge what `<<` names, unless it is so much that it can only be there to fill the memory."""
        merged = [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]
        sources = sum(len(value.value) if isinstance(value, yaml.SequenceNode) else 1 for value in merged)
        if sources <= MOST_MERGED:
            super().flatten_mapping(node)
        if merged and max(sources, len(node.value)) > MOST_MERGED:
            raise yaml.constructor.ConstructorError(None, None, "too much is merged by <<", node.start_mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":int") and len(node.value) > MOST_DIGITS:
            text = f"a number of {len(node.value)} characters is too long"
            raise yaml.constructor.ConstructorError(None, None, text, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except UNREADABLE:  # `!!int x`, the 30th of February
            raise yaml.constructor.ConstructorError(None, None, "a value that can't be read", node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "is no mapping", node.start_mark)
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a name is a list or a mapping", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _no_such_lab(lab: str, paths: LabPaths) -> LabError:
    labs = sorted(path.name.split(".")[1] for path in paths.project.glob("Pulumi.*.yaml"))
    near = nearest(lab, labs)
    there = f"did you mean {near}? " if near else ""
    there += f"labs here: {', '.join(labs)}" if labs else "there is no lab here yet"
    return LabError(
        f"there is no lab {lab!r}: {paths.spec.name} does not exist",
        remedy=f"{there}; the shortest spec of a new one is the line `config: {{}}` in {paths.spec.name}",
    )
