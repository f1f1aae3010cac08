"""Whose an address is, and behind which node: ``cilium-dbg bpf ipcache list -o json``, Cilium's map of addresses.

    "10.244.1.2/32": ["identity=28371 encryptkey=0 tunnelendpoint=192.168.77.21 flags=hastunnel"]

A program that sends a packet to another node takes the node from here. The sender's identity travels with the packet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_network

from hoplab.core.errors import FactError
from hoplab.core.ip import REMEDY, IPAddress, IPNetwork
from hoplab.observe.facts import Fact
from hoplab.observe.facts._cilium import address, in_agent, listed, matched


@dataclass(frozen=True)
class Owner:
    """An entry: a range of addresses, often a single one."""

    range: IPNetwork
    identity: int  # of pods with the same labels; below 256 reserved: 1 the node itself, 2 the world, 6 other nodes
    tunnel: IPAddress | None  # the node to which what is for it is wrapped; None for an address that is not behind one

    def __str__(self) -> str:
        return f"{self.range} identity {self.identity}" + (f" behind {self.tunnel}" if self.tunnel else "")


_VALUE = re.compile(r"identity=(?P<identity>\d+) .*tunnelendpoint=(?P<tunnel>\S+).*")


def parse(text: str) -> tuple[Owner, ...]:
    """Return the entries in the order of the map."""
    return tuple(_owner(key, value) for key, values in listed(text, "ipcache").items() for value in values)


def _owner(key: str, value: str) -> Owner:
    found = matched(_VALUE, value, key)
    tunnel = address(found["tunnel"], key) if found["tunnel"] != "<nil>" else None
    try:
        where = ip_network(key)
    except ValueError:
        raise FactError(f"ipcache: {key!r} is not a range of addresses", remedy=REMEDY) from None
    return Owner(where, int(found["identity"]), None if tunnel is None or tunnel.is_unspecified else tunnel)


CILIUM_IPCACHE = Fact("cilium_ipcache", in_agent("cilium-dbg bpf ipcache list -o json"), parse)
