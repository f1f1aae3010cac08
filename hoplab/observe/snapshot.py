"""A snapshot of a lab: the facts of every node, of every pod's network namespace and of the Kubernetes API.

Read-only lessons check a snapshot. ``recording_format`` writes it to a file and reads it back, so the same lessons run
without a machine. A snapshot keeps the text that the commands printed: a recording also tests the parsers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Protocol, TypeVar

from hoplab.core.errors import LabError, UnavailableError
from hoplab.observe.facts import Fact, Facts, T, Where, discover
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.api_nodes import API_NODES, ApiNode
from hoplab.observe.facts.api_pods import API_PODS, ApiPod
from hoplab.observe.facts.clock import CLOCK
from hoplab.observe.facts.links import LINKS, Link
from hoplab.observe.facts.routes import DEFAULT, ROUTES
from hoplab.observe.outage import Outage
from hoplab.observe.script import Output
from hoplab.observe.setting import UPLINK, Setting
from hoplab.spec.parts import Parts

G = TypeVar("G")


@dataclass(frozen=True, eq=False)  # one object each in a snapshot
class Node:
    """A machine and its Node object."""

    name: str
    facts: Facts
    known: ApiNode | None  # its Node object; None where the API could not be looked at
    planned: IPv4Address | None = None
    unavailable: str = ""  # why the API could not be looked at
    uplink: str = UPLINK  # the interface that has its address

    @property
    def api(self) -> ApiNode:
        """Return its Node object; raise UnavailableError where the API could not be looked at."""
        if self.known is None:
            raise UnavailableError(self.unavailable)
        return self.known

    @property
    def address(self) -> IPv4Address:
        """Return its address in the lab network; raise LabError when its Node object has none.

        It is the planned address where the API could not be looked at.
        """
        if self.known is None and self.planned:
            return self.planned
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
    """A running pod with an address of its own, and its network namespace."""

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
    def mtu(self) -> int | None:
        """Return the size of the largest packet that it sends to others: of its default route, where that says one."""
        by_route = [route.mtu for route in self[ROUTES] if (route.dst, route.table) == (DEFAULT, "main") and route.mtu]
        return min([self.eth0.mtu, *by_route]) if self.eth0 else None

    @property
    def host_end(self) -> Link | None:
        """Return the other end of its eth0: the interface on its node with the index of eth0's peer."""
        eth0 = self.eth0
        return next((link for link in self.node[LINKS] if eth0 and link.index == eth0.peer_index), None)


@dataclass(frozen=True)
class Snapshot:
    """All facts that read-only lessons check."""

    setting: Setting
    versions: Mapping[str, str]
    node_facts: Mapping[str, Facts]
    netns_facts: Mapping[str, Mapping[str, Facts]]  # by node, then by name of the namespace
    api: Facts
    outages: tuple[Outage, ...] = ()  # what could not be looked at

    def outage(self, place: str) -> Outage | None:
        """Return why a place could not be looked at: a node by its name, or one of those in ``outage``."""
        return next((outage for outage in self.outages if outage.place == place), None)

    @cached_property
    def lost_nodes(self) -> tuple[str, ...]:
        """Return the names of the machines that could not be looked at, in the plan's order."""
        return tuple(name for name in self.setting.nodes if name not in self.node_facts and self.outage(name))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Return the machines that are nodes of the cluster and were looked at, in the plan's order.

        Raise UnavailableError where none could be looked at. Without the API all machines count as nodes.
        """
        found = tuple(node for node in self.cluster_nodes if node.name in self.node_facts)
        if not found and self.lost_nodes:
            raise UnavailableError(self._why(self.lost_nodes[0]))
        return found

    @cached_property
    def cluster_nodes(self) -> tuple[Node, ...]:
        """Return ``nodes`` and after them those that could not be looked at, of which only the API's part is known."""
        lost = {name: Facts(name, {}, unavailable=self._why(name)) for name in self.lost_nodes}
        everyone = {**self.node_facts, **lost}
        if API_NODES.name not in self.api.outputs and self.api.unavailable:
            addresses, why = self.setting.nodes, self.api.unavailable
            return tuple(
                Node(name, facts, None, addresses.get(name), why, self.setting.uplink(name))
                for name, facts in everyone.items()
            )
        known = {node.name: node for node in self.api[API_NODES]}
        return tuple(
            Node(name, facts, known[name], uplink=self.setting.uplink(name))
            for name, facts in everyone.items()
            if name in known
        )

    def _why(self, name: str) -> str:
        outage = self.outage(name)
        return outage.problem if outage else ""

    @cached_property
    def pods(self) -> tuple[Pod, ...]:
        """Return running pods with an address of their own whose namespace was found on their node."""
        nodes = {node.name: node for node in self.nodes}
        found = []
        for pod in self.own_address_pods:
            for netns, facts in self.netns_facts.get(pod.node, {}).items():
                if pod.node in nodes and any(address.address == pod.address for address in facts[ADDRESSES]):
                    found.append(Pod(pod, nodes[pod.node], netns, facts))
        if not found:
            self._require_pods_elsewhere()
        return tuple(found)

    def pods_on(self, node: Node) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.pods if pod.node is node)

    def has_pods_on(self, node: Node) -> bool:
        """Return whether a running pod of a node has an address of its own, as the API knows it."""
        return any(pod.node == node.name for pod in self._running_pods)

    @property
    def places(self) -> Mapping[str, Facts]:
        """Return the facts of every network namespace with a name: nodes, then pods."""
        return {**{node.name: node.facts for node in self.nodes}, **{str(pod): pod.facts for pod in self.pods}}

    @property
    def own_address_pods(self) -> tuple[ApiPod, ...]:
        """Return the API's running pods that should have a network namespace of their own.

        Those on nodes that could not be looked at are not among them; raise UnavailableError where no other is there.
        """
        found = tuple(pod for pod in self._running_pods if pod.node not in self.lost_nodes)
        if not found:
            self._require_pods_elsewhere()
        return found

    @property
    def _running_pods(self) -> tuple[ApiPod, ...]:
        return tuple(
            pod for pod in self.api[API_PODS] if pod.running and not pod.going and not pod.host_network and pod.address
        )

    def _require_pods_elsewhere(self) -> None:
        """Raise UnavailableError where all running pods are on nodes that could not be looked at."""
        running = self._running_pods
        if running and all(pod.node in self.lost_nodes for pod in running):
            raise UnavailableError(self._why(str(running[0].node)))


