"""The namespaces of a snapshot as a packet meets them: interfaces, addresses, owners of an address; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv6Address

from hoplab.core.errors import UnavailableError
from hoplab.core.ip import IPAddress
from hoplab.expectations.cni import cilium
from hoplab.expectations.loadbalancer import get_load_balancer
from hoplab.netfilter.hooks import Firewall
from hoplab.observe.cilium_maps import CiliumMaps
from hoplab.observe.facts import Fact, Facts, T
from hoplab.observe.facts.addresses import ADDRESSES, ADDRESSES6, Address, Address6, source6
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.facts.ipset import IPSET
from hoplab.observe.facts.iptables import IP6TABLES, Iptables
from hoplab.observe.facts.iptables_legacy import IP6TABLES_LEGACY, IPTABLES_LEGACY
from hoplab.observe.facts.links import LINKS, Link
from hoplab.observe.facts.neighbours import NEIGHBOURS, NEIGHBOURS6, Neighbour, Neighbour6
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.facts.nftables import NFTABLES, NFTABLES6, Nftables
from hoplab.observe.facts.rules import RULES6
from hoplab.observe.facts.sysctls import SYSCTLS, SYSCTLS6
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
_PROGRAMS = "programs of eBPF are not followed ({names}): a packet that they take does not go the way that is shown"
_NOT_RECORDED6 = "policy rules and switches of IPv6 ({names}) were not recorded: the usual ones are assumed"


@dataclass(frozen=True)
class NodeRules:
    """The facts of a node's rules; one that an older recording lacks is empty, or the nearest one that it has."""

    facts: Facts

    def __getitem__(self, fact: Fact[T], /) -> T:
        if fact.name in self.facts.outputs or fact.name not in {*_WITHOUT, NFT_RULESET.name}:
            return self.facts[fact]
        found: object = _WITHOUT.get(fact.name)
        if fact.name == NFT_RULESET.name:
            listed = [self.facts[known] for known in (NFTABLES, NFTABLES6) if known.name in self.facts.outputs]
            found = Nftables(tuple(table for tables in listed for table in tables.tables))
        return found  # type: ignore[return-value]

    def notes(self, *, ipv6: bool) -> Iterator[str]:
        """Yield what is not known because the recording lacks it."""
        if {NFT_RULESET.name, IPTABLES_LEGACY.name} - set(self.facts.outputs):
            yield _NOT_RECORDED
        programs = {program.name for program in CiliumMaps(self.facts).programs.values()}
        if others := programs - cilium.ALL_PROGRAMS:
            yield _PROGRAMS.format(names=", ".join(sorted(others)))
        if ipv6 and (lacking := [fact.name for fact in (RULES6, SYSCTLS6) if fact.name not in self.facts.outputs]):
            yield _NOT_RECORDED6.format(names=", ".join(lacking))


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
    def maps(self) -> CiliumMaps:
        """Return the programs at the interfaces of a node, with their maps."""
        return CiliumMaps(self.facts)

    @cached_property
    def addresses(self) -> frozenset[IPAddress]:
        """Return its own addresses that others may send to: of IPv6 none that is of one link alone.

        An address of IPv4 like 169.254.20.10 is as good as others for ARP.
        """
        return frozenset(own.address for own in self.own if own.address.version == 4 or not own.address.is_link_local)

    @cached_property
    def own(self) -> tuple[Address | Address6, ...]:
        """Return the addresses of its interfaces, of both families."""
        more = self.facts[ADDRESSES6] if ADDRESSES6.name in self.facts.outputs else ()
        return (*self.facts[ADDRESSES], *more)

    @cached_property
    def sysctls(self) -> dict[str, str]:
        """Return the sysctls of both families, as far as they were recorded."""
        more = self.facts[SYSCTLS6] if SYSCTLS6.name in self.facts.outputs else {}
        return {**self.facts[SYSCTLS], **more}

    def has(self, address: IPAddress, dev: str) -> bool:
        """Return whether it has an address that it answers for at an interface; one of one link only there."""
        return address in self.addresses or any((own.address, own.dev) == (address, dev) for own in self.own)

    def source_to(self, dst: IPAddress, dev: str) -> IPAddress | None:
        """Return the source of a packet of its own, where the route does not give one."""
        if isinstance(dst, IPv6Address):
            return source6(self.facts[ADDRESSES6], dst, dev)
        return next((own.address for own in self.facts[ADDRESSES] if own.dev == dev), None)

    def neighbour(self, address: IPAddress, dev: str) -> Neighbour | Neighbour6 | None:
        """Return the entry with a MAC for an address."""
        entries: list[Neighbour | Neighbour6] = []
        entries += self.facts[NEIGHBOURS] if NEIGHBOURS.name in self.facts.outputs else ()
        entries += self.facts[NEIGHBOURS6] if NEIGHBOURS6.name in self.facts.outputs else ()
        return next((entry for entry in entries if (entry.address, entry.dev) == (address, dev) and entry.mac), None)


