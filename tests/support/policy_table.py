"""The table of nftables that kube-network-policies writes, as `nft -j` prints it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hoplab.expectations.policy.kube_network_policies import CHAIN, FAMILY, PRIORITY, QUEUE, SET, TABLE

OWN = {"family": FAMILY, "table": TABLE}
BASE = {"name": CHAIN, "type": "filter", "hook": "postrouting", "prio": PRIORITY, "policy": "accept"}
KEYS = (("saddr", "ip", SET), ("daddr", "ip", SET), ("saddr", "ip6", "podips-v6"), ("daddr", "ip6", "podips-v6"))


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def table(addresses: Iterable[object] = (), number: int = QUEUE, flags: Any = None, **base: Any) -> str:
    """Its document; ``addresses`` are those of the pods that policies select, ``base`` fields of the base chain."""
    queue = {"queue": {"num": number, **({"flags": flags} if flags else {})}}
    rules: list[list[dict[str, Any]]] = [
        [match({"meta": {"key": "l4proto"}}, "ipv6-icmp"), {"accept": None}],
        [match({"meta": {"key": "skuid"}}, 0), {"accept": None}],
        [match({"ct": {"key": "state"}}, ["established", "related"], "in"), {"accept": None}],
        *([match({"payload": {"protocol": of, "field": key}}, f"@{named}"), queue] for key, of, named in KEYS),
    ]
    elements = [str(address) for address in addresses]
    objects: list[dict[str, Any]] = [
        {"metainfo": {"version": "1.1.3", "json_schema_version": 1}},
        {"table": {"family": FAMILY, "name": TABLE, "handle": 9}},
        {"chain": {**OWN, **BASE, **base}},
        {"set": {**OWN, "name": SET, "type": "ipv4_addr", **({"elem": elements} if elements else {})}},
        {"set": {**OWN, "name": "podips-v6", "type": "ipv6_addr"}},
        *({"rule": {**OWN, "chain": CHAIN, "expr": rule}} for rule in rules),
    ]
    return json.dumps({"nftables": objects}) + "\n"


def queues(packets: int = 0, number: int = QUEUE) -> str:
    """What /proc shows of a queue that the program reads."""
    return f"{number:5d} 1234567     0 2   128     0     0 {packets:8d}  1\n"
