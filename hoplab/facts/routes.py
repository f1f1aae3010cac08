"""Routes of all tables: ``ip -j route``; and the decision the kernel takes from them, by longest prefix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from hoplab.facts import Fact
from hoplab.facts._json import Item, listed

DEFAULT = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True)
class Route:
    """One route. ``str(route)`` reads as `ip route` prints it."""

    dst: IPv4Network
    via: IPv4Address | None = None
    dev: str = ""
    kind: str = "unicast"  # also "local", "broadcast", "blackhole", "unreachable", ...
    table: str = "main"
    protocol: str = ""  # who made it: "kernel", "static", "dhcp", "bird", ...
    scope: str = "global"  # "link": reached directly; "host": it is this host
    source: IPv4Address | None = None  # address preferred for packets that start here
    metric: int = 0
    flags: tuple[str, ...] = ()  # "onlink", "linkdown", ...

    def __str__(self) -> str:
        words = [] if self.kind == "unicast" else [self.kind]
        words.append("default" if self.dst == DEFAULT else str(self.dst))
        words += [f"via {self.via}"] if self.via else []
        words += [f"dev {self.dev}"] if self.dev else []
        return " ".join([*words, *self.flags])


def parse(text: str) -> tuple[Route, ...]:
    return tuple(_route(item) for item in listed(text, "routes"))


def _route(item: Item) -> Route:
    return Route(
        dst=item.network("dst") or DEFAULT,
        via=item.address("gateway"),
        dev=item.text("dev"),
        kind=item.text("type") or "unicast",
        table=item.text("table") or "main",
        protocol=item.text("protocol"),
        scope=item.text("scope") or "global",
        source=item.address("prefsrc"),
        metric=item.number("metric"),
        flags=item.texts("flags"),
    )


def lookup(routes: Iterable[Route], address: IPv4Address) -> Route | None:
    """The route a packet to the address takes: the longest prefix that contains it, the lowest metric among equals.

    The tables are asked in the order of the default rules (local, main, default). None: network is unreachable.
    """
    found = list(routes)
    for table in ("local", "main", "default"):
        matching = [route for route in found if route.table == table and address in route.dst]
        if matching:
            return max(matching, key=lambda route: (route.dst.prefixlen, -route.metric))
    return None


ROUTES = Fact("routes", "ip -4 -d -j route show table all", parse, frozenset({"node", "pod"}))
