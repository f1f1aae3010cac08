"""The namespaces of a snapshot as a packet meets them: interfaces, addresses, owners of an address; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address

from hoplab.core.errors import UnavailableError
from hoplab.core.ip import IPAddress
from hoplab.expectations.loadbalancer import get_load_balancer
from hoplab.netfilter.hooks import Firewall
from hoplab.observe.facts import Fact, Facts, T
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.facts.ipset import IPSET
from hoplab.observe.facts.iptables import IP6TABLES, Iptables
from hoplab.observe.facts.iptables_legacy import IP6TABLES_LEGACY, IPTABLES_LEGACY
from hoplab.observe.facts.links import LINKS, Link
from hoplab.observe.facts.neighbours import NEIGHBOURS, Neighbour
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.facts.nftables import NFTABLES, Nftables
from hoplab.observe.snapshot import Node, Pod, Snapshot
from hoplab.trace.model import OUTSIDE, Place

_EMPTY = Iptables({})
_WITHOUT = {  # facts that older recordings lack, and what stands for them there
    IPTABLES_LEGACY.name: _EMPTY,
    IP6TABLES_LEGACY.name: _EMPTY,
    IP6TABLES.name: _EMPTY,
    IPSET.name: (),
}
_NOT_RECORDED = "rules of nftables beside kube-proxy's and the CNI's, and of iptables-legacy, were not recorded"


@dataclass(frozen=True)
class NodeRules:
    """The facts of a node's rules; one that an older recording lacks is empty, or the nearest one that it has."""

    facts: Facts

    def __getitem__(self, fact: Fact[T], /) -> T:
        if fact.name in self.facts.outputs or fact.name not in {*_WITHOUT, NFT_RULESET.name}:
            return self.facts[fact]
        found: object = _WITHOUT.get(fact.name)
        if fact.name == NFT_RULESET.name:
            found = self.facts[NFTABLES] if NFTABLES.name in self.facts.outputs else Nftables(())
        return found  # type: ignore[return-value]

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what is not known because the recording lacks it."""
        lacking = {NFT_RULESET.name, IPTABLES_LEGACY.name} - set(self.facts.outputs)
        return (_NOT_RECORDED,) if lacking else ()


@dataclass(frozen=True, eq=False)
class Space:
    """A network namespace: of a node or of a pod."""

    place: Place
    facts: Facts
    node: Node
    pod: Pod | None = None
    firewall: Firewall | None = field(default=None, repr=False)  # of a node

    @cached_property
    def links(self) -> dict[str, Link]:
        return {link.name: link for link in self.facts[LINKS]}

    @cached_property
    def addresses(self) -> dict[IPAddress, str]:
        """Return the interface of each own address."""
        return {own.address: own.dev for own in self.facts[ADDRESSES]}

    def first_address(self, dev: str) -> IPv4Address | None:
        return next((own.address for own in self.facts[ADDRESSES] if own.dev == dev), None)

    def neighbour(self, address: IPAddress, dev: str) -> Neighbour | None:
        """Return the entry with a MAC for an address."""
        entries = self.facts[NEIGHBOURS] if NEIGHBOURS.name in self.facts.outputs else ()
        return next((entry for entry in entries if (entry.address, entry.dev) == (address, dev) and entry.mac), None)


class Topology:
    """The namespaces of a lab, and which of them has an address."""

    def __init__(self, lab: Snapshot) -> None:
        self.lab = lab
        self.nodes = {
            node.name: Space(Place("node", node.name), node.facts, node, firewall=Firewall(NodeRules(node.facts)))
            for node in lab.nodes
        }
        self.pods = {str(pod): self._space(pod) for pod in lab.pods}

    def _space(self, pod: Pod) -> Space:
        return Space(Place("pod", str(pod)), pod.facts, pod.node, pod)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(note for node in self.lab.nodes for note in NodeRules(node.facts).notes))

    def node_of(self, space: Space) -> Space:
        return self.nodes[space.node.name]

    def pods_on(self, node: Space) -> Iterator[Space]:
        return (space for space in self.pods.values() if space.node is node.node)

    def host_end(self, space: Space) -> Link | None:
        assert space.pod
        return space.pod.host_end

    def attached(self, node: Space, dev: str) -> Iterator[Space]:
        """Yield the pods behind an interface of a node: a bridge, or a pod's own."""
        for space in self.pods_on(node):
            end = self.host_end(space)
            if end and dev == (end.master or end.name):
                yield space

    def pod_with(self, address: IPAddress) -> Space | None:
        """Return the pod that has an address by the Kubernetes API."""
        return next((space for space in self.pods.values() if space.pod and space.pod.api.address == address), None)

    def place_of(self, address: IPAddress) -> Place:
        """Return whose address it is by the Kubernetes API; the outside's where nobody has it."""
        if pod := self.pod_with(address):
            return pod.place
        return next((space.place for space in self.nodes.values() if space.node.api.address == address), OUTSIDE)

    def on_lab_network(self, address: IPAddress, sender: Space | None) -> tuple[Space, ...]:
        """Return the nodes that answer ARP for an address on the lab network: the announcer, those that own it.

        Raise UnavailableError where it is of a node that could not be looked at.
        """
        for name in self.lab.lost_nodes:
            if self.lab.setting.nodes.get(name) == address:
                outage = self.lab.outage(name)
                raise UnavailableError(outage.problem if outage else f"node {name} could not be looked at")
        found = [announcer] if (announcer := self.announcer(address)) else []
        found += [space for space in self.nodes.values() if address in space.addresses and space not in found]
        return tuple(space for space in found if space is not sender)

    def announcer(self, address: IPAddress) -> Space | None:
        """Return the node that announces an address of the load balancer."""
        setting = self.lab.setting
        services = [service for service in self.lab.api[API_SERVICES] if address in service.balancer_ips]
        if setting.load_balancer == "none" or not services or address not in setting.network:
            return None
        able = list(self.nodes)
        if services[0].external_policy == "Local":
            able = [name for name in able if name in self.endpoint_nodes(services[0])]
        if not able or not isinstance(address, IPv4Address):
            return None
        return self.nodes[get_load_balancer(setting.load_balancer).announcer(address, able)]

    def endpoint_nodes(self, service: object) -> set[str]:
        return {
            endpoint.node
            for endpoint in self.lab.api[API_ENDPOINTS]
            if f"{endpoint.namespace}/{endpoint.service}" == str(service) and endpoint.ready
        }
