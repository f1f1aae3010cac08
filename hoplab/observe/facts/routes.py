"""Routes of all tables, of each family, ``ip -j route``, and the kernel's lookup in one table and by default rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Generic

from hoplab.core.errors import FactError
from hoplab.core.ip import REMEDY, V4, V6, Address, Family, IPAddress, Network
from hoplab.observe.facts import NODES_AND_PODS, Fact
from hoplab.observe.facts._json import Entries, Item, gather_listed

DEFAULT = V4.everything
DEFAULT_TABLES = ("local", "main", "default")  # in the order of the rules that every kernel begins with
REFUSING = frozenset(["blackhole", "unreachable", "prohibit"])  # kinds of routes that drop a packet
THROW = "throw"  # the kind of a route that ends the lookup in its table; the next rule decides
NO_HOP = REFUSING | {THROW}


@dataclass(frozen=True)
class NextHop:
    """One of the ways that a route has: ``via 192.168.77.1 dev eth0``."""

    via: IPAddress | None
    dev: str
    weight: int = 1  # its share among the next hops of a route
    flags: tuple[str, ...] = ()  # "onlink", "dead", "linkdown", ...

    def __str__(self) -> str:
        words = [f"via {self.via}" if self.via else "", f"dev {self.dev}" if self.dev else "", f"weight {self.weight}"]
        return " ".join([*(word for word in words if word), *self.flags])


@dataclass(frozen=True)
class RouteOf(Generic[Address, Network]):
    """One route. ``str(route)`` reads as `ip route` prints it."""

    dst: Network
    via: IPAddress | None = None  # None also where there are several next hops; of IPv6 also in a route of IPv4
    dev: str = ""
    kind: str = "unicast"  # also "local", "broadcast", "blackhole", "unreachable", "throw", ...
    table: str = "main"
    protocol: str = ""  # its origin: "kernel", "static", "dhcp", "bird", ...
    scope: str = "global"  # "link": reached directly; "host": it is this host
    source: Address | None = None  # preferred source address of locally generated packets
    metric: int = 0
    flags: tuple[str, ...] = ()  # "onlink", "linkdown", ...
    nexthops: tuple[NextHop, ...] = ()  # of a multipath route
    mtu: int = 0  # bytes; 0 for that of the interface
    tos: int = 0  # only packets with this type of service; 0 for any
    nexthop_id: int = 0  # of a next hop object; 0 for none
    senders: Network | None = None  # IPv6: only packets from this range

    def __str__(self) -> str:
        mixed = isinstance(self.via, IPv6Address) and isinstance(self.dst, IPv4Network)
        via = f"inet6 {self.via}" if mixed else self.via
        words = [printed(self.dst, via, self.dev, self.kind, self.flags)]
        words += [f"mtu {self.mtu}"] if self.mtu else []
        words += [f"nexthop {hop}" for hop in self.nexthops]
        return " ".join(words)

    @property
    def hops(self) -> tuple[NextHop, ...]:
        """Return the next hops in the kernel's order; none where the route drops packets."""
        if self.kind in NO_HOP:
            return ()
        return self.nexthops or ((NextHop(self.via, self.dev, 1, self.flags),) if self.dev or self.via else ())


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


def parse(text: str) -> Entries[Route]:
    return gather_listed(text, "routes", lambda item: (_route(item, V4),))


def parse6(text: str) -> Entries[Route6]:
    return gather_listed(text, "routes", lambda item: (_route(item, V6),))


def _route(item: Item, family: Family[Address, Network]) -> RouteOf[Address, Network]:
    return RouteOf(
        dst=item.read("dst", family.network) or family.everything,
        via=_gateway(item, family),
        dev=item.text("dev"),
        kind=item.text("type") or "unicast",
        table=item.text("table") or "main",
        protocol=item.text("protocol"),
        scope=item.text("scope") or "global",
        source=item.read("prefsrc", family.address),
        metric=item.number("metric"),
        flags=item.texts("flags"),
        nexthops=tuple(
            NextHop(_gateway(hop, family), hop.text("dev"), hop.number("weight") or 1, hop.texts("flags"))
            for hop in item.items("nexthops")
        ),
        mtu=next((mtu for metrics in item.items("metrics") if (mtu := metrics.number("mtu"))), 0),
        tos=_tos(item),
        nexthop_id=item.number("nhid"),
        senders=item.read("from", family.network),
    )


def _gateway(item: Item, family: Family[Address, Network]) -> IPAddress | None:
    """Return the gateway; one of the other family is an object: ``"via": {"family": "inet6", "host": "fe80::1"}``."""
    if gateway := item.read("gateway", family.address):
        return gateway
    via = item.item("via")
    match via.text("family"):
        case V4.key:
            return via.read("host", V4.address)
        case V6.key:
            return via.read("host", V6.address)
        case "":
            return None
        case other:
            raise FactError(f"{via.what}: a gateway of the family {other}", remedy=REMEDY)


def _tos(item: Item) -> int:
    try:
        return int(item.text("tos") or "0", 16)
    except ValueError:
        raise FactError(f"{item.what}.tos: {item.text('tos')!r} is not a number", remedy=REMEDY) from None


def lookup_in(
    routes: Iterable[RouteOf[Address, Network]],
    address: Address,
    *,
    dev: str = "",
    tos: int = 0,
    source: Address | None = None,
) -> RouteOf[Address, Network] | None:
    """Return the route that the kernel takes in one table: the longest prefix, the lowest metric among equals.

    A route for the packet's type of service comes before one for any. Without a next hop that is alive, of the
    interface ``dev`` where the packet is bound to it, a route is passed over; one that drops packets has none.
    """

    def applies(route: RouteOf[Address, Network]) -> bool:
        return (
            address in route.dst
            and route.tos in (0, tos)
            and (route.senders is None or (source is not None and source in route.senders))
            and (route.kind in NO_HOP or not route.hops or any(usable_hops(route, dev)))
        )

    def rank(route: RouteOf[Address, Network]) -> tuple[int, int, bool, int]:
        senders = route.senders.prefixlen if route.senders else 0
        return -route.dst.prefixlen, -senders, route.tos == 0, route.metric

    return min(filter(applies, routes), key=rank, default=None)


def usable_hops(route: RouteOf[Address, Network], dev: str = "") -> Iterator[NextHop]:
    """Yield the next hops of a route that are alive, and of an interface if it is given."""
    for hop in route.hops:
        if "dead" not in hop.flags and dev in ("", hop.dev):
            yield hop


def lookup(routes: Iterable[RouteOf[Address, Network]], address: Address) -> RouteOf[Address, Network] | None:
    """Return the route of a packet to the address by the default rules: the tables local, main, default.

    Rules of a host may decide otherwise: ``hoplab.observe.routing`` follows them. None: network is unreachable.
    """
    found = list(routes)
    for table in DEFAULT_TABLES:
        route = lookup_in((route for route in found if route.table == table), address)
        if route and route.kind != THROW:
            return route
    return None


ROUTES = Fact("routes", "ip -4 -d -j route show table all", parse, NODES_AND_PODS)
ROUTES6 = Fact("routes6", "ip -6 -d -j route show table all", parse6, NODES_AND_PODS, ipv6=True)
