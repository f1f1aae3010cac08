"""The address ranges that a host uses, and what uses each: interfaces, routes of all tables, libvirt's networks.

The default route is no use of a range, nor are the halves 0.0.0.0/1 and 128.0.0.0/1 that OpenVPN sets in its place: the
lab network's own route is more specific. A table that is looked up before main is another matter: there, even a default
route takes the packets to the machines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from typing import Any

WIDE = 1  # prefix length of a half of all addresses
MAIN_FIRST = 100  # priority of the rule in a remedy: before those of VPNs
NO_USE = {"throw", "local", "broadcast", "multicast", "anycast"}  # kinds of routes
OWN_TABLES = {"local", "255"}
MAIN_TABLES = {"", "main", "254", "default", "253"}


@dataclass(frozen=True)
class UsedRange:
    """A range in use: ``by`` is what uses it, ``device`` its interface, "" where it has none."""

    network: IPv4Network
    by: str
    device: str = ""
    first: bool = False  # its table is looked up before main


def used_ranges(addresses: str, routes: str, rules: str, libvirt: str = "") -> tuple[UsedRange, ...]:
    """Return the ranges in `ip -j addr`, `ip -j route show table all`, `ip -j rule` and libvirt's networks.

    ``libvirt`` has a line for each of its networks: its bridge, a tab, its name.
    """
    names = dict(line.split("\t", 1) for line in libvirt.splitlines() if "\t" in line)
    before = _tables_before_main(_list(rules))
    found: list[UsedRange] = []
    for link in _list(addresses):
        for address in link.get("addr_info", []):
            if address.get("family") == "inet" and link["ifname"] != "lo":
                network = IPv4Network((address["local"], address["prefixlen"]), strict=False)
                found.append(UsedRange(network, user_of(link["ifname"], names), link["ifname"]))
    for route in _list(routes):
        table = str(route.get("table", ""))
        if route.get("type", "unicast") in NO_USE or table in OWN_TABLES:
            continue
        to, device = _destination(route), str(route.get("dev", ""))
        if to is None or device == "lo" or (to.prefixlen <= WIDE and table not in before):
            continue
        by = user_of(device, names) if device else f"a route ({route.get('type', 'unicast')})"
        if table not in MAIN_TABLES:
            by += f", table {table}"
        found.append(UsedRange(to, by, device, first=table in before))
    seen: dict[IPv4Network, UsedRange] = {}
    for used in found:
        seen[used.network] = seen[used.network] if used.network in seen and not used.first else used
    return tuple(sorted(seen.values(), key=lambda used: used.network))


def user_of(device: str, libvirt: dict[str, str]) -> str:
    """Return in words what an interface belongs to, by its name; ``libvirt`` has bridges and their networks.

    >>> user_of("docker0", {}), user_of("virbr0", {"virbr0": "default"}), user_of("tun0", {})
    ("Docker's network docker0", "libvirt's network default", 'tun0')
    """
    if device in libvirt:
        return f"libvirt's network {libvirt[device]}"
    if device == "docker0" or re.fullmatch(r"br-[0-9a-f]{12}", device):
        return f"Docker's network {device}"
    if re.fullmatch(r"virbr\d+", device):
        return f"libvirt's network {device}"
    if re.fullmatch(r"hl[0-9a-f]{8}", device):
        return f"the network of another lab, {device}"
    return device


def remedy(used: UsedRange, network: IPv4Network) -> str:
    """Return the line that lets packets to the lab pass a table before main; "" where there is none."""
    return f"ip rule add to {network} lookup main priority {MAIN_FIRST}" if used.first else ""


def _tables_before_main(rules: Iterable[dict[str, Any]]) -> set[str]:
    """Return the tables that rules send every packet to before they look at all of main."""
    found = set()
    for rule in sorted(rules, key=lambda rule: int(rule.get("priority", 0))):
        table = str(rule.get("table", ""))
        if table in OWN_TABLES or not table:
            continue
        if table in MAIN_TABLES and not _limited(rule):
            break  # with suppress_prefixlength too, which leaves out no more than default routes
        if table not in MAIN_TABLES and not _limited(rule):
            found.add(table)
    return found


def _limited(rule: dict[str, Any]) -> bool:
    """Return whether a rule is for some packets only. "not" all with a mark, as wg-quick has it, are nearly all."""
    some = rule.get("src", "all") != "all" or rule.get("dst", "all") != "all" or "iif" in rule or "oif" in rule
    return some or ("fwmark" in rule and "not" not in rule) or "uid_start" in rule or "ipproto" in rule


def _destination(route: dict[str, Any]) -> IPv4Network | None:
    """Return the destination of a route; None for what is no IPv4 range."""
    text = str(route.get("dst", ""))
    try:
        return IPv4Network("0.0.0.0/0" if text == "default" else text)
    except (AddressValueError, NetmaskValueError, ValueError):
        return None


def _list(text: str) -> list[dict[str, Any]]:
    """Return the objects of a JSON list; none for what is something else."""
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
