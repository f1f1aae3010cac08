"""The pods of a node in Cilium's map of endpoints: ``cilium-dbg bpf endpoint list -o json``.

"10.244.0.85:0": ["id=1234  sec_id=28371 flags=0x0000 ifindex=12  mac=2E:.. nodemac=4A:.. parent_ifindex=0 ..."]
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hoplab.core.ip import IPAddress
from hoplab.observe.facts import Fact
from hoplab.observe.facts._cilium import address, in_agent, listed, matched


@dataclass(frozen=True)
class Endpoint:
    """One pod, or an address of the node itself."""

    address: IPAddress
    id: int  # of its policy map; 0 for the node itself
    identity: int
    index: int  # of its interface on the node
    mac: str  # of its eth0
    node_mac: str  # of its interface on the node


_NODE = "(localhost)"
_VALUE = re.compile(
    r"id=(?P<id>\d+) +sec_id=(?P<identity>\d+) +flags=\S+ +ifindex=(?P<index>\d+) +mac=(?P<mac>\S+) "
    r"+nodemac=(?P<node>\S+).*"
)


def parse(text: str) -> tuple[Endpoint, ...]:
    """Return the entries in the order of the map."""
    return tuple(_endpoint(key, value) for key, values in listed(text, "endpoints").items() for value in values)


def _endpoint(key: str, value: str) -> Endpoint:
    where = address(key.rpartition(":")[0], "endpoints")
    if value == _NODE:
        return Endpoint(where, 0, 1, 0, "", "")
    found = matched(_VALUE, value, key)
    return Endpoint(
        where,
        int(found["id"]),
        int(found["identity"]),
        int(found["index"]),
        found["mac"].lower(),
        found["node"].lower(),
    )


CILIUM_ENDPOINTS = Fact("cilium_endpoints", in_agent("cilium-dbg bpf endpoint list -o json"), parse)
