"""The main routing table as the kernel prints it: ``/proc/net/route``, addresses in reversed hexadecimal."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from hoplab.core.errors import FactError
from hoplab.observe.facts import NODES_AND_PODS, Fact
from hoplab.observe.facts._json import Entries, Unread


@dataclass(frozen=True)
class ProcRoute:
    """One line of /proc/net/route: ``cni0  0001F40A  00000000 ... 00FFFFFF``.

    Of a route with several next hops the kernel prints the first one; of a gateway of IPv6 it prints 0.
    """

    dev: str  # "*" for routes without one (blackhole, unreachable)
    dst: IPv4Network
    via: IPv4Address | None
    metric: int


def parse(text: str) -> Entries[ProcRoute]:
    routes: list[ProcRoute] = []
    lost: list[Unread] = []
    for line in text.splitlines()[1:]:  # the first is the heading
        words = line.split()
        try:
            dev, dst, via, metric, mask = words[0], words[1], words[2], words[6], words[7]
            network = IPv4Network((str(_address(dst)), str(_address(mask)) if int(mask, 16) else 0))
            routes.append(ProcRoute(dev, network, _address(via) if int(via, 16) else None, int(metric)))
        except (IndexError, ValueError):
            lost.append(Unread(line, f"{line!r} is not a line of /proc/net/route"))
    if lost and not routes:
        raise FactError(lost[0].why, remedy="look at it on the node")
    return Entries(routes, lost)


def _address(reversed_hex: str) -> IPv4Address:
    """Return the address of eight hexadecimal digits in host byte order.

    >>> _address("0102F40A")
    IPv4Address('10.244.2.1')
    """
    return IPv4Address(int.from_bytes(bytes.fromhex(reversed_hex), "little"))


PROC_ROUTES = Fact("proc_routes", "cat /proc/net/route", parse, NODES_AND_PODS)
