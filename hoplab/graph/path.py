"""The part of a graph that a packet between two places crosses, by the routes of pods and nodes, or Cilium's programs.

What rules of netfilter do with the packet is not part of it, but that a node translates a service's address.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hoplab.core.errors import LabError
from hoplab.core.ip import V4, IPAddress
from hoplab.graph import views
from hoplab.graph.between import TUNNELS, route_id
from hoplab.graph.build import NETWORK
from hoplab.graph.model import Graph, Vertex
from hoplab.graph.of_node import device_id, pod_id, routing_id
from hoplab.graph.views import UnknownPlace
from hoplab.observe import routing
from hoplab.observe.cilium_maps import CiliumMaps
from hoplab.observe.facts.api_services import API_SERVICES, PROXY_LABEL
from hoplab.observe.facts.links import LINKS
from hoplab.observe.snapshot import Node, Pod, Snapshot

BY_ROUTES = (
    "The path follows the routes of pods and nodes; whether a rule of netfilter drops the packet is not part of it."
)
BY_PROGRAMS = (
    "The path follows the routes of pods and nodes, and programs of eBPF where they take the packet; whether a rule of "
    "netfilter or a policy drops it is not part of it."
)


def path(lab: Snapshot, graph: Graph, begin: str, end: str) -> Graph:
    """Return what a packet between two places crosses, with a sentence for each hop.

    Raise UnknownPlace for a name that nothing has and for places where no path begins, FactError where a pod or a node
    has no routes in the recording.
    """
    one, other = views.place(graph, begin), views.place(graph, end)
    if one.id == other.id:
        raise UnknownPlace(f"{begin} and {end} are the same place", remedy="name two places")
    walk = _Walk(lab, graph)
    start: Pod | Node
    if one.kind == "pod":
        start = walk.pod(one)
        walk.see(one.id)
    elif one.kind in ("node", "host_pod"):
        start = node = walk.node(one.id if one.kind == "node" else one.parent)
        walk.see(one.id, routing_id(node))
    else:
        raise UnknownPlace(f"a path begins at a pod or at a node, not at {one.label}", remedy="name a pod or a node")
    if other.kind == "service":
        walk.to_service(start, other)
    else:
        for target, address in walk.targets(other):
            walk.go(start, target, address)
    found = views.only(graph, [*walk.seen, *walk.nodes])
    steps = tuple(dict.fromkeys(walk.steps))
    title = f"from {one.label} to {other.label}"
    notes = tuple(dict.fromkeys([BY_PROGRAMS if walk.by_programs else BY_ROUTES, *graph.notes]))
    edges = tuple(edge for edge in found.edges if edge.kind != "bgp")  # no packet of ours takes it
    return replace(found, of=f"path {begin} {end}", title=title, steps=steps, notes=notes, edges=edges)


@dataclass
class _Walk:
    """A packet on its way, and what it has crossed."""

    lab: Snapshot
    graph: Graph
    seen: list[str] = field(default_factory=list)  # ids
    nodes: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    by_programs: bool = False  # a program of eBPF has taken the packet somewhere

    def see(self, *ids: str) -> None:
        self.seen += ids
        self.nodes += [vertex.parent for key in ids if (vertex := self.graph.by_id.get(key)) and vertex.parent]

    def say(self, step: str) -> None:
        self.steps.append(step)

    def pod(self, vertex: Vertex) -> Pod:
        found = next((pod for pod in self.lab.pods if pod_id(pod) == vertex.id), None)
        if found is None:
            why = "was not found" if vertex.state == "missing" else "is not there: the pod does not run"
            raise LabError(f"the network namespace of {views.full_name(vertex)} {why}", remedy="choose a pod that runs")
        return found

    def node(self, name: str) -> Node:
        found = next((node for node in self.lab.nodes if node.name == name), None)
        if found is None:
            raise LabError(f"{name} could not be looked at", remedy="choose a node that could")
        return found

    def targets(self, vertex: Vertex) -> list[tuple[Pod | Node | None, IPAddress]]:
        """Return where packets for a vertex go: pods, a node, or a host outside of the nodes."""
        if vertex.kind == "pod":
            pod = self.pod(vertex)
            return [(pod, pod.address)]
        if vertex.kind in ("node", "host_pod"):
            node = self.node(vertex.id if vertex.kind == "node" else vertex.parent)
            self.see(vertex.id)
            return [(node, node.address)]
        if vertex.kind == "host":
            self.see(vertex.id)
            return [(None, V4.address(vertex.label, "a host"))]
        raise UnknownPlace(f"no path ends at {vertex.label}", remedy="name a pod, a node or a service")

    def to_service(self, start: Pod | Node, vertex: Vertex) -> None:
        """Follow packets to a service, to each of its endpoints; the sender's node chooses one for each connection."""
        name = views.full_name(vertex)
        service = next(service for service in self.lab.api[API_SERVICES] if str(service) == name)
        behind = [self.graph.by_id[edge.target] for edge in self.graph.edges_of("endpoint") if edge.source == vertex.id]
        if not behind or service.cluster_ip is None:
            what = "endpoints" if service.cluster_ip else "ClusterIP"
            raise LabError(f"the service {name} has no {what}", remedy="name a pod, or another service")
        if service.proxy:
            raise LabError(
                f"{service.proxy!r} implements the service {name} (label {PROXY_LABEL}), and no rule of kube-proxy",
                remedy="name a pod, or another service",
            )
        self.see(vertex.id)
        if isinstance(start, Pod) and self.out_of(start, None, service.cluster_ip):
            return
        node = start.node if isinstance(start, Pod) else start
        names = " or ".join(views.full_name(end) for end in behind)
        by = "Cilium's map of services" if self.is_in_maps(start, node, service.cluster_ip) else "kube-proxy's rules"
        self.say(f"{node.name} changes the destination {service.cluster_ip}, by {by}, to {names}.")
        for end in behind:
            for target, address in self.targets(end):
                self.onward(start, node, target, address)

    def is_in_maps(self, start: Pod | Node, node: Node, address: IPAddress) -> bool:
        """Return whether a program translates the address of a service for a sender: for all pods, or for nodes too."""
        maps = CiliumMaps(node.facts)
        for_all = not self.lab.setting.has_kube_proxy
        return (isinstance(start, Pod) or for_all) and bool(maps.programs) and maps.serves(address)

    def go(self, start: Pod | Node, target: Pod | Node | None, address: IPAddress) -> None:
        """Follow a packet from a pod or a node to an address."""
        node = start.node if isinstance(start, Pod) else start
        if isinstance(start, Pod) and self.out_of(start, target, address):
            return
        self.onward(start, node, target, address)

    def onward(self, start: Pod | Node, node: Node, target: Pod | Node | None, address: IPAddress) -> None:
        """Follow a packet that is on its sender's node: a program takes it, or the node routes it."""
        end = start.host_end if isinstance(start, Pod) else None
        if not (end and self.taken(node, end.name, "ingress", target, address)):
            self.through(node, target, address)

    def taken(self, node: Node, dev: str, direction: str, target: Pod | Node | None, address: IPAddress) -> bool:
        """Follow a packet that a program of eBPF takes at an interface; return whether one does."""
        maps = CiliumMaps(node.facts)
        program = maps.program(dev, direction)
        if program is None:
            return False
        pod, owner = maps.endpoint(address), maps.owner(address)
        tunnel = next((link for link in node[LINKS] if link.vxlan and link.vxlan.external), None)
        if isinstance(target, Pod) and target.node is node and pod and pod.id:
            self.say(f"`{program.name}` takes it at {dev} of {node.name}: its map has {address} there.")
            self.into(target)
        elif target and not pod and owner and owner.tunnel and tunnel:
            self.say(f"`{program.name}` takes it at {dev} of {node.name}: its map has `{owner}`.")
            self.see(device_id(node, tunnel.name))
            self.between(node, tunnel.name, target, str(owner.tunnel))
        else:
            return False
        self.by_programs = True
        return True

    def out_of(self, pod: Pod, target: Pod | Node | None, address: IPAddress) -> bool:
        """Follow a packet out of a pod; return whether it has arrived: a bridge needs no route within its range."""
        decision = _decide(pod.facts, address)
        self.say(f"{pod} sends it to {address} by `{decision.way}`.")
        end = pod.host_end
        if not end or not decision.hops:
            self.say(
                f"There it ends: {pod} has {'no pair to its node' if decision.hops else 'no way to that address'}."
            )
            return True
        self.see(device_id(pod.node, end.name))
        if end.master:
            self.see(device_id(pod.node, end.master))
            self.say(f"{end.name} is its other end, a port of the bridge {end.master} of {pod.node.name}.")
            if isinstance(target, Pod) and target.node is pod.node and decision.direct:
                self.into(target)
                return True
        else:
            self.say(f"{end.name} is its other end, on {pod.node.name}.")
        self.see(routing_id(pod.node))
        return False

    def through(self, node: Node, target: Pod | Node | None, address: IPAddress) -> None:
        """Follow a packet that a node routes."""
        if isinstance(target, Node) and target is node:
            self.say(f"{address} is {node.name}'s own address: there it has arrived.")
            return
        decision = _decide(node.facts, address)
        self.say(f"{node.name} routes it by `{decision.way}`.")
        if not decision.hops or decision.route is None:
            self.say(f"There it ends: {node.name} has no way to {address}.")
            self.see(*(gap.id for gap in self.graph.of_kind("route", parent=node.name) if gap.state == "missing"))
            return
        dev = decision.hops[0].dev
        self.see(routing_id(node), route_id(node, decision.route), device_id(node, dev))
        if self.taken(node, dev, "egress", target, address):
            return
        if isinstance(target, Pod) and target.node is node:
            self.into(target)
            return
        self.between(node, dev, target, str(decision.hops[0].via or address))

    def between(self, node: Node, dev: str, target: Pod | Node | None, via: str) -> None:
        """Follow a packet from one node to another one, or to a host outside."""
        other = target.node if isinstance(target, Pod) else target
        link = node.link(dev)
        self.see(device_id(node, node.uplink), NETWORK)
        wrapped = link is not None and link.kind in TUNNELS
        if other is None or (not wrapped and via == str(self.lab.setting.gateway)):
            hosts = [
                host.id for host in self.graph.of_kind("host") if host.label in (via, str(self.lab.setting.gateway))
            ]
            self.see(*hosts)
            self.say(f"{node.uplink} sends it to {via}" + (f", not to {other.name}: there it ends." if other else "."))
            return
        if wrapped:
            what = self.graph.by_id[device_id(node, dev)].details[0].rpartition(", mtu")[0]
            self.say(f"{dev} wraps it for {other.address} ({what}), and {node.uplink} sends that to the network.")
            self.see(device_id(other, dev))
        else:
            self.say(f"{node.uplink} sends it to {via} as it is.")
        self.see(device_id(other, other.uplink), routing_id(other))
        if isinstance(target, Pod):
            if wrapped and self.taken(other, dev, "ingress", target, target.address):
                return
            decision = _decide(other.facts, target.address)
            self.say(f"{other.name} {'unwraps it and ' if wrapped else ''}routes it by `{decision.way}`.")
            if decision.route is not None:
                self.see(route_id(other, decision.route), *(device_id(other, hop.dev) for hop in decision.hops))
            out = decision.hops[0].dev if decision.hops else ""
            if not self.taken(other, out, "egress", target, target.address):
                self.into(target)
        else:
            self.say(f"There it has arrived: it is {other.name}'s own address.")

    def into(self, pod: Pod) -> None:
        """Follow a packet from the node into the pod."""
        self.see(pod_id(pod))
        if end := pod.host_end:
            self.see(device_id(pod.node, end.name), *([device_id(pod.node, end.master)] if end.master else []))
            by = f"{end.master} hands it to {end.name}, the" if end.master else f"{end.name} is the"
            self.say(f"{by} other end of eth0 of {pod}: there it has arrived.")


def _decide(facts: Any, address: IPAddress) -> routing.Decision[Any, Any]:
    flow: routing.Flow[Any] = routing.Flow(address)
    return routing.decide_on(facts, flow)
