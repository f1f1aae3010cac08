"""Endpoints of services: which addresses stand behind them right now."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from hoplab.facts import Fact, FactError
from hoplab.facts._json import REMEDY, Item, address, kubernetes_list


@dataclass(frozen=True)
class Endpoint:
    """One address and port behind one port of a service."""

    namespace: str
    service: str
    port_name: str  # the service port's name
    protocol: str
    address: IPv4Address
    port: int  # the target port
    ready: bool
    node: str


def parse(text: str) -> tuple[Endpoint, ...]:
    return tuple(
        endpoint
        for item in kubernetes_list(text, "endpointslices")
        if item.text("addressType") == "IPv4"
        for endpoint in _endpoints(item)
    )


def _endpoints(item: Item) -> list[Endpoint]:
    meta = item.item("metadata")
    service = meta.item("labels").text("kubernetes.io/service-name")
    found = []
    for port in item.items("ports"):
        for endpoint in item.items("endpoints"):
            addresses = endpoint.texts("addresses")
            if not addresses:
                raise FactError(f"an endpoint of {service} has no address", remedy=REMEDY)
            found.append(
                Endpoint(
                    namespace=meta.text("namespace"),
                    service=service,
                    port_name=port.text("name"),
                    protocol=port.text("protocol") or "TCP",
                    address=address(addresses[0], "endpointslices"),
                    port=port.number("port"),
                    ready=endpoint.item("conditions").truth("ready"),
                    node=endpoint.text("nodeName"),
                )
            )
    return found


API_ENDPOINTS = Fact("endpoints", "/apis/discovery.k8s.io/v1/endpointslices", parse, frozenset({"api"}))
