"""What a CNI has to leave on the hosts, as data: computed from the setting and facts, compared by lessons.

One CNI is one module of this folder, which its ``PART`` describes, and the role cni_<name>; there is no list to edit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol, cast

from hoplab.core.ip import IPAddress, IPNetwork
from hoplab.expectations.registry import get_module
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
    protocol: str = ""  # who made it, "bird"; "" for whoever it was

    def met_by(self, record: Route | Route6) -> bool:
        return (
            (record.table, record.kind) == ("main", self.kind)
            and (record.dst, record.dev, record.via) == (self.dst, self.dev, self.via)
            and self.protocol in ("", record.protocol)
            and ("onlink" in record.flags) == self.onlink
            and not {"dead", "linkdown"} & set(record.flags)
        )

    def __str__(self) -> str:
        route = printed(self.dst, self.via, self.dev, self.kind, ("onlink",) if self.onlink else ())
        return f"{route} proto {self.protocol}" if self.protocol else route


@dataclass(frozen=True)
class NeighbourExpectation:
    """An address whose MAC is written down for good, so that nobody has to ask for it by ARP."""

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
    """A MAC that is behind another host."""

    mac: str
    dev: str
    dst: IPAddress

    def met_by(self, record: FdbEntry) -> bool:
        return (record.mac, record.dev, record.dst) == (self.mac, self.dev, str(self.dst))

    def __str__(self) -> str:
        return f"{self.mac} dev {self.dev} dst {self.dst}"


@dataclass(frozen=True)
class PeerExpectation:
    """Another host that decrypts what is for its pods, and encrypts what is from them."""

    dev: str
    endpoint: str  # "192.168.77.21:51820"
    allowed: tuple[IPNetwork, ...]

    def met_by(self, record: Peer) -> bool:
        return (record.dev, record.endpoint, record.allowed) == (self.dev, self.endpoint, self.allowed)

    def __str__(self) -> str:
        return f"of {self.dev}, endpoint {self.endpoint}, allowed ips {', '.join(map(str, self.allowed))}"


@dataclass(frozen=True)
class Tunnel:
    """The interface that wraps what goes to other nodes."""

    dev: str  # "flannel.1"
    overhead: int  # bytes that it puts around a packet
    filter: str  # what is wrapped, as tcpdump is asked for it on eth0: "udp port 8472"
    mac: str = ""  # of VXLAN: the interface's own, as the other nodes are told it
    vni: int | None = None  # of VXLAN
    encrypted: bool = False  # so that what is wrapped can't be read on the way


@dataclass(frozen=True)
class NodeExpectations:
    """What one node looks like when the CNI has done its work, as far as one family of addresses goes."""

    interfaces: tuple[str, ...]  # beside one host end per pod
    bridge: str  # "" when pods' host ends are routed, not bridged
    ranges: tuple[IPNetwork, ...]  # where its pods' addresses come from
    pod_gateway: IPAddress  # every pod's default gateway
    own_routes: tuple[RouteExpectation, ...]  # to the node's own pods
    routes: tuple[RouteExpectation, ...]  # to the other nodes' pods
    blackholes: tuple[RouteExpectation, ...] = ()  # for addresses of the node's ranges that no pod has
    tunnel: Tunnel | None = None
    neighbours: tuple[NeighbourExpectation, ...] = ()
    fdb: tuple[FdbExpectation, ...] = ()
    peers: tuple[PeerExpectation, ...] = ()  # of an encrypted tunnel
    bgp: tuple[IPv4Address, ...] = ()  # whom the node tells of its pods, and who tells it of theirs

    @property
    def overhead(self) -> int:
        """Bytes an encapsulation takes from the MTU."""
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
    """Return what the lab's own CNI has to leave, by node."""
    return get_cni(lab.setting.cni).expectations(lab)


def expectations6(lab: Snapshot) -> Mapping[str, NodeExpectations]:
    """Return the same for IPv6, in a lab that has it."""
    return get_cni(lab.setting.cni).expectations6(lab)
