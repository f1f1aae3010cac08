"""Routes from a hosted control plane to the pods.

The API server connects to pods: for webhooks, for ``/proxy`` of pods and services, for aggregated APIs. A control plane
in a machine is a node with routes of its pod network; a hosted one is outside of it, so the ranges of each node's pods
lead to this node. By another node packets would take a way that their replies do not, and a node drops what belongs to
no connection that it has seen. ``up`` writes the routes, one command of ``ip`` a line::

    route replace 10.244.1.0/24 proto 120 via 192.168.77.20

They are in a lab's own network namespace only: on a workstation's own network they could take packets from others.
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

PROTOCOL = "120"  # says whose a route is; rt_protos(5) has no name for it
FILE = "routes"  # below the root folder of the control plane

Way: TypeAlias = tuple[IPv4Network | IPv6Network, IPv4Address | IPv6Address]  # to these pods by this node


def set_to(ways: Iterable[Way], file: Path, namespace: str) -> None:
    """Write a route for each way to pods, and set them; raise ClusterError where ``ip`` refuses one."""
    lines = sorted({f"route replace {pods} proto {PROTOCOL} via {node}\n" for pods, node in ways})
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
        except HostError as error:
            raise ClusterError(
                f"the hosted control plane has no way to the pods: {' '.join(error.message.split())}",
                remedy="the lab's network has to be up: ./lab status, ./lab up",
                log=str(file),
            ) from None


def remove(namespace: str) -> None:
    """Remove the routes; those that are not there, in a kernel without IPv6 for instance, are no error."""
    with netns.entered(namespace):
        for family in ("-4", "-6"):
            with suppress(HostError):
                netns.ip(family, "route", "flush", "proto", PROTOCOL)
