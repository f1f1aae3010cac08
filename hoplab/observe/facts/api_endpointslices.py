"""Endpoints of services: their current addresses and ports."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Generic

from hoplab.core.errors import FactError
from hoplab.core.ip import REMEDY, V4, V6, Address, Family, Network
from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Item, kubernetes_list


@dataclass(frozen=True)
class EndpointOf(Generic[Address]):
    """One address and port behind one port of a service."""

    namespace: str
    service: str
    port_name: str  # the service port's name
    protocol: str
    address: Address
    port: int  # the target port
    ready: bool
    node: str


Endpoint = EndpointOf[IPv4Address]
Endpoint6 = EndpointOf[IPv6Address]


def parse(text: str) -> tuple[Endpoint, ...]:
    return _parsed(text, V4)


def parse6(text: str) -> tuple[Endpoint6, ...]:
    return _parsed(text, V6)


def _parsed(text: str, family: Family[Address, Network]) -> tuple[EndpointOf[Address], ...]:
    return tuple(
        endpoint
        for item in kubernetes_list(text, "endpointslices")
        if item.text("addressType") == family.name
        for endpoint in _endpoints(item, family)
    )


def _endpoints(item: Item, family: Family[Address, Network]) -> list[EndpointOf[Address]]:
    meta = item.item("metadata")
    service = meta.item("labels").text("kubernetes.io/service-name")
    found = []
    for port in item.items("ports"):
        for endpoint in item.items("endpoints"):
            addresses = endpoint.texts("addresses")
            if not addresses:
                raise FactError(f"an endpoint of {service} has no address", remedy=REMEDY)
            found.append(
                EndpointOf(
                    namespace=meta.text("namespace"),
                    service=service,
                    port_name=port.text("name"),
                    protocol=port.text("protocol") or "TCP",
                    address=family.address(addresses[0], "endpointslices"),
                    port=port.number("port"),
                    ready=endpoint.item("conditions").truth("ready"),
                    node=endpoint.text("nodeName"),
                )
            )
    return found


PATH = "/apis/discovery.k8s.io/v1/endpointslices"
API_ENDPOINTS = Fact("endpoints", PATH, parse, frozenset({"api"}))
API_ENDPOINTS6 = Fact("endpoints6", PATH, parse6, frozenset({"api"}), ipv6=True)