class Topology:
    """The namespaces of a lab, and which of them has an address."""

    def __init__(self, lab: Snapshot, *, ipv6: bool = False) -> None:
        """Take the snapshot, and whether packets of IPv6 are followed."""
        self.lab, self.ipv6 = lab, ipv6
        self.nodes = {
            node.name: Space(Place("node", node.name), node.facts, node, firewall=Firewall(NodeRules(node.facts)))
            for node in lab.nodes
        }
        self.pods = {str(pod): self._space(pod) for pod in lab.pods}

    def _space(self, pod: Pod) -> Space:
        return Space(Place("pod", str(pod)), pod.facts, pod.node, pod)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(note for node in self.lab.nodes for note in NodeRules(node.facts).notes(ipv6=self.ipv6))
        )

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
        pods = ((space, space.pod.api) for space in self.pods.values() if space.pod)
        return next((space for space, pod in pods if address in (pod.address, pod.address6)), None)

    def place_of(self, address: IPAddress) -> Place:
        """Return whose address it is by the Kubernetes API; the outside's where nobody has it."""
        if pod := self.pod_with(address):
            return pod.place
        nodes = ((space.place, space.node.api) for space in self.nodes.values())
        return next((place for place, node in nodes if address in (node.address, node.address6)), OUTSIDE)

    def on_link(self, address: IPAddress) -> bool:
        """Return whether an address is of the lab network."""
        setting = self.lab.setting
        return address in setting.network or (setting.ipv6 is not None and address in setting.ipv6.network)

    def in_services(self, address: IPAddress) -> bool:
        """Return whether an address is of the range of services."""
        setting = self.lab.setting
        return address in setting.service_cidr or (setting.ipv6 is not None and address in setting.ipv6.service_cidr)

    def on_lab_network(self, address: IPAddress, sender: Space | None) -> tuple[Space, ...]:
        """Return the nodes that answer for an address on the lab network: the announcer, those that own it.

        Raise UnavailableError where it is of a node that could not be looked at.
        """
        for name in self.lab.lost_nodes:
            if address in (self.lab.setting.nodes.get(name), self.lab.setting.nodes6.get(name)):
                outage = self.lab.outage(name)
                raise UnavailableError(outage.problem if outage else f"node {name} could not be looked at")
        found = [announcer] if (announcer := self.announcer(address)) else []
        others = (space for space in self.nodes.values() if space.has(address, space.node.uplink))
        found += [space for space in others if space not in found]
        return tuple(space for space in found if space is not sender)

    def announcer(self, address: IPAddress) -> Space | None:
        """Return the node that announces an address of the load balancer."""
        setting = self.lab.setting
        services = [
            service
            for service in self.lab.api[API_SERVICES]
            if address in (*service.balancer_ips, *service.balancer_ips6)
        ]
        if setting.load_balancer == "none" or not services or not self.on_link(address):
            return None
        able = list(self.nodes)
        if services[0].external_policy == "Local":
            able = [name for name in able if name in self.endpoint_nodes(services[0])]
        if not able:
            return None
        return self.nodes[get_load_balancer(setting.load_balancer).announcer(address, able)]

    def endpoint_nodes(self, service: object) -> set[str]:
        return {
            endpoint.node
            for endpoint in self.lab.api[API_ENDPOINTS]
            if f"{endpoint.namespace}/{endpoint.service}" == str(service) and endpoint.ready
        }
