"""The lab spec as typed values, and what follows from one field alone. docs/spec.md lists the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any, Literal, Protocol

from hoplab.spec.libvirt_uri import RemoteHost, remote_host

Accel = Literal["auto", "kvm", "tcg"]
Placement = Literal["auto", "vm", "hosted"]
Engine = Literal["auto", "pulumi", "embedded"]
Keeping = Literal["auto", "take", "off"]
Merging = Literal["merge", "off"]

FIRST_CONTROL_PLANE = 10  # host number in the lab network of the first control-plane VM
FIRST_WORKER = 20  # ... and of the first worker
NODE_POD_PREFIX = 24  # every node gets a /24 of the pod range (kube-controller-manager's default)
NODE_POD_PREFIX6 = 64  # ... and a /64 of that of IPv6
MOST_POD_BITS = 16  # by which the ranges of nodes may be longer than the pod range (kube-controller-manager's limit)
SERVICE_PREFIXES6 = (108, 123)  # the API server's limit is 20 bits; and kube-dns has the tenth address
LONGEST_POOL = 10  # addresses of a load balancer's pool that nobody asked for
NAME_LENGTH = 20  # of a lab: its name is part of network, namespace, domain and socket names


@dataclass(frozen=True)
class NodeSize:
    """The size asked for; ``None``: the default for role and acceleration (``machine_size``)."""

    vcpus: int | None = None
    memory_mib: int | None = None
    disk_gib: int | None = None


@dataclass(frozen=True)
class CniSpec:
    name: str = "flannel"
    backend: str = "vxlan"
    nftables: bool = False  # its own rules, MASQUERADE for one: in nftables, not iptables
    block_size: int = 26  # prefix length of the blocks that nodes take of the pod range, where the CNI has blocks


@dataclass(frozen=True)
class Ipv6Spec:
    """The ranges of a lab's second family."""

    network: IPv6Network = field(default_factory=lambda: IPv6Network("fd00:77::/64"))
    pod_cidr: IPv6Network = field(default_factory=lambda: IPv6Network("fd00:244::/48"))
    service_cidr: IPv6Network = field(default_factory=lambda: IPv6Network("fd00:96::/112"))


@dataclass(frozen=True)
class AddressRange:
    """Addresses from the first to the last, both included: ``192.168.77.245-192.168.77.254``."""

    first: IPv4Address
    last: IPv4Address

    @classmethod
    def parse(cls, text: str) -> AddressRange:
        """Return the range from two addresses, a network or one address; ValueError for anything else.

        >>> str(AddressRange.parse("192.168.77.240/29")), str(AddressRange.parse("192.168.77.9"))
        ('192.168.77.240-192.168.77.247', '192.168.77.9')
        """
        first, dash, last = (part.strip() for part in text.partition("-"))
        if not dash:
            network = IPv4Network(first)
            return cls(network[0], network[-1])
        found = cls(IPv4Address(first), IPv4Address(last))
        if found.last < found.first:
            raise ValueError(f"{last} is before {first}")
        return found

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> Any:
        """Return pydantic's schema of a range, which is its text in JSON."""
        from pydantic_core import core_schema  # noqa: PLC0415 -- only what is serialized needs it

        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.parse(str(value)),
            serialization=core_schema.to_string_ser_schema(),
        )

    def __contains__(self, address: IPv4Address) -> bool:
        return self.first <= address <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class LabSpec:
    """A valid spec. ``None`` sizes mean: the default for the acceleration in use (``machine_size``)."""

    lab: str
    workers: int = 2
    control_plane_placement: Placement = "auto"
    control_plane_size: NodeSize | None = None
    worker_size: NodeSize | None = None
    network: IPv4Network = field(default_factory=lambda: IPv4Network("192.168.77.0/24"))
    pod_cidr: IPv4Network = field(default_factory=lambda: IPv4Network("10.244.0.0/16"))
    service_cidr: IPv4Network = field(default_factory=lambda: IPv4Network("10.96.0.0/12"))
    ipv6: Ipv6Spec | None = None  # None: IPv4 alone
    cni: CniSpec = field(default_factory=CniSpec)
    proxy_mode: str = "iptables"
    network_policy: str = "none"  # what enforces NetworkPolicies where the CNI does not
    ingress_controller: str = "auto"
    gateway_api: bool = False  # whether the ingress controller serves the Gateway API, too
    gateway_controller: str = "none"  # what serves the Gateway API in its place
    load_balancer: str = "none"
    load_balancer_pool: AddressRange | None = None  # None: the default (``pool_of``)
    kubernetes_version: str = "1.37.2"
    libvirt: str = "private"  # private | system | a libvirt URI
    accel: Accel = "auto"
    engine: Engine = "auto"
    checkpoint: Keeping = "auto"  # whether `up` keeps a checkpoint of a new lab, and starts from it
    family: str = ""  # labs of one family are alike inside, so that each can be a fork of another; "" for none
    kubeconfig: Merging = "merge"  # whether the user's kubeconfig gets a context of the lab
    protect: bool = False  # what can't be made again: the control plane and the lab's disks as a whole
    image_mirror: str = ""  # of Debian packages, "" for the tools' own default
    image_components: tuple[str, ...] = ()  # components that the node image has beside what the lab needs

    @property
    def inner_name(self) -> str:
        """Return the name that addresses and names inside the lab are made from: its family's, or its own."""
        return self.family or self.lab

    @property
    def libvirt_uri(self) -> str:
        """Return the URI of an existing libvirt; "" for a private one, whose address is known when it runs."""
        return {"private": "", "system": "qemu:///system"}.get(self.libvirt, self.libvirt)

    @property
    def remote(self) -> RemoteHost | None:
        """Return the other host that runs the machines; None for this one."""
        return remote_host(self.libvirt_uri)


