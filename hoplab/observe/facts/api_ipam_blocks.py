"""Blocks of pod addresses and the owners of their addresses, as Calico keeps them in the Kubernetes API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Generic

from hoplab.core.errors import FactError
from hoplab.core.ip import REMEDY, V4, V6, Address, Family, Network
from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Item, kubernetes_list


@dataclass(frozen=True)
class BlockOf(Generic[Address, Network]):
    """A block of an IP pool."""

    cidr: Network
    node: str  # the node with this block, "" for none
    taken: Mapping[Address, str]  # the pod "hoplab-verify/echo-x7k2p", or another owner: "vxlanTunnelAddress"

    def __str__(self) -> str:
        return f"{self.cidr} of {self.node or 'no node'}, {len(self.taken)} taken"


Block = BlockOf[IPv4Address, IPv4Network]
Block6 = BlockOf[IPv6Address, IPv6Network]


def parse(text: str) -> tuple[Block, ...]:
    return tuple(_block(spec, V4) for spec in _specs(text) if V4.has(spec.text("cidr")))


def parse6(text: str) -> tuple[Block6, ...]:
    return tuple(_block(spec, V6) for spec in _specs(text) if V6.has(spec.text("cidr")))


def _specs(text: str) -> Iterator[Item]:
    return (item.item("spec") for item in kubernetes_list(text, "blocks"))


def _block(spec: Item, family: Family[Address, Network]) -> BlockOf[Address, Network]:
    """Return a block: ``allocations`` has for each address null or the number of an item of ``attributes``."""
    cidr = spec.read("cidr", family.network)
    if cidr is None:
        raise FactError("a block without a range", remedy=REMEDY)
    owners = [_owner(attributes) for attributes in spec.items("attributes")]
    numbers = spec.raw.get("allocations") or []
    if not isinstance(numbers, list) or len(numbers) > cidr.num_addresses:
        raise FactError(f"the allocations of {cidr} are not one for each address", remedy=REMEDY)
    for number in numbers:
        if number is not None and not (isinstance(number, int) and 0 <= number < len(owners)):
            raise FactError(f"an allocation of {cidr} is {number!r}, which is no item of its attributes", remedy=REMEDY)
    return BlockOf(
        cidr=cidr,
        node=spec.text("affinity").removeprefix("host:"),
        taken={
            family.of_address(int(cidr[0]) + index): owners[number]
            for index, number in enumerate(numbers)
            if number is not None
        },
    )


def _owner(attribute: Item) -> str:
    who = attribute.item("secondary")
    return f"{who.text('namespace')}/{who.text('pod')}" if who.text("pod") else who.text("type")


PATH = "/apis/crd.projectcalico.org/v1/ipamblocks"
API_IPAM_BLOCKS = Fact("ipam_blocks", PATH, parse, frozenset({"api"}))
API_IPAM_BLOCKS6 = Fact("ipam_blocks6", PATH, parse6, frozenset({"api"}), ipv6=True)
