"""Routes from a hosted control plane to the pods.

The API server connects to pods: for webhooks, for ``/proxy`` of pods and services, for aggregated APIs. A control plane
in a machine is a node with routes of its pod network; a hosted one is outside of it, so the ranges of each node's pods
lead to this node. By another node packets would take a way that their replies do not, and a node drops what belongs to
no connection that it has seen. ``up`` writes the routes, one command of ``ip`` a line::

    route replace 10.244.1.0/24 proto 120 via 192.168.77.20

They are in a lab's own network namespace only: on a workstation's own network they could take packets from others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from hoplab.cluster.api import Requests
from hoplab.core import fs
from hoplab.core.errors import ClusterError, HostError
from hoplab.host import netns

PROTOCOL = "120"  # says whose a route is; rt_protos(5) has no name for it
FILE = "routes"  # below the root folder of the control plane
BLOCKS = "/apis/crd.projectcalico.org/v1/blockaffinities"  # Calico's own ranges


def learn(api: Requests, file: Path, namespace: str) -> None:
    """Write the routes to the pods that nodes have now, and set them; raise ClusterError where ``ip`` refuses one."""
    nodes = api.read("/api/v1/nodes")["items"]
    status, blocks = api("GET", BLOCKS)
    lines = sorted(commands(nodes, blocks["items"] if status == 200 else []))
    fs.write_if_changed(file, "".join(f"{line}\n" for line in lines))
    apply(file, namespace)


def commands(nodes: list[dict[str, Any]], blocks: list[dict[str, Any]]) -> Iterator[str]:
    """Return the route to each range of pods: those that Kubernetes gave to nodes, and Calico's blocks."""
    addresses = {
        node["metadata"]["name"]: [
            ip_address(known["address"])
            for known in node.get("status", {}).get("addresses", [])
            if known["type"] == "InternalIP"
        ]
        for node in nodes
    }
    ranges = [(node["metadata"]["name"], cidr) for node in nodes for cidr in node["spec"].get("podCIDRs", [])]
    ranges += [
        (block["spec"]["node"], block["spec"]["cidr"])
        for block in blocks
        if block["spec"].get("state") == "confirmed" and block["spec"].get("deleted") != "true"
    ]
    for name, cidr in ranges:
        version = ip_network(cidr).version
        if via := next((address for address in addresses.get(name, []) if address.version == version), None):
            yield f"route replace {cidr} proto {PROTOCOL} via {via}"


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
