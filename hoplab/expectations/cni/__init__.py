"""What a CNI has to leave on the hosts, as data: computed from the setting and facts, compared by lessons.

One CNI is one module of this folder, which its ``PART`` describes, and the role cni_<name>; there is no list to edit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol, cast

from hoplab.core.ip import IPAddress, IPNetwork
from hoplab.expectations.parts import known_parts
from hoplab.expectations.registry import UnknownPart, get_module
from hoplab.observe.facts.bpf_programs import Program
from hoplab.observe.facts.fdb import FdbEntry
from hoplab.observe.facts.neighbours import Neighbour, Neighbour6
from hoplab.observe.facts.routes import Route, Route6, printed
from hoplab.observe.facts.wireguard import Peer
from hoplab.observe.snapshot import Snapshot
from hoplab.spec.parts import CniPart


@dataclass(frozen=True)
class RouteExpectation:
    """A route of the main table."""

    dst: IPNetwork
    dev: str
    via: IPAddress | None = None
    onlink: bool = False
    kind: str = "unicast"  # also "blackhole"
    protocol: str = ""  # its protocol, "bird"; "" for any

    def met_by(self, record: Route | Route6) -> bool:
        return (
            (record.table, record.kind) == ("main", self.kind)
            and (record.dst, record.dev, record.via) == (self.dst, self.dev, self.via)
            and self.protocol in ("", record.protocol)
            and ("onlink" in record.flags) == self.onlink
            and not {"dead", "linkdown"} & set(record.flags)
            and (record.tos, record.senders) == (0, None)  # else it is not for every packet
        )

    def leads_like(self, record: Route | Route6) -> bool:
        """Return whether a route that is chosen leads where this one does: it, or one of a part to the same next hop.

        Calico's Felix writes such a route for one address now and then (its pull request 12180), which changes nothing.
        """
        if (record.dst, record.dev) == (self.dst, self.dev):
            return True
        within = record.dst.version == self.dst.version and self.dst.supernet_of(record.dst)  # type: ignore[arg-type]
        return within and self.via is not None and (record.via, record.dev) == (self.via, self.dev)

    def __str__(self) -> str:
        route = printed(self.dst, self.via, self.dev, self.kind, ("onlink",) if self.onlink else ())
        return f"{route} proto {self.protocol}" if self.protocol else route


@dataclass(frozen=True)
class NeighbourExpectation:
    """A permanent entry of the neighbour table, which makes ARP unnecessary."""

    address: IPAddress
    dev: str
    mac: str

    def met_by(self, record: Neighbour | Neighbour6) -> bool:
        return (record.address, record.dev, record.mac) == (self.address, self.dev, self.mac) and (
            "PERMANENT" in record.states
        )

    def __str__(self) -> str:
        return f"{self.address} dev {self.dev} lladdr {self.mac} PERMANENT"


@dataclass(frozen=True)
class FdbExpectation:
    """An entry of the forwarding database: the host behind which a MAC is."""

    mac: str
    dev: str
    dst: IPAddress

    def met_by(self, record: FdbEntry) -> bool:
        own = (record.port, record.vni) == (0, 0)  # else the host is reached by another port or network than the others
        return (record.mac, record.dev, record.dst) == (self.mac, self.dev, str(self.dst)) and own

    def __str__(self) -> str:
        return f"{self.mac} dev {self.dev} dst {self.dst}"


@dataclass(frozen=True)
class PeerExpectation:
    """A WireGuard peer: a node that decrypts packets to its pods and encrypts packets from them."""

    dev: str
    endpoint: str  # "192.168.77.21:51820"
    allowed: tuple[IPNetwork, ...]

    def met_by(self, record: Peer) -> bool:
        return (record.dev, record.endpoint, record.allowed) == (self.dev, self.endpoint, self.allowed)

    def __str__(self) -> str:
        return f"of {self.dev}, endpoint {self.endpoint}, allowed ips {', '.join(map(str, self.allowed))}"


@dataclass(frozen=True)
class ProgramExpectation:
    """A program of eBPF that the kernel runs for packets in one direction at an interface."""

    dev: str
    direction: str  # "ingress" or "egress"
    name: str

    def met_by(self, record: Program) -> bool:
        return (record.dev, record.direction, record.name) == (self.dev, self.direction, self.name)

    def __str__(self) -> str:
        return f"{self.name} at {self.direction} of {self.dev}"


@dataclass(frozen=True)
class Tunnel:
    """The interface that encapsulates packets to other nodes."""

    dev: str  # "flannel.1"
    overhead: int  # bytes of its encapsulation
    filter: str  # tcpdump's filter of encapsulated packets on the node's uplink: "udp port 8472"
    mac: str = ""  # of VXLAN: the interface's own, as the other nodes are told it
    vni: int | None = None  # of VXLAN
    vni_per_packet: bool = False  # of VXLAN: a program gives each packet its own, with the node it goes to
    encrypted: bool = False  # whether the payload is encrypted


@dataclass(frozen=True)
class NodeExpectations:
    """The complete configuration by the CNI on one node, for one family of addresses."""

    interfaces: tuple[str, ...]  # beside one host end per pod
    bridge: str  # "" when pods' host ends are routed, not bridged
    ranges: tuple[IPNetwork, ...]  # range of its pods' addresses
    pod_gateway: IPAddress  # every pod's default gateway
    own_routes: tuple[RouteExpectation, ...]  # to the node's own pods
    routes: tuple[RouteExpectation, ...]  # to the other nodes' pods
    blackholes: tuple[RouteExpectation, ...] = ()  # for addresses of the node's ranges that no pod has
    tunnel: Tunnel | None = None
    neighbours: tuple[NeighbourExpectation, ...] = ()
    fdb: tuple[FdbExpectation, ...] = ()
    peers: tuple[PeerExpectation, ...] = ()  # of an encrypted tunnel
    bgp: tuple[IPv4Address, ...] = ()  # BGP peers of the node
    programs: tuple[ProgramExpectation, ...] = ()  # of eBPF at its interfaces, without those of pods
    mtu_by_route: bool = False  # whether pods' default route, and not their interface, leaves room for encapsulation

    @property
    def overhead(self) -> int:
        """Return the bytes by which encapsulation reduces the MTU."""
        return self.tunnel.overhead if self.tunnel else 0


class Cni(Protocol):
    """The shape of a CNI's module."""

    PART: CniPart
    CONFIG_FILE: str  # in /etc/cni/net.d
    PLUGINS: tuple[str, ...]  # called by the container runtime, in this order

    def expectations(self, lab: Snapshot) -> Mapping[str, NodeExpectations]: ...
    def expectations6(self, lab: Snapshot) -> Mapping[str, NodeExpectations]: ...


def get_cni(name: str) -> Cni:
    """Return the module of the CNI of that name; LabError when there is none."""
    return cast("Cni", get_module(__name__, name, "CNI"))


def expectations(lab: Snapshot) -> Mapping[str, NodeExpectations]:
    """Return what the lab's own CNI has to leave, by node; UnknownPart for a mode of it without expectations."""
    return _known(lab).expectations(lab)


def expectations6(lab: Snapshot) -> Mapping[str, NodeExpectations]:
    """Return the same for IPv6, in a lab that has it."""
    return _known(lab).expectations6(lab)


def by_programs(lab: Snapshot) -> bool:
    """Return whether programs of the lab's CNI take pods' packets before the kernel's tables and rules do."""
    part = known_parts().cni.get(lab.setting.cni)
    return part is not None and part.programs


def _known(lab: Snapshot) -> Cni:
    found, has = get_cni(lab.setting.cni), lab.setting
    if has.foreign and has.backend not in found.PART.backends:
        raise UnknownPart(f"needs {has.cni} as hoplab knows it ({', '.join(found.PART.backends)}), not {has.backend}")
    return found
