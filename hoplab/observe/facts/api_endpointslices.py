"""Endpoints of services: their current addresses and ports."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Generic

from hoplab.core.errors import FactError
from hoplab.core.ip import REMEDY, V4, V6, Address, Family, Network
from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Entries, Item, gather_kubernetes


@dataclass(frozen=True)
class EndpointOf(Generic[Address]):
    """One address and port behind one port of a service."""

    namespace: str
    service: str
    port_name: str  # the service port's name
    protocol: str
    address: Address
    port: int  # the target port
    ready: bool  # nil in the API means ready: slices that are written by hand have no conditions
    node: str
    serving: bool = True  # it answers, also while it terminates
    terminating: bool = False
    for_nodes: tuple[str, ...] = ()  # hints of trafficDistribution: whose clients it is for
    for_zones: tuple[str, ...] = ()


Endpoint = EndpointOf[IPv4Address]
Endpoint6 = EndpointOf[IPv6Address]


def parse(text: str) -> Entries[Endpoint]:
    return _parsed(text, V4)


def parse6(text: str) -> Entries[Endpoint6]:
    return _parsed(text, V6)


def _parsed(text: str, family: Family[Address, Network]) -> Entries[EndpointOf[Address]]:
    return gather_kubernetes(text, "endpointslices", lambda item: _endpoints(item, family))


def _endpoints(item: Item, family: Family[Address, Network]) -> list[EndpointOf[Address]]:
    if item.text("addressType") != family.name:
        return []
    meta = item.item("metadata")
    service = meta.item("labels").text("kubernetes.io/service-name")
    found = []
    for port in item.items("ports"):
        for endpoint in item.items("endpoints"):
            addresses = endpoint.texts("addresses")
            if not addresses:
                raise FactError(f"an endpoint of {service} has no address", remedy=REMEDY)
            conditions = endpoint.item("conditions")
            ready = conditions.truth("ready", missing=True)
            hints = endpoint.item("hints")
            found.append(
                EndpointOf(
                    namespace=meta.text("namespace"),
                    service=service,
                    port_name=port.text("name"),
                    protocol=port.text("protocol") or "TCP",
                    address=family.address(addresses[0], "endpointslices"),
                    port=port.number("port"),
                    ready=ready,
                    node=endpoint.text("nodeName"),
                    serving=conditions.truth("serving", missing=ready),
                    terminating=conditions.truth("terminating"),
                    for_nodes=tuple(hint.text("name") for hint in hints.items("forNodes")),
                    for_zones=tuple(hint.text("name") for hint in hints.items("forZones")),
                )
            )
    return found


PATH = "/apis/discovery.k8s.io/v1/endpointslices"
API_ENDPOINTS = Fact("endpoints", PATH, parse, frozenset({"api"}))
API_ENDPOINTS6 = Fact("endpoints6", PATH, parse6, frozenset({"api"}), ipv6=True)
