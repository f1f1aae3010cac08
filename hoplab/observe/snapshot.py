"""A lab looked at once: the facts of every node, of every pod's network namespace and of the Kubernetes API.

Read-only lessons check a snapshot. It can be saved and loaded again (a recording): the same lessons then run with no
machine at all. What is kept is the text the commands printed, so a recording also tests the parsers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, Protocol, TypeVar

from hoplab.core import fs
from hoplab.core.diff import applied, delta
from hoplab.core.errors import LabError
from hoplab.observe.facts import Fact, Facts, T, Where, discover
from hoplab.observe.facts._json import as_read
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.api_nodes import API_NODES, ApiNode
from hoplab.observe.facts.api_pods import API_PODS, ApiPod
from hoplab.observe.facts.links import LINKS, Link
from hoplab.observe.script import Output
from hoplab.observe.setting import Setting, from_document, to_document

G = TypeVar("G")


class RecordingError(LabError):
    """A file is not a recording that this version can read."""


@dataclass(frozen=True, eq=False)  # one object each in a snapshot
class Node:
    """A machine and what Kubernetes knows of it."""

    name: str
    facts: Facts
    api: ApiNode

    @property
    def address(self) -> IPv4Address:
        """Its address in the lab network; LabError when it never told Kubernetes."""
        return _given(self.api.address, f"node {self.name} has no InternalIP")

    @property
    def pod_cidr(self) -> IPv4Network:
        return _given(self.api.pod_cidr, f"node {self.name} has no podCIDR")

    @property
    def address6(self) -> IPv6Address:
        return _given(self.api.address6, f"node {self.name} has no InternalIP of IPv6")

    @property
    def pod_cidr6(self) -> IPv6Network:
        return _given(self.api.pod_cidr6, f"node {self.name} has no podCIDR of IPv6")

    def __getitem__(self, fact: Fact[T]) -> T:
        return self.facts[fact]

    def link(self, name: str) -> Link | None:
        return next((link for link in self[LINKS] if link.name == name), None)


@dataclass(frozen=True, eq=False)  # one object each in a snapshot
class Pod:
    """A running pod with an address of its own, and the network namespace that has it."""

    api: ApiPod
    node: Node
    netns: str  # "cni-1b4e..." below /run/netns of its node
    facts: Facts

    @property
    def address(self) -> IPv4Address:
        return _given(self.api.address, f"pod {self.api} has no address")

    @property
    def address6(self) -> IPv6Address:
        return _given(self.api.address6, f"pod {self.api} has no address of IPv6")

    def __str__(self) -> str:
        return str(self.api)

    def __getitem__(self, fact: Fact[T]) -> T:
        return self.facts[fact]

    @property
    def eth0(self) -> Link | None:
        return next((link for link in self[LINKS] if link.name == "eth0"), None)

    @property
    def host_end(self) -> Link | None:
        """The other end of its eth0: the interface on its node that has the index eth0 names as its peer's."""
        eth0 = self.eth0
        return next((link for link in self.node[LINKS] if eth0 and link.index == eth0.peer_index), None)


@dataclass(frozen=True)
class Snapshot:
    """Everything that read-only lessons look at."""

    setting: Setting
    versions: Mapping[str, str]
    node_facts: Mapping[str, Facts]
    netns_facts: Mapping[str, Mapping[str, Facts]]  # by node, then by name of the namespace
    api: Facts

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The machines that are nodes of the cluster, in the plan's order."""
        known = {node.name: node for node in self.api[API_NODES]}
        return tuple(Node(name, facts, known[name]) for name, facts in self.node_facts.items() if name in known)

    @cached_property
    def pods(self) -> tuple[Pod, ...]:
        """Running pods with an address of their own whose namespace was found on their node."""
        nodes = {node.name: node for node in self.nodes}
        found = []
        for pod in self.own_address_pods:
            for netns, facts in self.netns_facts.get(pod.node, {}).items():
                if pod.node in nodes and any(address.address == pod.address for address in facts[ADDRESSES]):
                    found.append(Pod(pod, nodes[pod.node], netns, facts))
        return tuple(found)

    def pods_on(self, node: Node) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.pods if pod.node is node)

    @property
    def places(self) -> Mapping[str, Facts]:
        """Every network namespace that was looked at and is known by name: nodes, then pods."""
        return {**{node.name: node.facts for node in self.nodes}, **{str(pod): pod.facts for pod in self.pods}}

    @property
    def own_address_pods(self) -> tuple[ApiPod, ...]:
        """Running pods, as the API knows them, that should have a network namespace of their own."""
        return tuple(
            pod for pod in self.api[API_PODS] if pod.running and not pod.going and not pod.host_network and pod.address
        )

    def save(self, file: Path, *, like: Path | None = None) -> None:
        """Write a recording: what commands printed as it was, of the API's answers what facts read.

        The rest of an answer, the environment of a container for one, may hold secrets. Of annotations, which are read
        by name, those that CNIs write are kept: others hold whole manifests. With ``like``, another recording, only
        what differs from it is written.
        """
        document = {
            "hoplab": FORMAT,
            "setting": to_document(self.setting),
            "versions": dict(self.versions),
            "nodes": {name: _dump(facts) for name, facts in self.node_facts.items()},
            "pods": {
                node: {netns: _dump(facts) for netns, facts in found.items()}
                for node, found in self.netns_facts.items()
            },
            "api": {
                fact.name: {**asdict(output), "out": _slim(as_read(fact.parse, output.out))}
                for fact in discover("api")
                if (output := self.api.outputs.get(fact.name))
            },
        }
        text = json.dumps(document, indent=1, default=str)
        if like:
            changes = delta(_document(like), json.loads(text))
            text = json.dumps({"like": os.path.relpath(like, file.parent), "but": changes}, indent=1)
        fs.write(file, text + "\n")


