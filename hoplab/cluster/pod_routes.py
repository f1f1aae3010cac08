"""Routes from a hosted control plane to the pods.

The API server connects to pods: for webhooks, for ``/proxy`` of pods and services, for aggregated APIs. A control plane
in a machine is a node with routes of its pod network; a hosted one is outside of it, so the ranges of each node's pods
lead to this node. By another node packets would take a way that their replies do not, and a node drops what belongs to
no connection that it has seen. ``up`` writes the routes, one command of ``ip`` a line::

    route replace 10.244.1.0/24 table 120 proto 120 via 192.168.77.20

Only packets that begin in the namespace are looked up there (``iif lo``). The namespace is also the nodes' way to the
outside, and must not forward between nodes what a broken node sends there for a pod elsewhere.

The routes are in a lab's own namespace only: on a workstation's own network they could take packets from others.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import TypeAlias

from hoplab.core import fs
from hoplab.core.errors import ClusterError, HostError
from hoplab.host import netns

PROTOCOL = "120"  # says whose a route or rule is; rt_protos(5) has no name for it
TABLE = "120"
RULE = ("pref", "120", "iif", "lo", "lookup", TABLE, "protocol", PROTOCOL)  # what this namespace itself sends
FILE = "routes"  # below the root folder of the control plane

Way: TypeAlias = tuple[IPv4Network | IPv6Network, IPv4Address | IPv6Address]  # to these pods by this node


def set_to(ways: Iterable[Way], file: Path, namespace: str) -> None:
    """Write a route for each way to pods, and set them; raise ClusterError where ``ip`` refuses one."""
    lines = sorted({f"route replace {pods} table {TABLE} proto {PROTOCOL} via {node}\n" for pods, node in ways})
    fs.write_if_changed(file, "".join(lines))
    apply(file, namespace)


def apply(file: Path, namespace: str) -> None:
    """Set the routes of the file in the namespace, in place of those of an earlier one; without the file set none.

    Raise ClusterError where ``ip`` refuses one.
    """
    remove(namespace)
    if not file.exists():
        return
    with netns.entered(namespace):
        try:
            netns.ip("-batch", str(file))
            for family in _families(file.read_text()):
                netns.ip(family, "rule", "add", *RULE)
        except HostError as error:
            raise ClusterError(
                f"the hosted control plane has no way to the pods: {' '.join(error.message.split())}",
                remedy="the lab's network has to be up: ./lab status, ./lab up",
                log=str(file),
            ) from None


def remove(namespace: str) -> None:
    """Remove routes and rules; those that are not there, in a kernel without IPv6 for instance, are no error."""
    with netns.entered(namespace):
        for family in ("-4", "-6"):
            with suppress(HostError):
                netns.ip(family, "rule", "flush", "protocol", PROTOCOL)
            with suppress(HostError):
                netns.ip(family, "route", "flush", "table", "all", "proto", PROTOCOL)


def _families(lines: str) -> list[str]:
    """Return the options of ``ip`` for the families of these routes.

    >>> _families("route replace 10.244.1.0/24 table 120 proto 120 via 192.168.77.20")
    ['-4']
    """
    ways = [line.split() for line in lines.splitlines()]
    return sorted({"-6" if ":" in words[2] else "-4" for words in ways})