PLACES: tuple[Where, ...] = ("node", "pod", "api")


class NodeReader(Protocol):
    """The part of hoplab.observe.ssh.Hosts that a snapshot uses."""

    def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]: ...


class ApiReader(Protocol):
    """A function that fetches a path of the Kubernetes API as text."""

    def __call__(self, path: str) -> Output: ...


def take(
    setting: Setting,
    versions: Mapping[str, str],
    hosts: NodeReader,
    api: ApiReader,
    parts: Parts,
    before: Snapshot | None = None,
    *,
    without: frozenset[str] = frozenset(),
) -> Snapshot:
    """Collect the facts of a running lab: one round trip per node, all nodes and the API at once.

    Constant facts are those of ``before``, where that is given: an earlier snapshot of at least the same nodes. Facts
    whose names are in ``without`` are not collected.
    """
    known = before.node_facts if before else {}
    skipped = (
        {fact.name for fact in discover("node") if fact.constant and fact.name not in without} if before else set()
    )
    node_commands, pod_commands, api_paths = (
        {
            fact.name: fact.command_for(parts)
            for fact in discover(where)
            if (setting.ipv6 or not fact.ipv6) and fact.name not in skipped | without
        }
        for where in PLACES
    )
    api_facts = [fact for fact in discover("api") if fact.name in api_paths]
    began = time.time()
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(hosts.batches, node_commands, in_pods=pod_commands)
        answered = {path: api(path) for path in dict.fromkeys(api_paths.values())}  # facts can share an answer
        answers = {fact.name: _reduced(fact, answered[api_paths[fact.name]]) for fact in api_facts}
        outputs = reading.result()
    ended = time.time()
    return Snapshot(
        setting=setting,
        versions=versions,
        node_facts={
            node: Facts(
                node,
                {key: _timed(key, output, began, ended) for key, output in found.items() if "/" not in key}
                | {name: known[node].outputs[name] for name in skipped},
            )
            for node, found in outputs.items()
        },
        netns_facts={node: _by_namespace(node, found) for node, found in outputs.items()},
        api=Facts("api", answers),
    )


def _reduced(fact: Fact[Any], answer: Output) -> Output:
    """Return an answer without what must not be kept of it."""
    if fact.reduce is None:
        return answer
    return replace(answer, out=fact.reduce(answer.out) if answer.code == 0 else "")


def _timed(name: str, output: Output, began: float, ended: float) -> Output:
    """Return the output of a node's clock with the times between which it was read, in seconds since 1970."""
    return replace(output, out=f"{began:.3f} {output.out.strip()} {ended:.3f}\n") if name == CLOCK.name else output


def _by_namespace(node: str, outputs: Mapping[str, Output]) -> dict[str, Facts]:
    """Return the outputs with keys like ``cni-1b4e.../routes`` by namespace."""
    found: dict[str, dict[str, Output]] = {}
    for key, output in outputs.items():
        netns, slash, fact = key.rpartition("/")
        if slash:
            found.setdefault(netns, {})[fact] = output
    return {netns: Facts(f"{node} {netns}", facts) for netns, facts in found.items()}


def _given(value: G | None, otherwise: str) -> G:
    if value is None:
        raise LabError(otherwise, remedy="`./lab status` shows what Kubernetes knows of it")
    return value
