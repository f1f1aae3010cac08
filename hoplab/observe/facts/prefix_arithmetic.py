"""The kernel's arithmetic of prefixes: addresses on an interface of an empty namespace, and the resulting routes.

An experiment: the routing table `local` has the broadcast address of each range, the
table `main` its network address.
"""

from __future__ import annotations

from ipaddress import IPv4Interface

from hoplab.observe.facts import Fact
from hoplab.observe.facts.routes import Route, parse

ADDRESSES = tuple(
    IPv4Interface(text)
    for text in (
        "10.20.30.41/8",
        "172.16.30.41/16",
        "172.20.30.41/20",
        "192.168.30.41/24",
        "192.168.40.41/30",
        "192.168.50.41/32",
    )
)

_BATCH = "link add hands type bridge\nlink set hands up\n" + "".join(
    f"address add {address} broadcast + dev hands\n" for address in ADDRESSES
)

PREFIX_ARITHMETIC: Fact[tuple[Route, ...]] = Fact(
    "subnet_sums",
    f'unshare --net sh -c \'printf "%s" "{_BATCH}" | ip -batch - && ip -4 -d -j route show table all\'',
    parse,
    constant=True,
)
