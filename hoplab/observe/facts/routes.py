"""Routes of all tables, of each family, ``ip -j route``, and the kernel's route lookup in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Generic

from hoplab.core.ip import V4, V6, Address, Family, Network
from hoplab.observe.facts import NODES_AND_PODS, Fact
from hoplab.observe.facts._json import Item, listed

DEFAULT = V4.everything


@dataclass(frozen=True)
class RouteOf(Generic[Address, Network]):
    """One route. ``str(route)`` reads as `ip route` prints it."""

    dst: Network
    via: Address | None = None
    dev: str = ""
    kind: str = "unicast"  # also "local", "broadcast", "blackhole", "unreachable", ...
    table: str = "main"
    protocol: str = ""  # its origin: "kernel", "static", "dhcp", "bird", ...
    scope: str = "global"  # "link": reached directly; "host": it is this host
    source: Address | None = None  # preferred source address of locally generated packets
    metric: int = 0
    flags: tuple[str, ...] = ()  # "onlink", "linkdown", ...

    def __str__(self) -> str:
        return printed(self.dst, self.via, self.dev, self.kind, self.flags)


def printed(
    dst: IPv4Network | IPv6Network, via: object, dev: str, kind: str = "unicast", flags: Iterable[str] = ()
) -> str:
    """Return a route as `ip route` prints it.

    >>> printed(DEFAULT, "192.168.77.1", "eth0")
    'default via 192.168.77.1 dev eth0'
    """
    words = [] if kind == "unicast" else [kind]
    words.append("default" if dst.prefixlen == 0 else str(dst))
    words += [f"via {via}"] if via else []
    words += [f"dev {dev}"] if dev else []
    return " ".join([*words, *flags])


Route = RouteOf[IPv4Address, IPv4Network]
Route6 = RouteOf[IPv6Address, IPv6Network]


def parse(text: str) -> tuple[Route, ...]:
    return tuple(_route(item, V4) for item in listed(text, "routes"))


def parse6(text: str) -> tuple[Route6, ...]:
    return tuple(_route(item, V6) for item in listed(text, "routes"))


def _route(item: Item, family: Family[Address, Network]) -> RouteOf[Address, Network]:
    return RouteOf(
        dst=item.read("dst", family.network) or family.everything,
        via=item.read("gateway", family.address),
        dev=item.text("dev"),
        kind=item.text("type") or "unicast",
        table=item.text("table") or "main",
        protocol=item.text("protocol"),
        scope=item.text("scope") or "global",
        source=item.read("prefsrc", family.address),
        metric=item.number("metric"),
        flags=item.texts("flags"),
    )


def lookup(routes: Iterable[RouteOf[Address, Network]], address: Address) -> RouteOf[Address, Network] | None:
    """Return the route of a packet to the address: the longest prefix that contains it, the lowest metric among equals.

    Tables are looked up in the order of the default rules (local, main, default). None: network is unreachable.
    """
    found = list(routes)
    for table in ("local", "main", "default"):
        matching = [route for route in found if route.table == table and address in route.dst]
        if matching:
            return max(matching, key=lambda route: (route.dst.prefixlen, -route.metric))
    return None


ROUTES = Fact("routes", "ip -4 -d -j route show table all", parse, NODES_AND_PODS)
ROUTES6 = Fact("routes6", "ip -6 -d -j route show table all", parse6, NODES_AND_PODS, ipv6=True)
