"""Blocks of pod addresses and who has which, as Calico keeps them in the Kubernetes API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from hoplab.facts import Fact, FactError
from hoplab.facts._json import REMEDY, Item, kubernetes_list


@dataclass(frozen=True)
class Block:
    """A block of the IP pool."""

    cidr: IPv4Network
    node: str  # that it belongs to, "" for none
    taken: Mapping[IPv4Address, str]  # "hoplab-verify/echo-x7k2p", or what else has an address: "vxlanTunnelAddress"

    def __str__(self) -> str:
        return f"{self.cidr} of {self.node or 'no node'}, {len(self.taken)} taken"


def parse(text: str) -> tuple[Block, ...]:
    return tuple(_block(item.item("spec")) for item in kubernetes_list(text, "blocks"))


def _block(spec: Item) -> Block:
    """``allocations`` has for each address of the block null or the number of an item of ``attributes``."""
    cidr = spec.network("cidr")
    if cidr is None:
        raise FactError("a block without a range", remedy=REMEDY)
    owners = [_owner(each) for each in spec.items("attributes")]
    numbers = spec.raw.get("allocations") or []
    if not isinstance(numbers, list) or len(numbers) > cidr.num_addresses:
        raise FactError(f"the allocations of {cidr} are not one for each address", remedy=REMEDY)
    for each in numbers:
        if each is not None and not (isinstance(each, int) and 0 <= each < len(owners)):
            raise FactError(f"an allocation of {cidr} is {each!r}, which is no item of its attributes", remedy=REMEDY)
    return Block(
        cidr=cidr,
        node=spec.text("affinity").removeprefix("host:"),
        taken={cidr[index]: owners[number] for index, number in enumerate(numbers) if number is not None},
    )


def _owner(attribute: Item) -> str:
    who = attribute.item("secondary")
    return f"{who.text('namespace')}/{who.text('pod')}" if who.text("pod") else who.text("type")


API_IPAM_BLOCKS = Fact("ipam_blocks", "/apis/crd.projectcalico.org/v1/ipamblocks", parse, frozenset({"api"}))
