"""Whom the pods of a node may talk to: ``cilium-dbg bpf policy get --all -n -o json``, one map for each endpoint.

An entry allows (or denies) an identity in one direction; identity 0 is everybody. What no entry allows is dropped: the
map of a pod without a policy has an entry for everybody, and with a policy that entry is gone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hoplab.core.errors import FactError
from hoplab.core.ip import REMEDY
from hoplab.observe.facts import Fact
from hoplab.observe.facts._cilium import in_agent
from hoplab.observe.facts._json import Item, list_of

EVERYBODY = 0
INGRESS, EGRESS = 0, 1
PORTS = 2**16
UNCOUNTED = 2**64 - 1  # cilium-dbg's number for an entry that no packet has met
_NUMBER = re.compile(r"[0-9]{0,5}")
_NO_MAPS = "no maps found"


@dataclass(frozen=True)
class Entry:
    """An entry of the policy map of one endpoint."""

    identity: int  # of the other end
    egress: bool  # else ingress
    protocol: int  # IP's number; 0: any
    port: int  # 0: any
    deny: bool
    packets: int = 0  # that it has decided

    def __str__(self) -> str:
        who = f"identity {self.identity}" if self.identity else "everybody"
        to = f", protocol {self.protocol} port {self.port or 'any'}" if self.protocol else ""
        return f"{'denies' if self.deny else 'allows'} {'to' if self.egress else 'from'} {who}{to}"


def parse(text: str) -> dict[int, tuple[Entry, ...]]:
    """Return endpoint -> entries of its map."""
    if not text.strip() or text.strip() == _NO_MAPS:
        return {}
    maps = [Item(found, "policy map") for found in list_of(text, "policy maps")]
    return {_endpoint(found): tuple(map(_entry, found.items("Content"))) for found in maps}


def _endpoint(item: Item) -> int:
    text = item.text("EndpointID")
    if not _NUMBER.fullmatch(text):
        raise FactError(f"policy map: {text!r} is not the number of an endpoint", remedy=REMEDY)
    return int(text or "0")  # cilium-dbg takes leading zeros away


def _entry(item: Item) -> Entry:
    key = item.item("Key")
    port = key.number("DestPortNetwork")
    if port not in range(PORTS):
        raise FactError(f"policy map: {port} is not a port", remedy=REMEDY)
    return Entry(
        identity=key.number("Identity"),
        egress=key.number("TrafficDirection") == EGRESS,
        protocol=key.number("Nexthdr"),
        port=int.from_bytes(port.to_bytes(2, "little"), "big"),  # the map has the network's order of bytes
        deny=bool(item.number("Flags") & 1),
        packets=0 if item.number("Packets") == UNCOUNTED else item.number("Packets"),
    )


CILIUM_POLICY = Fact("cilium_policy", in_agent("cilium-dbg bpf policy get --all -n -o json"), parse)
