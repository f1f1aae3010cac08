"""Observations of a running lab: present rules, connections and facts of its nodes, and waits until they settle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from hoplab.cluster.api import Api
from hoplab.core.errors import UnavailableError
from hoplab.core.wait import HOST, Timing
from hoplab.expectations import gateway, proxy
from hoplab.expectations.gateway import GatewayServer, HttpRoute, ServedMatch
from hoplab.expectations.ingress import Access, Controller, Served, get_controller
from hoplab.expectations.parts import known_parts
from hoplab.expectations.proxy import ServiceExpectation
from hoplab.observe.facts import Fact, Facts
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.facts.cilium_conntrack import CILIUM_CONNTRACK, Tracked
from hoplab.observe.facts.conntrack import CONNTRACK, Flow
from hoplab.observe.facts.ipset import IPSET
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.facts.nftables import NFTABLES
from hoplab.observe.snapshot import Node, Pod, Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.verify import gateway_workload, workload
from hoplab.verify.claims import ClaimFailed
from hoplab.verify.external import ExternalHost
from hoplab.verify.probe import ECHO, Probe
from hoplab.verify.traced import Request

T = TypeVar("T")

GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"  # label of what a controller makes for a Gateway
LOG_LINES = 200  # lines read of an access log
SETTLE_DEADLINE = 120.0  # seconds until kube-proxy has applied a new endpoint, on an idle machine


def rule_commands() -> dict[str, str]:
    """Return the commands that list the address translation rules, by the name of the fact."""
    return {
        IPTABLES.name: f"{IPTABLES.command} -t nat",
        IPSET.name: IPSET.command,
        NFTABLES.name: NFTABLES.command_for(known_parts()),
    }


@dataclass(frozen=True)
class Observations:
    """The connections to a running lab, and observations through them."""

    snapshot: Snapshot
    hosts: Hosts
    external: ExternalHost
    api: Api
    look: Callable[[], Snapshot]
    external6: ExternalHost | None = None  # the same by IPv6, in a dual-stack lab
    ca: Path | None = None  # the CA of the certificates of the apps' https sites
    timing: Timing = HOST  # of waits
    probe: Probe = ECHO  # the program in the pods of the verification workload
    outside: bool = True  # whether the nodes reach ``external``, and it them
    requests: list[Request] = field(default_factory=list, compare=False)  # that the present lesson has made

    def refreshed(self) -> Self:
        """Return the same lab with a new snapshot."""
        return replace(self, snapshot=self.look())

    # Pods and services of the verification workload

    @cached_property
    def echo_pods(self) -> tuple[Pod, ...]:
        """Return the echo pods, one per node, in the order of the nodes."""
        found = self._pods("echo")
        if len(found) < len(self.snapshot.nodes):
            self._require_whole("not every node has a pod `echo` of the verification workload")
        if not found:
            raise ClaimFailed("no pod `echo` of the verification workload has a network namespace on any node")
        return found

    @cached_property
    def single(self) -> Pod:
        """Return the pod behind the NodePort services."""
        found = self._pods("single")
        if not found:
            self._require_whole("the pod `single` of the verification workload is on no node that could be looked at")
            raise ClaimFailed("the pod `single` of the verification workload has no network namespace on any node")
        return found[0]

    @cached_property
    def client(self) -> Pod:
        """Return the echo pod on the node of `single`: the client of lessons with one client."""
        found = next((pod for pod in self.echo_pods if pod.node is self.single.node), None)
        if found is None:
            self._require_whole(f"no pod `echo` runs on {self.single.node.name}")
            raise ClaimFailed(f"no pod `echo` of the verification workload runs on {self.single.node.name}")
        return found

    def _require_whole(self, lacks: str) -> None:
        """Raise UnavailableError where an outage of the lab explains what it lacks."""
        for outage in self.snapshot.outages:
            raise UnavailableError(f"{outage.problem} ({lacks})")

    def _pods(self, app: str) -> tuple[Pod, ...]:
        order = {node.name: index for index, node in enumerate(self.snapshot.nodes)}
        found = [
            pod for pod in self.snapshot.pods if pod.api.namespace == workload.NAMESPACE and pod.api.label("app") == app
        ]
        return tuple(sorted(found, key=lambda pod: order[pod.node.name]))

    def service(self, name: str, *, ipv6: bool = False) -> ServiceExpectation:
        """Return a service of the verification workload."""
        wanted = f"{workload.NAMESPACE}/{name}"
        known = proxy.expectations6(self.snapshot) if ipv6 else proxy.expectations(self.snapshot)
        return next(service for service in known if service.service == wanted)

    def announced(self, name: str) -> IPv4Address:
        """Return the address that the lab's load balancer gave to a service of the workload."""
        known = self.announced_addresses
        if name not in known:
            raise ClaimFailed(f"the load balancer has given {name} no address")
        return known[name]

    @property
    def announced_addresses(self) -> dict[str, IPv4Address]:
        """Return the first address of each service of the workload that a load balancer gave one, by its name."""
        return {
            service.name: service.balancer_ips[0]
            for service in self.snapshot.api[API_SERVICES]
            if service.namespace == workload.NAMESPACE and service.balancer_ips
        }

    # The ingress controller

    @property
    def controller(self) -> Controller:
        """Return the module of the lab's ingress controller."""
        return get_controller(self.snapshot.setting.ingress)

    @cached_property
    def controller_pods(self) -> Mapping[str, Pod]:
        """Return the pod of the ingress controller on every node, by the node's name."""
        wanted = self.controller
        found = {
            pod.node.name: pod
            for pod in self.snapshot.pods
            if pod.api.namespace == wanted.NAMESPACE
            and all(pod.api.label(name) == value for name, value in wanted.LABELS.items())
        }
        for node in self.snapshot.nodes:
            if node.name not in found:
                self._require_whole(f"no pod of the ingress controller runs on {node.name}")
                raise ClaimFailed(f"no pod of the ingress controller runs on {node.name}")
        return found

    def served(self, pod: Pod) -> tuple[Served, ...]:
        """Return the configured behaviour of an ingress controller's pod for every host."""
        look = look_command(self.controller, pod.netns)
        found = self.hosts.batch(pod.node.name, {"it": look})["it"]
        return self.controller.served(found.out)

    def accesses(self, pod: Pod) -> tuple[Access, ...]:
        """Return the newest lines of the access log of an ingress controller's pod."""
        where = f"/api/v1/namespaces/{pod.api.namespace}/pods/{pod.api.name}/log"
        _, found = self.api("GET", f"{where}?container={self.controller.CONTAINER}&tailLines={LOG_LINES}")
        lines = (self.controller.access(line) for line in str(found.get("message", "")).splitlines())
        return tuple(line for line in lines if line)

    # What serves the Gateway API

    @property
    def gateway_server(self) -> GatewayServer:
        """Return the module of what serves the lab's Gateways."""
        found = gateway.of(self.snapshot.setting)
        if found is None:
            raise ClaimFailed("nothing serves the Gateway API")
        return found

    @cached_property
    def gateway_pods(self) -> tuple[Pod, ...]:
        """Return the pods that serve the Gateway of the verification workload."""
        labels = self.gateway_server.LABELS
        if labels is None:
            return tuple(self.controller_pods.values())
        wanted = {GATEWAY_NAME: gateway_workload.NAME, **labels}
        found = [
            pod
            for pod in self.snapshot.pods
            if pod.api.namespace == workload.NAMESPACE
            and all(pod.api.label(name) == value for name, value in wanted.items())
        ]
        if not found:
            self._require_whole(f"no pod serves the Gateway {gateway_workload.NAME}")
            raise ClaimFailed(f"no pod that serves the Gateway {gateway_workload.NAME} runs on any node")
        return tuple(found)

    def served_route(self, pod: Pod, route: HttpRoute) -> tuple[ServedMatch, ...]:
        """Return where a pod that serves a Gateway sends the requests of a route; () without the route's host."""
        look = look_command(self.gateway_server, pod.netns)
        return self.gateway_server.served(self.hosts.batch(pod.node.name, {"it": look})["it"].out, route)

    # Connections and rules

    def flows(self, node: Node, client: IPv4Address, *, either_end: bool = False) -> tuple[Flow, ...]:
        """Return the connections in a node's conntrack table that the client opened, or all with the client at an end.

        After a flush of the table, the entry of an open connection has as its client the end that sends first.
        """
        command = conntrack_command(client)
        if either_end:
            command = f"{command} && {CONNTRACK.command} --orig-dst {client}"
        found = {CONNTRACK.name: self.hosts.batch(node.name, {"flows": command})["flows"]}
        return Facts(node.name, found)[CONNTRACK]

    def tracked(self, node: Node, client: IPv4Address) -> tuple[Tracked, ...]:
        """Return the connections of a pod in the maps of a node's programs, where its CNI has such."""
        found = {CILIUM_CONNTRACK.name: self.hosts.batch(node.name, {"maps": CILIUM_CONNTRACK.command})["maps"]}
        return tuple(entry for entry in Facts(node.name, found)[CILIUM_CONNTRACK] if entry.src == client)

    def rules(self) -> dict[str, Facts]:
        """Return the present address translation rules of every node."""
        return {node: Facts(node, outputs) for node, outputs in self.hosts.batches(rule_commands(), in_pods={}).items()}

    def until(self, look: Callable[[], T], good: Callable[[T], bool]) -> T:
        """Return the first good result of ``look``, or its last result before the deadline."""
        return self.timing.settled(look, good, SETTLE_DEADLINE)

    def rules_when(self, wanted: Callable[[Facts], bool]) -> dict[str, Facts]:
        """Return the rules of every node once all meet the condition, or those at the deadline."""
        return self.until(self.rules, lambda found: all(wanted(rules) for rules in found.values()))

    def facts_when(self, node: Node, wanted: Callable[[Facts], bool], *facts: Fact[Any]) -> Facts:
        """Return some facts of a node once they meet the condition, or those at the deadline."""
        commands = {fact.name: fact.command_for(known_parts()) for fact in facts}
        return self.until(lambda: Facts(node.name, self.hosts.batch(node.name, commands)), wanted)


class Shown(Protocol):
    """What look_command has to know of a controller."""

    CONFIGURATION: str
    ENDPOINTS: str


def look_command(controller: Shown, netns: str) -> str:
    """Return the command that prints, on a node, what the controller's pod in this network namespace serves."""
    look = []
    if controller.CONFIGURATION:
        files = " ".join(f"/proc/$pid/root{pattern}" for pattern in controller.CONFIGURATION.split())
        look.append(f"for pid in $(ip netns pids {netns}); do cat {files} 2>/dev/null && break; done")
    if controller.ENDPOINTS:
        look.append(f"echo; ip netns exec {netns} curl -s '{controller.ENDPOINTS}'")
    return "; ".join(look)


def conntrack_command(client: IPv4Address) -> str:
    """Return the command that lists the connections a client opened."""
    return f"{CONNTRACK.command} --orig-src {client}"