class Host(Protocol):
    """What a spec is checked against; ``hoplab.host.info.HostFacts`` is one."""

    @property
    def memory_mib(self) -> int: ...
    @property
    def networks(self) -> tuple[IPv4Network, ...]: ...
    @property
    def name(self) -> str:
        """Return the name of another host that runs the machines; "" for this one."""
        ...

    def clash(self, network: IPv4Network) -> tuple[IPv4Network, str, str] | None:
        """Return a network in use that overlaps, what uses it, and the line that lets both be; None without any."""
        ...


@dataclass(frozen=True)
class MachineSize:
    """The size a machine will have."""

    vcpus: int
    memory_mib: int
    disk_gib: int


def machine_size(asked: NodeSize | None, role: str, accel: str) -> MachineSize:
    """Return the requested size with defaults: kubeadm requires two vCPUs; emulated workers may crash with two."""
    asked = asked or NodeSize()
    control_plane = role == "control-plane"
    return MachineSize(
        vcpus=asked.vcpus or (1 if accel == "tcg" and not control_plane else 2),
        memory_mib=asked.memory_mib or (3072 if control_plane else 2048),
        disk_gib=asked.disk_gib or 20,
    )


def taken_addresses(spec: LabSpec) -> dict[IPv4Address, str]:
    """Return the assigned addresses of the lab network, and their owners."""
    network = spec.network
    machines = {network[FIRST_WORKER + index]: f"worker{index + 1}" for index in range(spec.workers)}
    return {
        network[0]: "the network",
        network[1]: "the host end",
        network[FIRST_CONTROL_PLANE]: "cp1",  # also where it is hosted, as with its MAC: that may change
        **machines,
        network[-1]: "everybody (broadcast)",
    }


def pool_of(spec: LabSpec) -> AddressRange | None:
    """Return the load balancer's pool: the one in the spec, or the network's last free addresses; None without any."""
    if spec.load_balancer_pool is not None:
        return spec.load_balancer_pool
    last = spec.network.num_addresses - 2
    first = max(last - LONGEST_POOL + 1, FIRST_WORKER + spec.workers)
    return AddressRange(spec.network[first], spec.network[last]) if first <= last else None