FORMAT = 1  # of recordings
PLACES: tuple[Where, ...] = ("node", "pod", "api")
CNI_ANNOTATIONS = ("flannel.alpha.coreos.com/", "projectcalico.org/")  # on nodes, for the CNI's other nodes


def load(file: Path) -> Snapshot:
    """Read a recording."""
    try:
        raw = _document(file)
        if raw["hoplab"] != FORMAT:
            raise ValueError(f"its format is {raw['hoplab']!r}")
        return Snapshot(
            setting=from_document(raw["setting"]),
            versions=raw["versions"],
            node_facts={name: _facts(name, outputs) for name, outputs in raw["nodes"].items()},
            netns_facts={
                node: {netns: _facts(f"{node} {netns}", outputs) for netns, outputs in found.items()}
                for node, found in raw["pods"].items()
            },
            api=_facts("api", raw["api"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordingError(f"{file} is not a recording of a lab: {error}", remedy="make one: ./lab record") from None


def _document(file: Path) -> Any:
    """What a recording holds; one that is like another says only what differs."""
    raw = json.loads(file.read_text())
    return applied(_document(file.parent / raw["like"]), raw["but"]) if "like" in raw else raw


def _dump(facts: Facts) -> dict[str, dict[str, Any]]:
    return {name: asdict(output) for name, output in facts.outputs.items()}


def _slim(text: str) -> str:
    """A JSON document without the annotations that no CNI wrote; what is no JSON (an error's few words) as it is."""
    try:
        document = json.loads(text, object_hook=_announced)
    except ValueError:
        return text
    return json.dumps(document, separators=(",", ":"))


def _announced(item: dict[str, Any]) -> dict[str, Any]:
    if isinstance(found := item.get("annotations"), dict):
        item["annotations"] = {name: text for name, text in found.items() if name.startswith(CNI_ANNOTATIONS)}
    return item


def _facts(place: str, raw: dict[str, Any]) -> Facts:
    return Facts(place, {name: Output(**output) for name, output in raw.items()})


class NodeReader(Protocol):
    """What a snapshot needs of hoplab.observe.ssh.Hosts."""

    def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]: ...


class ApiReader(Protocol):
    """Fetches a path of the Kubernetes API as text."""

    def __call__(self, path: str) -> Output: ...


def take(setting: Setting, versions: Mapping[str, str], hosts: NodeReader, api: ApiReader) -> Snapshot:
    """Look at a running lab: one round trip per node, all nodes and the API at once."""
    node_commands, pod_commands, api_paths = (
        {fact.name: fact.command for fact in discover(where) if setting.ipv6 or not fact.ipv6} for where in PLACES
    )
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(hosts.batches, node_commands, in_pods=pod_commands)
        answered = {path: api(path) for path in dict.fromkeys(api_paths.values())}  # some facts read the same answer
        answers = {name: answered[path] for name, path in api_paths.items()}
        outputs = reading.result()
    return Snapshot(
        setting=setting,
        versions=versions,
        node_facts={
            node: Facts(node, {key: output for key, output in found.items() if "/" not in key})
            for node, found in outputs.items()
        },
        netns_facts={node: _by_namespace(node, found) for node, found in outputs.items()},
        api=Facts("api", answers),
    )


def _by_namespace(node: str, outputs: Mapping[str, Output]) -> dict[str, Facts]:
    """Keys like ``cni-1b4e.../routes`` taken apart."""
    found: dict[str, dict[str, Output]] = {}
    for key, output in outputs.items():
        netns, slash, fact = key.rpartition("/")
        if slash:
            found.setdefault(netns, {})[fact] = output
    return {netns: Facts(f"{node} {netns}", each) for netns, each in found.items()}


def _given(value: G | None, otherwise: str) -> G:
    if value is None:
        raise LabError(otherwise, remedy="`./lab status` shows what Kubernetes knows of it")
    return value
